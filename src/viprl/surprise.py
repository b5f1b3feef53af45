"""Surprise: how improbable the sampled texts were, and the weight that each group of rollouts measures with it.

    symbol  meaning                                                                            shape
    s       surprise of a rollout: -log probability of the sampled text under the policy, nats  scalar
    u       the unit: sum of s (r - mean of the others)^2 over that of (r - mean of the others)^2  scalar
    s1, s0  mean surprise of a group's right and of its wrong rollouts, divided by u           [Q]
    y       measured weight of a group: (n-1)/n times the mean of (r - mean of the others)^2 s / u,
            k(n-k)/(n(n-1)) where no surprise is known                                          [Q]

A long text has hundreds of nats, a short answer less than one. What is learned must not depend on that, and y with and
without surprise must be comparable, so surprises are divided by u, the mean of those that vary the reward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from viprl.rewards import sample_variance
from viprl.variance import FloatArray


@dataclass(frozen=True)
class Surprise:
    """Mean surprise of a batch of groups; NaN where none is known, and nowhere after `per`."""

    right: FloatArray
    """[Q] of the successes."""
    wrong: FloatArray
    """[Q] of the failures."""

    @classmethod
    def of(cls, outcomes: Sequence[FloatArray], surprise: Sequence[Any]) -> Surprise | None:
        """From the outcome and the surprise of each rollout, group by group; None if no surprise is known."""
        known = [np.array(group, dtype=float) for group in surprise]  # None becomes NaN
        right = np.array([_mean(s[o == 1]) for o, s in zip(outcomes, known, strict=True)])
        wrong = np.array([_mean(s[o == 0]) for o, s in zip(outcomes, known, strict=True)])
        return None if (np.isnan(right) & np.isnan(wrong)).all() else cls(right, wrong)

    def per(self, unit: float) -> Surprise:
        """The same in that unit; what is not known counts as 1, since a group left out for it would be missed: most
        often one with a single success or failure, the first to be unknown."""
        return Surprise(np.nan_to_num(self.right / unit, nan=1.0), np.nan_to_num(self.wrong / unit, nan=1.0))


class SurpriseUnit:
    """The running mean u, slowly forgotten."""

    def __init__(self, *, memory: float = 0.98) -> None:
        self.memory = memory
        self._sums = np.zeros(2)  # of y in nats, of y without surprise

    def observe(self, successes: FloatArray, rollouts: FloatArray, surprise: Surprise) -> float:
        """Learn from [Q] groups; returns u, or before any mixed group the mean surprise of these."""
        nats = measured_weight(successes, rollouts, surprise)
        known = ~np.isnan(nats)
        self._sums *= self.memory
        self._sums += nats[known].sum(), sample_variance(successes, rollouts)[known].sum()
        unit = self._sums[0] / self._sums[1] if self._sums[1] > 0 else np.nanmean([surprise.right, surprise.wrong])
        return max(float(unit), 1e-6)  # a policy without any doubt

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self._sums.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sums = np.array(state["sums"])


def measured_weight(successes: FloatArray, rollouts: FloatArray, surprise: Surprise | None) -> FloatArray:
    """[Q] y, NaN for groups of fewer than two scorable rollouts and where a surprise that it needs is unknown.

    A success is (n-k)/(n-1) above the mean of the others, a failure k/(n-1) below.
    """
    if surprise is None:
        return sample_variance(successes, rollouts)
    k, n = successes, np.maximum(rollouts, 2)
    # where all are right or all are wrong y is 0 times their surprise: unknown with it, so that groups do not enter by
    # their outcome when surprises are missing
    right = np.where(k > 0, k * (n - k) ** 2 * surprise.right, 0)
    wrong = np.where(n > k, (n - k) * k**2 * surprise.wrong, 0)
    return np.where(rollouts >= 2, (right + wrong) / (n**2 * (n - 1)), np.nan)


def _mean(values: FloatArray) -> float:
    finite = np.maximum(values[np.isfinite(values)], 0.0)  # rounding can leave a probability above 1
    return float(finite.mean()) if len(finite) else math.nan
