"""viprl: adaptive rollout allocation (VIP) for reinforcement learning with verifiable rewards."""

from viprl.advantages import group_advantages, prompt_scale
from viprl.allocation import Allocation, allocate, allocate_weights
from viprl.planner import VIP
from viprl.strategies import STRATEGIES

__version__ = "0.1.0"

__all__ = [
    "STRATEGIES",
    "VIP",
    "Allocation",
    "allocate",
    "allocate_weights",
    "group_advantages",
    "prompt_scale",
]
