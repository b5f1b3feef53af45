"""The exact variance of the pooled estimators of two waves, at every success probability of a grid.

    symbol  meaning                                                                       shape
    p       grid of success probabilities                                                 [G]
    w       rollouts of the first wave
    S       label, a run of successes low..high of the first wave                         [I]
    n       rollouts of both waves                                                        w..U
    u, t    coefficients: the gradient estimate is u (mean score of successes) - t (mean score of failures)
    rho     signal: squared difference of the mean scores of successes and failures, over the variance of a score

A score is its mean given the reward, plus noise of variance 1 that does not depend on the reward. Then E Z = 0 and
g = p(1-p) times the difference of the two means, whose square is rho, and the variance is the sum over labels of

    V(S, n; p) = sum_K P(K, S | p) [u^2 / K + t^2 / (n - K) + rho ((1-p) u + p t)^2]

less rho (p(1-p))^2, with

    u = theta (1 - mu) h1 + (1 - theta) c,      t = theta mu h0 + (1 - theta) c,

h1 and h0 the shares of the first wave that are successes and failures, expected given K and S, and c = c(K, n)
(`viprl.allocation.waves.estimator`). rho = 0 is the law of `viprl.allocation.variance_models`, which takes scores as
independent of the reward. Two waves need rho: a group that stops contributes nothing and the others more, which is a
noise of the *gradient itself* that no second wave lowers. It decides how large a first wave must be.

All of it is linear in a belief over p, so the tables are computed once for all prompts.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from viprl.utils.arrays import FloatArray, IntArray

MOMENTS = 6
"""Terms of V, in the order of `factors`."""


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
    """[6, I, U + 1, G] the terms of V without the factors in theta and mu; 0 for n < w."""

    def label(self, low: int, high: int) -> int:
        """The position of a label in the tables."""
        return int(np.flatnonzero((self.low == low) & (self.high == high))[0])


def factors(share: FloatArray, mean: FloatArray) -> FloatArray:
    """[6, ...] by which `LookTable.moments` count, for theta and mu of any shape."""
    success, failure, rest = share * (1 - mean), share * mean, 1 - share
    return np.array([success**2, failure**2, rest**2, 2 * success * rest, 2 * failure * rest, 2 * success * failure])


def look_table(size: int, most: int, p: FloatArray, signal: float = 0.0) -> LookTable:
    """The tables for first waves of `size`, groups of at most `most` = U rollouts, and rho = `signal`."""
    return _look_table(size, most, tuple(map(float, p)), signal)


@functools.lru_cache(maxsize=24)
def _look_table(w: int, most: int, probabilities: tuple[float, ...], rho: float) -> LookTable:
    from scipy.special import comb

    p = np.array(probabilities)
    low, high = (rows.astype(np.int64) for rows in np.triu_indices(w + 1))
    k1 = np.arange(w + 1)
    chance = _runs(comb(w, k1)[:, None] * p ** k1[:, None] * (1 - p) ** (w - k1)[:, None], low, high)
    moments = np.zeros((MOMENTS, len(low), most + 1, len(p)))
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
        outcome = p ** k[:, None] * (1 - p) ** (n - k)[:, None]  # [n+1, G]
        noise = [ones**2 * success, zeros**2 * failure, c**2 * (success + failure)]
        noise += [ones * c * success, zeros * c * failure, np.zeros_like(c)]
        gradient = (ones**2, zeros**2, c**2, ones * c, zeros * c, ones * zeros)
        weights = ((1 - p) ** 2, p**2, np.ones_like(p), 1 - p, p, p * (1 - p))
        for term in range(MOMENTS):
            moments[term, :, n] = (noise[term] * total) @ outcome
            moments[term, :, n] += rho * weights[term] * ((gradient[term] * total) @ outcome)
    return LookTable(w, low, high, chance, moments)


def _runs(rows: FloatArray, low: IntArray, high: IntArray) -> FloatArray:
    """[I, ...] sums of the rows low..high."""
    sums = np.concatenate([np.zeros((1, *rows.shape[1:])), np.cumsum(rows, axis=0)])
    return sums[high + 1] - sums[low]
