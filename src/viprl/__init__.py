"""viprl: adaptive rollout allocation (VIP) for reinforcement learning with verifiable rewards.

The loop: prompts -> features -> predictors -> weights -> allocation -> engines -> advantages -> outcomes -> predictors.
"""

from viprl.advantages import group_advantages, rollout_weights
from viprl.allocation.budget import Budget
from viprl.allocation.guard import Guard
from viprl.allocation.optimum import Allocation, allocate, allocate_weights
from viprl.allocation.rules import Rule
from viprl.allocation.selection import Selection
from viprl.allocation.waves.pooled import pooled_advantages
from viprl.predictors.base import Batch, Prediction, Predictor
from viprl.strategies import STRATEGIES, Strategy
from viprl.vip import VIP, Observation

__version__ = "0.1.0"

__all__ = [
    "STRATEGIES",
    "VIP",
    "Allocation",
    "Batch",
    "Budget",
    "Guard",
    "Observation",
    "Prediction",
    "Predictor",
    "Rule",
    "Selection",
    "Strategy",
    "allocate",
    "allocate_weights",
    "group_advantages",
    "pooled_advantages",
    "rollout_weights",
]
