"""The plan of one training step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from viprl.advantages import RewardPrior
from viprl.prompts import Prompt
from viprl.utils.arrays import FloatArray, IntArray
from viprl.vip import VIP


@dataclass(frozen=True, eq=False)
class PlannedBatch:
    """The prompts that a step samples and the number of rollouts of each."""

    prompts: list[Prompt]
    """[Q]"""
    counts: IntArray
    """[Q] planned rollouts, sum C."""
    positions: IntArray | None = field(default=None, kw_only=True)
    """[Q] positions of the prompts among those that the step was offered, if they were selected."""
    weights: FloatArray | None = field(default=None, kw_only=True)
    """[Q] weights of the prompts in the batch gradient, if they were selected; see `viprl.rollout_weights`."""
    prior: RewardPrior | None = field(default=None, kw_only=True)
    """What is expected of the rewards, if baselines are to be shrunk towards it; see `viprl.group_advantages`."""

    def split(self, values: Any) -> list[list[Any]]:
        """One list for each prompt from `values` [C], an array or a sequence in the order of the prompts."""
        flat: Sequence[Any] = values.tolist() if isinstance(values, np.ndarray) else list(values)
        ends = np.cumsum(self.counts).tolist()
        return [flat[end - n : end] for end, n in zip(ends, self.counts, strict=True)]


def plan_batch(
    vip: VIP, offered: Sequence[Prompt], budget: int, *, candidates: int, unbiased: bool, baseline: str
) -> PlannedBatch:
    """Choose one in `candidates` of the prompts that a step is offered, and their numbers of rollouts.

    Args:
        offered: [k Q], k being `candidates`. With 1 all of them are sampled.
        budget: C.
        unbiased, baseline: the options of `viprl.settings.EngineSettings`.
    """
    if candidates == 1:
        positions, weights, allocation = None, None, vip.allocate(offered, budget)
        prompts = list(offered)
    else:
        selection = vip.select(offered, budget, len(offered) // candidates, unbiased=unbiased)
        positions, weights, allocation = selection.positions, selection.weights, selection.allocation
        prompts = [offered[position] for position in positions]
    prior = allocation.prior if baseline == "expected" else None
    return PlannedBatch(prompts, allocation.counts, positions=positions, weights=weights, prior=prior)
