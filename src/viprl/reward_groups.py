"""Rewards of a batch, group by group, and the scale that makes them comparable.

symbol  meaning                                                                             shape
r       reward of a rollout; only scorable ones                                              [M]
n       rollouts of a group that could be scored                                             [Q]
s2      sample variance of a group, unbiased: sum (r - mean)^2 / (n - 1)                     [Q]
lo, hi  smallest and largest reward so far                                                   scalars
x       position of a reward: (r - lo)/(hi - lo); 0 and 1 for binary rewards                 [M]
k       sum of the positions of a group: the successes of binary rewards                     [Q]
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from viprl.errors import StateError
from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.state_checks import array_entry, entry
from viprl.utils.state_file import State

MOST_LEVELS = 8
"""Distinct rewards up to which they are told apart."""


@dataclass(frozen=True)
class RewardGroups:
    """The scorable rewards of Q groups, flat."""

    groups: int
    """Q."""
    owner: IntArray
    """[M] index of the group of each reward."""
    reward: FloatArray
    """[M]."""

    @classmethod
    def of_rewards(cls, rewards: Sequence[FloatArray]) -> RewardGroups:
        """From Q arrays of rewards; NaN is left out."""
        owner = np.repeat(np.arange(len(rewards)), [len(group) for group in rewards])
        flat = np.concatenate([np.empty(0), *rewards])
        known = ~np.isnan(flat)
        return cls(len(rewards), owner[known], flat[known])

    def merged(self, rows: IntArray, prompts: int) -> RewardGroups:
        """The groups joined by prompt; `rows` [Q] is the prompt of each group."""
        return replace(self, groups=prompts, owner=rows[self.owner])

    @property
    def rollouts(self) -> FloatArray:
        """[Q] n."""
        return self.sum(np.ones_like(self.reward))

    @property
    def mean(self) -> FloatArray:
        """[Q] mean reward; NaN where n = 0."""
        n = self.rollouts
        return np.where(n > 0, self.sum(self.reward) / np.maximum(n, 1), np.nan)

    @property
    def variance(self) -> FloatArray:
        """[Q] s2; NaN where n < 2, exactly 0 where all rewards are equal."""
        n = self.rollouts
        return np.where(n >= 2, self.sum(self.squares) / np.maximum(n - 1, 1), np.nan)

    @property
    def squares(self) -> FloatArray:
        """[M] (r - mean of its group)^2."""
        least = np.full(self.groups, np.inf)
        np.minimum.at(least, self.owner, self.reward)
        r = self.reward - least[self.owner]  # the shift makes groups of equal rewards exactly 0
        mean = self.sum(r) / np.maximum(self.rollouts, 1)
        return (r - mean[self.owner]) ** 2

    def above(self, threshold: float) -> FloatArray:
        """[Q] rollouts whose reward is larger than the threshold."""
        return self.sum((self.reward > threshold).astype(float))

    def sum(self, values: FloatArray) -> FloatArray:
        """[Q] sums of `values` [M] over the rollouts of each group."""
        return np.bincount(self.owner, values, minlength=self.groups).astype(float)


class RewardScale:
    """What the rewards of a run have been so far: distinct values, range, and a unit of variance.

    Nothing depends on the unit in which rewards are given: positions, and variances in `unit_variance`, stay the same
    if all rewards are multiplied by a positive number and shifted.

    Args:
        forgetting_factor: share of the sums for the unit that a step keeps.
    """

    def __init__(self, *, forgetting_factor: float = 0.98) -> None:
        self.forgetting_factor = forgetting_factor
        self._values: list[float] | None = []
        self._low, self._high = math.inf, -math.inf
        self._sums = np.zeros(2)  # of sample variances, of groups

    @property
    def seen(self) -> bool:
        """Whether any reward was seen."""
        return self._low <= self._high

    @property
    def levels(self) -> tuple[float, ...] | None:
        """The distinct rewards so far, ascending; None if there are more than `MOST_LEVELS`."""
        return None if self._values is None else tuple(self._values)

    @property
    def binary(self) -> bool:
        """Whether the rewards have had at most two values."""
        return self._values is not None and len(self._values) <= 2

    @property
    def names_success(self) -> bool:
        """Whether the rewards say what success is: they have been 0/1 or -1/+1."""
        return self._values is not None and any({low, 1.0}.issuperset(self._values) for low in (0.0, -1.0))

    @property
    def range(self) -> tuple[float, float]:
        """lo and hi. Of a single value: 1 is a success, and everything else a failure."""
        if self._low < self._high and (self._values is None or len(self._values) > 1):
            return self._low, self._high
        return (0.0, 1.0) if self._low in (1.0, math.inf) else (self._low, self._low + 1.0)

    @property
    def unit_variance(self) -> float:
        """The variance that counts as 1: (hi - lo)^2 of binary rewards, otherwise 8 times the recent mean of s2."""
        low, high = self.range
        if self.binary or self._sums[0] <= 0:
            return (high - low) ** 2
        return float(8 * self._sums[0] / self._sums[1])

    def observe(self, groups: RewardGroups) -> None:
        """Take in the rewards of a batch."""
        if len(groups.reward) == 0:
            return
        self._low, self._high = min(self._low, float(groups.reward.min())), max(self._high, float(groups.reward.max()))
        if self._values is not None:
            values = _apart(np.concatenate([self._values, np.unique(groups.reward)]), self._high - self._low)
            self._values = values.tolist() if len(values) <= MOST_LEVELS else None
        variance = groups.variance
        known = ~np.isnan(variance)
        self._sums = self.forgetting_factor * self._sums + [variance[known].sum(), known.sum()]

    def position(self, rewards: FloatArray) -> FloatArray:
        """x of each reward, within [0, 1]."""
        low, high = self.range
        return np.clip((rewards - low) / (high - low), 0.0, 1.0)

    def halves(self, groups: Sequence[FloatArray]) -> list[FloatArray]:
        """For each reward of each group 1 in the upper half of the range, 0 in the lower, NaN for NaN."""
        rewards, ends = np.concatenate([np.empty(0), *groups]), np.cumsum([len(group) for group in groups])
        half = np.where(np.isnan(rewards), np.nan, self.position(rewards) > 0.5)
        return [half[end - len(group) : end] for group, end in zip(groups, ends.tolist(), strict=True)]

    def state_dict(self) -> State:
        return {
            "values": None if self._values is None else np.array(self._values),
            "range": np.array([self._low, self._high]) if self.seen else np.empty(0),
            "sums": self._sums.copy(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises StateError for a damaged state."""
        values = None if entry(state, "values") is None else array_entry(state, "values", None)
        ends, sums = array_entry(state, "range", None), array_entry(state, "sums", 2, least=0)
        fits = len(ends) in (0, 2) and (values is None or _spans(values, ends))
        if not fits:
            raise StateError("the entries 'values' and 'range' are not those of a scale of rewards")
        self._values, self._sums = None if values is None else values.tolist(), sums
        self._low, self._high = ends.tolist() if len(ends) else (math.inf, -math.inf)


