"""Exact expectations of estimators that sample in two waves, by enumeration of all outcomes."""

from __future__ import annotations

from collections.abc import Callable
from math import comb

import numpy as np

Rule = Callable[[int], int]
"""From the successes of the first wave to the rollouts of the second."""

RULES: dict[str, Callable[[int, int], Rule]] = {
    "only if mixed": lambda w, most: lambda k: most if 0 < k < w else 0,
    "more if mixed": lambda w, most: lambda k: most if 0 < k < w else min(2, most),
    "forced": lambda w, most: lambda k: min(2, most),
    "monotone": lambda w, most: lambda k: most * k // w,
    "belief": lambda w, most: lambda k: round(most * _expected_variance(k, w) / 0.25),
}


def _expected_variance(k: int, w: int) -> float:
    """E[p(1-p)] after k of w with a Beta(1/4, 2/5) prior."""
    a, b = k + 0.25, w - k + 0.4
    return a * b / ((a + b) * (a + b + 1))


def expected_scale(w: int, rule: Rule, coefficients: Callable[[int, int, int], tuple[float, float]], p: float) -> float:
    """The expected gradient relative to the true one.

    With E[Z | success] = g/p and E[Z | failure] = -g/(1-p) it is E[u]/p - E[t]/(1-p), where u and t are the sums of the
    coefficients of the scores of successes and of failures, which `coefficients` gives for k1, k2 and m.
    """
    total = 0.0
    for k1 in range(w + 1):
        m = rule(k1)
        for k2 in range(m + 1):
            k, n = k1 + k2, w + m
            chance = comb(w, k1) * comb(m, k2) * p**k * (1 - p) ** (n - k)
            u, t = coefficients(k1, k2, m)
            total += chance * (u / p - t / (1 - p))
    return total


def sums(advantages: np.ndarray, rewards: np.ndarray) -> tuple[float, float]:
    """Of the coefficients A_i / n: over successes, over failures."""
    n = len(rewards)
    return float(advantages[rewards > 0].sum() / n), float(advantages[rewards <= 0].sum() / n)
