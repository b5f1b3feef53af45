"""VIP for TRL: `VIPGRPOTrainer` and `VIPRLOOTrainer`, drop-in subclasses of TRL's trainers (docs/trl.md)."""

from viprl.engines.trl.generation import Groups
from viprl.engines.trl.trainer_configs import VIPGRPOConfig, VIPRLOOConfig
from viprl.engines.trl.trainers import VIPGRPOTrainer, VIPRLOOTrainer, vip_from_config

__all__ = ["Groups", "VIPGRPOConfig", "VIPGRPOTrainer", "VIPRLOOConfig", "VIPRLOOTrainer", "vip_from_config"]
