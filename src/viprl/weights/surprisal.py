"""Surprisal: how improbable the rollouts were, and the variance weight that each group measures with it.

    symbol  meaning                                                                             shape
    s       surprisal of a rollout: -log probability of its tokens under the policy, in nats     scalar
    u       unit: sum of s (r - mean of the others)^2 over sum of (r - mean of the others)^2     scalar
    s1, s0  mean surprisal of the rollouts of a group with rewards in the upper and in the lower
            half of the range (right and wrong ones of binary rewards), divided by u             [Q]
    S1, S0  sum of (r - mean)^2 over the same rollouts                                           [Q]
    y       measured weight of a group: (S1 s1 + S0 s0)/(n-1), which is (n-1)/n times the mean
            of (r - mean of the others)^2 s / u; the sample variance if no surprisal is known    [Q]

A long text has hundreds of nats, a short answer less than one. Dividing by u, the mean surprisal of the rollouts that
vary the reward, makes what is learned independent of that, and y comparable with and without surprisal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from viprl.reward_groups import GroupOutcomes
from viprl.utils.arrays import FloatArray
from viprl.utils.state_checks import array_entry
from viprl.utils.state_file import State


@dataclass(frozen=True)
class Surprisal:
    """Mean surprisal of each group of a batch; NaN where none is known, and nowhere after `in_units`."""

    right: FloatArray
    """[Q] of the upper half: the successes."""
    wrong: FloatArray
    """[Q] of the lower half: the failures."""

    @classmethod
    def of(cls, halves: Sequence[FloatArray], logprobs: Sequence[FloatArray]) -> Surprisal | None:
        """Group by group, from the half of each rollout (1 upper, 0 lower, NaN unscorable) and its log probability
        (NaN where unknown); None if none is known."""
        known = [-np.asarray(group, dtype=float) for group in logprobs]
        right = np.array([_mean(s[o == 1]) for o, s in zip(halves, known, strict=True)])
        wrong = np.array([_mean(s[o == 0]) for o, s in zip(halves, known, strict=True)])
        return None if (np.isnan(right) & np.isnan(wrong)).all() else cls(right, wrong)

    def in_units(self, unit: float) -> Surprisal:
        """Divided by the unit. Unknown values become 1: dropping their groups would bias the fit, since most of them
        have a single success or failure."""
        return Surprisal(np.nan_to_num(self.right / unit, nan=1.0), np.nan_to_num(self.wrong / unit, nan=1.0))


class SurprisalUnit:
    """The running mean u.

    Args:
        forgetting_factor: share of the sums that a step keeps.
    """

    def __init__(self, *, forgetting_factor: float = 0.98) -> None:
        self.forgetting_factor = forgetting_factor
        self._sums = np.zeros(2)  # of y in nats, of y without surprisal

    def measure(
        self,
        halves: Sequence[FloatArray],
        logprobs: Sequence[FloatArray],
        merged: Callable[[Sequence[FloatArray]], Sequence[FloatArray]],
        outcomes: GroupOutcomes,
    ) -> tuple[Surprisal | None, Surprisal | None]:
        """Learn from a batch. Returns the surprisal in units of its Q groups and of its D prompts; None if unknown.

        Args:
            halves, logprobs: of each rollout, Q groups, see `Surprisal.of`.
            merged: joins the groups of each prompt.
            outcomes: of the D prompts.
        """
        groups, prompts = Surprisal.of(halves, logprobs), Surprisal.of(merged(halves), merged(logprobs))
        if groups is None or prompts is None:
            return None, None
        unit = self.observe(outcomes, prompts)
        return groups.in_units(unit), prompts.in_units(unit)

    def observe(self, outcomes: GroupOutcomes, surprisal: Surprisal) -> float:
        """Learn from [Q] groups. Returns u; before any mixed group, the mean surprisal of these groups."""
        nats = measured_weight(outcomes, surprisal)
        known = ~np.isnan(nats)
        self._sums *= self.forgetting_factor
        self._sums += nats[known].sum(), outcomes.variance[known].sum()
        unit = self._sums[0] / self._sums[1] if self._sums[1] > 0 else np.nanmean([surprisal.right, surprisal.wrong])
        return max(float(unit), 1e-6)  # a deterministic policy has surprisal 0

    def state_dict(self) -> State:
        return {"sums": self._sums.copy()}

    def load_state_dict(self, state: State) -> None:
        self._sums = array_entry(state, "sums", 2, least=0)


def measured_weight(outcomes: GroupOutcomes, surprisal: Surprisal | None) -> FloatArray:
    """[Q] y; NaN for groups of fewer than two scorable rollouts and where a surprisal that y needs is unknown."""
    if surprisal is None:
        return outcomes.variance
    k, n = outcomes.upper_rollouts, outcomes.rollouts
    # For groups that are all right or all wrong y is 0 times a surprisal, NaN if that is unknown: whether a group
    # counts must not depend on its outcome.
    upper = np.where(k > 0, outcomes.upper_squares * surprisal.right, 0)
    lower = np.where(n > k, outcomes.lower_squares * surprisal.wrong, 0)
    return np.where(n >= 2, (upper + lower) / np.maximum(n - 1, 1), np.nan)


def _mean(values: FloatArray) -> float:
    finite = np.maximum(values[np.isfinite(values)], 0.0)  # rounding can leave a probability above 1
    return float(finite.sum() / len(finite)) if len(finite) else math.nan  # half the time of mean()
