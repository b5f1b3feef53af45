"""Surprisal: how improbable the rollouts were, and the variance weight that each group measures with it.

    symbol  meaning                                                                             shape
    s       surprisal of a rollout: -log probability of its tokens under the policy, in nats     scalar
    u       unit: sum of s (r - mean of the others)^2 over sum of (r - mean of the others)^2     scalar
    s1, s0  mean surprisal of the right and of the wrong rollouts of a group, divided by u       [Q]
    y       measured weight of a group: (n-1)/n times the mean of (r - mean of the others)^2 s / u,
            k(n-k)/(n(n-1)) if no surprisal is known                                             [Q]

A long text has hundreds of nats, a short answer less than one. Dividing by u, the mean surprisal of the rollouts that
vary the reward, makes what is learned independent of that, and y comparable with and without surprisal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from viprl.outcomes import sample_variance
from viprl.utils.arrays import FloatArray
from viprl.utils.state_checks import array_entry
from viprl.utils.state_file import State


@dataclass(frozen=True)
class Surprisal:
    """Mean surprisal of each group of a batch; NaN where none is known, and nowhere after `in_units`."""

    right: FloatArray
    """[Q] of the successes."""
    wrong: FloatArray
    """[Q] of the failures."""

    @classmethod
    def of(cls, outcomes: Sequence[FloatArray], logprobs: Sequence[FloatArray]) -> Surprisal | None:
        """From the outcome and the log probability (NaN where unknown) of each rollout, group by group; None if none is
        known."""
        known = [-np.asarray(group, dtype=float) for group in logprobs]
        right = np.array([_mean(s[o == 1]) for o, s in zip(outcomes, known, strict=True)])
        wrong = np.array([_mean(s[o == 0]) for o, s in zip(outcomes, known, strict=True)])
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
        outcomes: Sequence[FloatArray],
        logprobs: Sequence[FloatArray],
        merged: Callable[[Sequence[FloatArray]], Sequence[FloatArray]],
        successes: FloatArray,
        rollouts: FloatArray,
    ) -> tuple[Surprisal | None, Surprisal | None]:
        """Learn from a batch. Returns the surprisal in units of its Q groups and of its D prompts; None if unknown.

        Args:
            outcomes, logprobs: of each rollout, Q groups.
            merged: joins the groups of each prompt.
            successes, rollouts: [D] of each prompt.
        """
        groups, prompts = Surprisal.of(outcomes, logprobs), Surprisal.of(merged(outcomes), merged(logprobs))
        if groups is None or prompts is None:
            return None, None
        unit = self.observe(successes, rollouts, prompts)
        return groups.in_units(unit), prompts.in_units(unit)

    def observe(self, successes: FloatArray, rollouts: FloatArray, surprisal: Surprisal) -> float:
        """Learn from [Q] groups. Returns u; before any mixed group, the mean surprisal of these groups."""
        nats = measured_weight(successes, rollouts, surprisal)
        known = ~np.isnan(nats)
        self._sums *= self.forgetting_factor
        self._sums += nats[known].sum(), sample_variance(successes, rollouts)[known].sum()
        unit = self._sums[0] / self._sums[1] if self._sums[1] > 0 else np.nanmean([surprisal.right, surprisal.wrong])
        return max(float(unit), 1e-6)  # a deterministic policy has surprisal 0

    def state_dict(self) -> State:
        return {"sums": self._sums.copy()}

    def load_state_dict(self, state: State) -> None:
        self._sums = array_entry(state, "sums", 2, least=0)


def measured_weight(successes: FloatArray, rollouts: FloatArray, surprisal: Surprisal | None) -> FloatArray:
    """[Q] y; NaN for groups of fewer than two scorable rollouts and where a surprisal that y needs is unknown.

    A success is (n-k)/(n-1) above the mean of the others, a failure k/(n-1) below.
    """
    if surprisal is None:
        return sample_variance(successes, rollouts)
    k, n = successes, np.maximum(rollouts, 2)
    # For groups that are all right or all wrong y is 0 times a surprisal, NaN if that is unknown: whether a group
    # counts must not depend on its outcome.
    right = np.where(k > 0, k * (n - k) ** 2 * surprisal.right, 0)
    wrong = np.where(n > k, (n - k) * k**2 * surprisal.wrong, 0)
    return np.where(rollouts >= 2, (right + wrong) / (n**2 * (n - 1)), np.nan)


def _mean(values: FloatArray) -> float:
    finite = np.maximum(values[np.isfinite(values)], 0.0)  # rounding can leave a probability above 1
    return float(finite.sum() / len(finite)) if len(finite) else math.nan  # half the time of mean()