def _apart(values: FloatArray, span: float) -> FloatArray:
    """The distinct values, ascending. Those that differ by a millionth of the span or by rounding are one."""
    values = np.sort(values)
    apart = np.diff(values) > 1e-6 * span + 1e-9 * np.abs(values).max(initial=0.0)
    return values[np.concatenate([np.ones(min(len(values), 1), dtype=bool), apart])]


def _spans(values: FloatArray, ends: FloatArray) -> bool:
    """Whether the distinct values are ascending, few, and reach from end to end, up to their rounding."""
    if len(values) == 0 or len(ends) == 0:
        return len(values) == len(ends)
    slack = 1e-5 * (ends[1] - ends[0]) + 1e-8 * np.abs(ends).max()
    few = len(values) <= MOST_LEVELS and bool((np.diff(values) > 0).all())
    return few and bool((np.abs(values[[0, -1]] - ends) <= slack).all())


@dataclass(frozen=True)
class GroupOutcomes:
    """What Q groups showed, on the scale of the run."""

    rewards: RewardGroups | None
    """None where only counts are known."""
    rollouts: FloatArray
    """[Q] n."""
    successes: FloatArray
    """[Q] k, the sum of the positions; the successes of binary rewards."""
    upper_rollouts: FloatArray
    """[Q] rollouts with a reward in the upper half of the range."""
    upper_squares: FloatArray
    """[Q] sum of (r - mean)^2 over those rollouts, in units of variance."""
    lower_squares: FloatArray
    """[Q] the same for the other rollouts."""
    binary: bool
    """Whether the rewards of the run have two values."""

    @classmethod
    def of(cls, rewards: RewardGroups, scale: RewardScale) -> GroupOutcomes:
        """The statistics of rewards that `scale` has seen."""
        position = scale.position(rewards.reward)
        squares = rewards.squares / scale.unit_variance
        n, upper = rewards.rollouts, position > 0.5
        return cls(
            rewards,
            n,
            rewards.sum(position),
            rewards.sum(upper.astype(float)),
            rewards.sum(np.where(upper, squares, 0.0)),
            rewards.sum(np.where(upper, 0.0, squares)),
            scale.binary,
        )

    @classmethod
    def of_counts(cls, successes: FloatArray, rollouts: FloatArray) -> GroupOutcomes:
        """Of binary rewards, from [Q] successes among [Q] rollouts."""
        k, n = np.asarray(successes, dtype=float), np.asarray(rollouts, dtype=float)
        rate = k / np.maximum(n, 1)
        return cls(None, n, k, k, k * (1 - rate) ** 2, (n - k) * rate**2, True)

    def reweighed(self, factors: FloatArray) -> GroupOutcomes:
        """With variances times `factors` [Q]."""
        upper, lower = self.upper_squares * factors, self.lower_squares * factors
        return replace(self, upper_squares=upper, lower_squares=lower)

    @property
    def variance(self) -> FloatArray:
        """[Q] unbiased estimate of the reward variance; k(n-k)/(n(n-1)) of binary rewards; NaN for n < 2."""
        squares = self.upper_squares + self.lower_squares
        return np.where(self.rollouts >= 2, squares / np.maximum(self.rollouts - 1, 1), np.nan)

    @property
    def constant(self) -> np.ndarray:
        """[Q] whether all rewards of the group are equal; false without any."""
        return (self.rollouts > 0) & (self.upper_squares + self.lower_squares == 0)
