"""One generation batch of a training with TRL."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from viprl.advantages import group_index
from viprl.engines.planned_batch import PlannedBatch
from viprl.prompts import Prompt
from viprl.utils.arrays import FloatArray
from viprl.vip import Observation


@dataclass(frozen=True)
class Groups:
    """One generation batch, the argument of `trainer.vip_listeners`."""

    prompts: list[Prompt]
    """[Q] prompts that were sampled, in global order, the same on every process."""
    counts: list[int]
    """[Q] rollouts of each. Their sum N is the budget C, or less where VIP saves rollouts."""
    rewards: list[list[float]]
    """Total reward of each rollout, one list for each prompt; NaN where unscorable."""
    advantages: FloatArray
    """[N] before the weights of prompts."""
    observation: Observation | None
    """How VIP read the rewards; None on all processes but the main one."""
    weights: FloatArray
    """[Q] weight of each prompt in the batch gradient; 1 if nothing was selected."""


class Generation:
    """State of one generation batch, shared by the overrides.

    Args:
        plan: of the batch.
        rank: the number of this process.
        processes: how many there are; each has the same number of rollouts.
    """

    def __init__(self, plan: PlannedBatch, rank: int, processes: int) -> None:
        self.plan = plan
        self.local = np.split(group_index(plan.counts), processes)[rank]
        """[N / processes] the prompt of each rollout of this process."""
        self.rewards: torch.Tensor | None = None
        """[N, F] of all processes; infinite where a reward cannot be trained on."""
        self.lengths: FloatArray | None = None
        """[N] tokens of the completions of all processes, those of tools included."""
