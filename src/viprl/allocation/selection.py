"""Which of M candidates are sampled: inclusion probabilities, and samples of a fixed size.

    symbol  meaning                                                                         shape
    M, m    candidates of a step, prompts of it that are sampled                            scalars
    g       gradient of each candidate; only its expected size b is known, up to a factor   [M]
    a       variance weight of each candidate                                               [M]
    pi      inclusion probability of each candidate                                         [M]
    n       rollouts of each candidate that is sampled                                      [M]

The estimate (1/M) sum_(q sampled) g_hat_q / pi_q of the mean gradient of all candidates is unbiased for any pi > 0, and
its variance is, up to 1/M^2 and covariances between inclusions,

    sum_q (1/pi_q - 1) |g_q|^2 + (1/pi_q) a_q f(n_q)

With the optimal counts n_q - 1 ~ sqrt(a_q)/pi_q the second term hardly depends on pi, so the first decides: its minimum
under sum pi = m is pi_q = min(1, |g_q|/t). Where |g_q| is uncertain, the minimum of its expectation has the root of
E|g_q|^2 in place of |g_q|.

No prompt has an inclusion probability below `FLOOR` m/M. The floor bounds the weights 1/pi.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from viprl.allocation.optimum import Allocation
from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.numerics import bisect

FLOOR = 0.2
"""Smallest inclusion probability, in units of the average m/M."""


@dataclass(frozen=True)
class Selection:
    """The candidates that are sampled, and how often."""

    positions: IntArray
    """[m] positions of the sampled prompts among the candidates, ascending."""
    allocation: Allocation
    """Of the sampled prompts."""
    inclusion: FloatArray
    """[M] probability with which each candidate was sampled; sums to m."""
    weights: FloatArray
    """[m] weight of each sampled prompt in the batch gradient, (m/M)/pi, of expected mean 1; 1 if the selection is not
    corrected for. For `viprl.rollout_weights`."""

    @property
    def counts(self) -> IntArray:
        """[M] rollouts of each candidate, 0 for those passed over; sums to the budget."""
        counts = np.zeros(len(self.inclusion), dtype=np.int64)
        counts[self.positions] = self.allocation.counts
        return counts

    def __repr__(self) -> str:
        return f"Selection({len(self.positions)} of {len(self.inclusion)} candidates, {self.allocation!r})"


def inclusion_probabilities(size: FloatArray, m: int, floor: float = FLOOR) -> FloatArray:
    """[M] pi = min(1, max(size/t, floor m/M)) with t such that sum pi = m.

    Args:
        size: [M] numbers >= 0, proportional to the root of E|g|^2. Equal sizes give m/M each.
        m: prompts to sample, 1 <= m <= M.
        floor: smallest probability in units of m/M, in (0, 1].
    """
    candidates = len(size)
    if m == candidates:
        return np.ones(candidates)
    least = floor * m / candidates
    # zeros count as sizes far below all others: they are at the floor, or share evenly what the others leave
    b = np.maximum(size / size.max(), 1e-300) if size.max() > 0 else np.ones(candidates)

    def probabilities(t: float) -> FloatArray:
        return np.clip(b / t, least, 1.0)

    low, high = bisect(lambda t: probabilities(t).sum() > m, 1e-300, 2.0 / least, geometric=True)
    above, below = probabilities(low), probabilities(high)
    gap = above.sum() - below.sum()
    return below if gap <= 0 else below + (above - below) * (m - below.sum()) / gap


def systematic_sample(pi: FloatArray, rng: np.random.Generator) -> IntArray:
    """Positions of a sample, ascending, that contains position q with probability pi_q.

    The candidates are laid out in random order on a line, each with the length pi_q; those that cover one of the points
    u, u + 1, u + 2, ... are sampled, u uniform in [0, 1). If sum pi = m is a whole number, m candidates are sampled.
    """
    order = rng.permutation(len(pi))
    ends = np.cumsum(pi[order])
    whole, start = np.rint(ends[-1]), rng.random()
    if abs(ends[-1] - whole) > 1e-6:
        points = np.ceil(ends - start)  # points below each end
    else:
        points = np.ceil(ends * (whole / ends[-1]) - start)
        points[-1] = whole  # rounding must not cost a prompt
    return np.sort(order[np.diff(points, prepend=0.0) > 0])
