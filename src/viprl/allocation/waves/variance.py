"""The exact variance of the pooled estimators of two waves, at every success probability of a grid.

    symbol  meaning                                                                       shape
    p       grid of success probabilities                                                 [G]
    w       rollouts of the first wave
    S       label, a run of successes low..high of the first wave                         [I]
    n       rollouts of both waves                                                        w..U
    u, t    coefficients: the gradient estimate is u (mean score of successes) - t (mean score of failures)

Scores are taken as independent of the reward, as in `viprl.allocation.variance_models`, so that the variance is, in
units of the variance of a score,

    V(S, n; p) = sum_K P(K, S | p) (u^2 / K + t^2 / (n - K)),      u = theta (1 - mu) h1 + (1 - theta) c,
                                                                   t = theta mu h0 + (1 - theta) c,

with h1 and h0 the shares of the first wave that are successes and failures, expected given K and S, and c = c(K, n)
(`viprl.allocation.waves.estimator`). This is the share of the second moment that falls to outcomes with the label S;
the variance of a rule is the sum over its labels. All of it is linear in a belief over p, so the tables are computed
once for all prompts.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from viprl.utils.arrays import FloatArray, IntArray

MOMENTS = 5
"""Terms of V: theta^2 (1-mu)^2, theta^2 mu^2, (1-theta)^2, 2 theta (1-theta) (1-mu), 2 theta (1-theta) mu."""


@dataclass(frozen=True)
class LookTable:
    """V and P(S) for one size of the first wave."""

    size: int
    """w."""
    low: IntArray
    """[I] fewest successes of each label."""
    high: IntArray
    """[I] most."""
    chance: FloatArray
    """[I, G] P(S | p)."""
    moments: FloatArray
    """[5, I, U + 1, G] the terms of V without the factors in theta and mu; infinity for n < w."""

    def label(self, low: int, high: int) -> int:
        """The position of a label in the tables."""
        return int(np.flatnonzero((self.low == low) & (self.high == high))[0])


def factors(share: FloatArray, mean: FloatArray) -> FloatArray:
    """[5, Q] by which `LookTable.moments` count, for theta [Q] and mu [Q]."""
    rest = 1 - share
    return np.array(
        [
            (share * (1 - mean)) ** 2,
            (share * mean) ** 2,
            rest**2,
            2 * share * rest * (1 - mean),
            2 * share * rest * mean,
        ]
    )


def look_table(size: int, most: int, p: FloatArray) -> LookTable:
    """The tables for first waves of `size` and groups of at most `most` = U rollouts."""
    return _look_table(size, most, tuple(map(float, p)))


@functools.lru_cache(maxsize=64)
def _look_table(w: int, most: int, probabilities: tuple[float, ...]) -> LookTable:
    from scipy.special import comb

    p = np.array(probabilities)
    low, high = (rows.astype(np.int64) for rows in np.triu_indices(w + 1))
    k1 = np.arange(w + 1)
    chance = _runs(comb(w, k1)[:, None] * p ** k1[:, None] * (1 - p) ** (w - k1)[:, None], low, high)
    moments = np.full((MOMENTS, len(low), most + 1, len(p)), np.inf)
    for n in range(w, most + 1):
        k = np.arange(n + 1)
        second = k - k1[:, None]  # [w+1, n+1]
        orders = comb(w, k1)[:, None] * np.where(second >= 0, comb(n - w, np.maximum(second, 0)), 0.0)
        total = _runs(orders, low, high)  # [I, n+1]
        known = np.maximum(total, 1.0)
        ones = _runs(orders * (k1 / w)[:, None], low, high) / known
        c = _runs(orders * (k1 * (w - k1) / (w * (w - 1)))[:, None], low, high) / known
        zeros = np.where(total > 0, 1 - ones, 0.0)
        success, failure = 1 / np.maximum(k, 1), 1 / np.maximum(n - k, 1)
        terms = np.array(
            [ones**2 * success, zeros**2 * failure, c**2 * (success + failure), ones * c * success, zeros * c * failure]
        )
        moments[:, :, n] = (terms * total) @ (p ** k[:, None] * (1 - p) ** (n - k)[:, None])
    return LookTable(w, low, high, chance, moments)


def _runs(rows: FloatArray, low: IntArray, high: IntArray) -> FloatArray:
    """[I, ...] sums of the rows low..high."""
    sums = np.concatenate([np.zeros((1, *rows.shape[1:])), np.cumsum(rows, axis=0)])
    return sums[high + 1] - sums[low]
