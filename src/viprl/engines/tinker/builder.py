"""VIP for tinker-cookbook: `with_vip(config)` gives its `rl.train.main` adaptive rollout counts.

The dataset of the config is wrapped: each batch costs as many rollouts as before, but VIP says how they are split.
Nothing of tinker-cookbook is copied or patched.

    extension point                         use
    RLDatasetBuilder, RLDataset.get_batch   prompts -> counts -> group builders of that many environments
    EnvGroupBuilder.compute_group_rewards   a finished group's outcomes to VIP; its rewards shaped for training

tinker-cookbook's advantage is a reward minus the mean of its group, and Tinker's losses sum over tokens, so a prompt
would weigh n_q. Group rewards are therefore returned such that centring them yields the advantages of
`group_advantages` times (C/Q)/n_q: every prompt weighs the same, exactly, however a step is split. The mean reward of a
group stays what it was; unshaped rewards are logged as vip/reward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    import chz
    from tinker_cookbook.rl.types import RLDataset, RLDatasetBuilder

    from viprl.engines.tinker.dataset import VIPDataset, question
except ImportError as error:
    raise ImportError(f'viprl.engines.tinker needs tinker-cookbook: pip install "viprl[tinker]" ({error})') from error

from viprl.engines.success import SuccessCriterion
from viprl.engines.tinker import contract as tinker_contract
from viprl.prompts import Prompt
from viprl.strategies import check_training_strategy
from viprl.vip import VIP


def with_vip(config: Any, **options: Any) -> Any:
    """`config` (tinker-cookbook's `rl.train.Config`) with adaptive counts; options: the fields of `VIPDatasetBuilder`.

    Raises ValueError for settings that break the plan, ImportError where tinker-cookbook has moved what is used.
    """
    tinker_contract.check()
    if config.async_config is not None:
        raise ValueError("async_config plans batches before the rewards of earlier ones have come; VIP needs None")
    if config.stream_minibatch_config is not None:
        raise ValueError("stream_minibatch_config was never tried with VIP; set it to None")
    termination = config.effective_termination()
    if termination is not None and termination.zero_reward_on_limit:
        raise ValueError(
            "termination.zero_reward_on_limit changes rewards after VIP has read them; set "
            "termination=TerminationRewardPolicy(zero_reward_on_limit=False)"
        )
    builder = VIPDatasetBuilder(inner=config.dataset_builder, log_path=config.log_path, **options)
    return chz.replace(config, dataset_builder=builder)


@chz.chz
class VIPDatasetBuilder(RLDatasetBuilder):
    """Wraps the training dataset of `inner`; the test dataset is left alone. Made by `with_vip`."""

    inner: RLDatasetBuilder
    log_path: str
    success: Any = None
    """What counts as success: a metric of the environment ("correct", "score>=0.5"), a threshold on the total reward,
    "module:function" of the total; None: total rewards are 0/1 or -1/+1."""
    prompt: Callable[[Any], Prompt] = question
    """The prompt of a group builder: a text, a chat, or a mapping with `prompt` and `id`."""
    estimator: str = "rloo"
    low: int | None = None
    high: int | None = None
    strategy: str = "default"
    shadow: tuple[str, ...] = ()
    features: Any = "auto"
    cache: str | None = "auto"
    seed: int = 0

    async def __call__(self) -> tuple[RLDataset, RLDataset | None]:
        tinker_contract.check()
        for name in (self.strategy, *self.shadow):
            check_training_strategy(name)
        train, test = await self.inner()
        source = SuccessCriterion(self.success, [], complete=False)
        names = ("estimator", "low", "high", "strategy", "shadow", "features", "cache", "seed")
        vip = VIP(success=source.rule, **{name: getattr(self, name) for name in names})
        return VIPDataset(train, vip, self.log_path, column=source.column, prompt=self.prompt), test
