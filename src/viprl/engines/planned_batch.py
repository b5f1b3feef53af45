"""The plan of one training step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from viprl.advantages import RewardPrior, group_advantages
from viprl.allocation.optimum import Allocation
from viprl.allocation.waves.pooled import pooled_advantages
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
    waves: Allocation | None = field(default=None, kw_only=True)
    """What `VIP.next` and `viprl.pooled_advantages` need; None if the batch is sampled at once."""

    def split(self, values: Any) -> list[list[Any]]:
        """One list for each prompt from `values` [C], an array or a sequence in the order of the prompts."""
        flat: Sequence[Any] = values.tolist() if isinstance(values, np.ndarray) else list(values)
        ends = np.cumsum(self.counts).tolist()
        return [flat[end - n : end] for end, n in zip(ends, self.counts, strict=True)]

    def advantages(self, rewards: FloatArray) -> FloatArray:
        """[C] leave-one-out advantages of rewards [C], of both waves if there are two; before the prompt weights."""
        if self.waves is None:
            return group_advantages(rewards, self.counts, prior=self.prior)
        return pooled_advantages(self.split(rewards), self.waves)


Planned = TypeVar("Planned", bound=PlannedBatch)


def plan_batch(
    vip: VIP,
    offered: Sequence[Prompt],
    budget: int,
    size: int,
    *,
    unbiased: bool,
    multiple: int = 1,
    waves: int = 1,
) -> tuple[list[int], PlannedBatch]:
    """Choose which of the prompts that a step is offered are sampled, and their numbers of rollouts.

    Args:
        offered: [M] prompts.
        budget: C.
        size: Q, the prompts to sample. With M all of them are.
        unbiased: the option of `viprl.settings.EngineSettings`.
        multiple: the number of rollouts, in each wave, is rounded up to a multiple of it.
        waves: 2 to sample in two waves where that pays.

    Returns: [Q] positions of the sampled prompts among those offered, ascending, and their plan. If it has `waves`, its
    counts are those of the first wave, and `both_waves` gives the rest.
    """
    how = {"multiple": multiple, "waves": waves}
    if size == len(offered):
        positions, weights = list(range(size)), np.ones(size)
        allocation = vip.allocate(offered, budget, **how)
    else:
        selection = vip.select(offered, budget, size, unbiased=unbiased, **how)
        allocation, positions, weights = selection.allocation, selection.positions.tolist(), selection.weights
    prompts, two = [offered[i] for i in positions], allocation if allocation.waves is not None else None
    return positions, PlannedBatch(prompts, allocation.counts, weights, prior=allocation.prior, waves=two)


def both_waves(vip: VIP, first: Planned, rewards: FloatArray) -> Planned:
    """The plan of both waves, whose counts are those of the whole batch.

    Args:
        first: has `waves`.
        rewards: [N] of the first wave, in the order of the prompts.
    """
    if first.waves is None:
        raise ValueError("the batch is sampled at once; it has no second wave")
    second = vip.next(first.waves, first.split(rewards))
    return replace(first, counts=first.counts + second.counts, waves=second)


def batch_metrics(vip: VIP, advantages: FloatArray) -> dict[str, float]:
    """The metrics of VIP after it has observed a batch, with what only an engine knows: the advantages [C] before the
    weights of prompts."""
    return vip.metrics() | {ZERO_ADVANTAGE: float((advantages == 0).mean())}
