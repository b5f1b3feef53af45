"""The lengths of the rollouts of a replay: what was logged, what counts as the truth, and what a strategy observes.

symbol  meaning                                                                              shape
h       half of the range in which the reward of a rollout is: 1 upper (a success), 0 lower  [n]
l       true mean length: mean of the logged lengths of the visits t-4 to t+4                [N, T]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from viprl.analysis.protocol import around
from viprl.reward_groups import RewardScale
from viprl.runs.history import PromptHistory
from viprl.runs.visits import ordered_outcomes
from viprl.utils.arrays import FloatArray, IntArray

Shown = tuple[list[FloatArray], list[FloatArray]]
"""Lengths [Q][n] of a batch, NaN where unknown, and h of each."""


@dataclass(frozen=True, eq=False)
class Lengths:
    """The lengths of the prompts of a replay."""

    logged: tuple[tuple[FloatArray, ...], ...]
    """[N] all logged visits of each prompt, [n] lengths each; NaN where unknown."""
    upper: tuple[tuple[FloatArray, ...], ...]
    """[N] the same of h."""
    mean: FloatArray
    """[N, T] l; the mean of the whole log where no length is known."""

    @classmethod
    def of(cls, histories: Sequence[PromptHistory], scale: RewardScale, visits: int) -> Lengths | None:
        """The lengths of some prompts, with means of the first visits; None if none is known. `scale` has seen all
        rewards."""
        if all(history.lengths is None for history in histories):
            return None
        logged = [history.lengths or tuple(np.full(int(n), np.nan) for n in history.rollouts) for history in histories]
        if all(np.isnan(visit).all() for of_prompt in logged for visit in of_prompt):
            return None
        mean = np.array([_smoothed_mean(of_prompt)[:visits] for of_prompt in logged])
        known = np.where(np.isnan(mean), np.nanmean(mean), mean)
        return cls(tuple(logged), tuple(_halves(history, scale) for history in histories), known)

    def shown(self, at: IntArray, visit: int) -> Shown:
        """What the prompts `at` [Q] showed at a visit."""
        return [self.logged[i][visit] for i in at], [self.upper[i][visit] for i in at]

    def drawn(self, at: IntArray, visit: int, draws: FloatArray, counts: IntArray, p: FloatArray | None) -> Shown:
        """What `counts` [Q] rollouts show, drawn from the visits t-4 to t+4 by the uniform `draws` [Q, U].

        Args:
            p: [Q] success probabilities: a draw below is a success, with the length of a logged one. None: every
                logged rollout is equally likely.
        """
        lengths, halves = [], []
        for q, (i, n) in enumerate(zip(at, counts, strict=True)):
            length, upper = (np.concatenate(part[i][around(visit)]) for part in (self.logged, self.upper))
            row = _rows(draws[q, :n], upper, None if p is None else float(p[q]))
            lengths.append(length[row])
            halves.append(upper[row])
        return lengths, halves


def _rows(draws: FloatArray, upper: FloatArray, p: float | None) -> IntArray:
    """[n] the logged rollout of each draw."""
    if p is None:
        return (len(upper) * draws).astype(int)
    success, failure = np.flatnonzero(upper == 1), np.flatnonzero(upper == 0)
    rows = np.empty(len(draws), dtype=int)
    won = draws < p  # the draw is uniform within each of the two
    rows[won] = success[(len(success) * draws[won] / p).astype(int)] if won.any() else 0
    lost = ~won
    rows[lost] = failure[(len(failure) * (draws[lost] - p) / (1 - p)).astype(int)] if lost.any() else 0
    return rows


def _halves(history: PromptHistory, scale: RewardScale) -> tuple[FloatArray, ...]:
    """[T] h of each rollout, [n], in the order of its lengths."""
    if history.rewards is not None:
        return tuple(scale.halves(history.rewards))
    return tuple(map(ordered_outcomes, history.rollouts, history.successes))


def _smoothed_mean(visits: Sequence[FloatArray]) -> FloatArray:
    """[T] l; NaN where no length is known."""
    sums = np.array([(np.nansum(visit), np.sum(~np.isnan(visit))) for visit in visits], dtype=float)
    total, known = np.array([sums[around(t)].sum(axis=0) for t in range(len(visits))]).T
    return np.where(known > 0, total, np.nan) / np.maximum(known, 1)
