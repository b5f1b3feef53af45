"""VIP for tinker-cookbook: `with_vip(config)` gives its `rl.train.main` adaptive rollout counts (docs/tinker.md)."""

from viprl.engines.tinker.dataset_builder import VIPDatasetBuilder, with_vip

__all__ = ["VIPDatasetBuilder", "with_vip"]
