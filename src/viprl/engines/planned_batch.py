"""The plan of one training step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from viprl.advantages import RewardPrior
from viprl.metrics import ZERO_ADVANTAGE
from viprl.prompts import Prompt
from viprl.utils.arrays import FloatArray, IntArray
from viprl.vip import VIP


@dataclass(frozen=True, eq=False)
class PlannedBatch:
    """The prompts that a step samples and the number of rollouts of each."""

    prompts: list[Prompt]
    """[Q]"""
    counts: IntArray
    """[Q] planned rollouts; their sum is the budget C, or less where the options of VIP save rollouts."""
    weights: FloatArray
    """[Q] weight of each prompt in the batch gradient; 1 if nothing was selected. See `viprl.rollout_weights`."""
    prior: RewardPrior | None = field(default=None, kw_only=True)
    """What baselines are shrunk towards; None for baselines of the group alone. See `viprl.group_advantages`."""

    def split(self, values: Any) -> list[list[Any]]:
        """One list for each prompt from `values` [C], an array or a sequence in the order of the prompts."""
        flat: Sequence[Any] = values.tolist() if isinstance(values, np.ndarray) else list(values)
        ends = np.cumsum(self.counts).tolist()
        return [flat[end - n : end] for end, n in zip(ends, self.counts, strict=True)]


def plan_batch(
    vip: VIP,
    offered: Sequence[Prompt],
    budget: int,
    size: int,
    *,
    unbiased: bool,
    multiple: int = 1,
) -> tuple[list[int], PlannedBatch]:
    """Choose which of the prompts that a step is offered are sampled, and their numbers of rollouts.

    Args:
        offered: [M] prompts.
        budget: C.
        size: Q, the prompts to sample. With M all of them are.
        unbiased: the option of `viprl.settings.EngineSettings`.
        multiple: the number of rollouts is rounded up to a multiple of it.

    Returns: [Q] positions of the sampled prompts among those offered, ascending, and their plan.
    """
    if size == len(offered):
        allocation, positions, weights = (
            vip.allocate(offered, budget, multiple=multiple),
            list(range(size)),
            np.ones(size),
        )
    else:
        selection = vip.select(offered, budget, size, unbiased=unbiased, multiple=multiple)
        allocation, positions, weights = selection.allocation, selection.positions.tolist(), selection.weights
    return positions, PlannedBatch([offered[i] for i in positions], allocation.counts, weights, prior=allocation.prior)


def batch_metrics(vip: VIP, advantages: FloatArray) -> dict[str, float]:
    """The metrics of VIP after it has observed a batch, with what only an engine knows: the advantages [C] before the
    weights of prompts."""
    return vip.metrics() | {ZERO_ADVANTAGE: float((advantages == 0).mean())}
