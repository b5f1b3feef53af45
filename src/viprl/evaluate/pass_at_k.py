"""Estimators over n completions of a problem, c of them right, for any k <= n; intervals over problems.

Pass@k   probability that at least one of k completions is right: 1 - C(n-c, k) / C(n, k) (Chen et al., 2021)
Mean@k   mean correctness of k completions; its expectation is c/n whatever k is
Maj@k    probability that the majority vote of k completions is right

"Of k completions" means of a subset of size k, drawn evenly from the n: all three are unbiased for k fresh completions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from viprl.utils.arrays import FloatArray

EXACT_WORK = 3e7
"""Array elements that the exact count of a majority vote may touch, about a second; above it, subsets are drawn."""
EXACT_COMPLETIONS = 1000
"""Above, the numbers of subsets leave the range of floating-point numbers."""
DRAWS = 10_000
RESAMPLES = 10_000


def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that one of k of n completions is right, c of n being so. In whole numbers until the one division.

    Raises ValueError unless 0 <= c <= n and 1 <= k <= n.
    """
    _check(n, c, k)
    subsets = math.comb(n, k)
    return (subsets - math.comb(n - c, k)) / subsets


def mean_at_k(n: int, c: int, k: int) -> float:
    """Expected mean correctness of k of n completions: c/n for every k, by linearity."""
    _check(n, c, k)
    return c / n


def maj_at_k(
    right: int, wrong: Sequence[int], unreadable: int, k: int, rng: np.random.Generator | None = None
) -> float:
    """Expected share of the right answer in the majority vote of k of n completions.

    Args:
        right: completions with the right answer, all of one class.
        wrong: completions of each class of equivalent wrong answers.
        unreadable: completions without an answer. They take part in the draw but have no vote; without any vote the
            majority is wrong.
        k: completions that vote.
        rng: draws subsets where an exact count would take too long; without one, the count is always exact.

    A tie of t classes gives each of them 1/t. Raises ValueError unless 1 <= k <= n.
    """
    n = right + sum(wrong) + unreadable
    _check(n, right, k)
    if right == 0:
        return 0.0
    work = k * k * sum(min(k, size) for size in wrong) * (1 + math.log(k))
    if rng is not None and (work > EXACT_WORK or n > EXACT_COMPLETIONS):
        return _drawn(right, wrong, unreadable, k, rng)
    return _counted(right, wrong, unreadable, k)


def _counted(right: int, wrong: Sequence[int], unreadable: int, k: int) -> float:
    """By the number m of votes for the right answer: count the ways in which the others get at most m each, and how
    many of them get exactly m. `ways[t, v]` has t classes at m votes and v votes spent."""
    total = 0.0
    for m in range(1, min(right, k) + 1):
        rest = k - m
        ways = np.zeros((rest // m + 1, rest + 1))
        ways[0] = [math.comb(unreadable, v) for v in range(rest + 1)]
        for size in wrong:
            fewer = np.zeros_like(ways)
            for votes in range(min(m, size + 1, rest + 1)):
                fewer[:, votes:] += math.comb(size, votes) * ways[:, : rest + 1 - votes]
            if size >= m <= rest:
                fewer[1:, m:] += math.comb(size, m) * ways[:-1, : rest + 1 - m]
            ways = fewer
        total += math.comb(right, m) * float((ways[:, rest] / np.arange(1, len(ways) + 1)).sum())
    return min(1.0, total / math.comb(right + sum(wrong) + unreadable, k))


def _drawn(right: int, wrong: Sequence[int], unreadable: int, k: int, rng: np.random.Generator) -> float:
    """Mean over `DRAWS` subsets; standard error at most .005."""
    votes = rng.multivariate_hypergeometric([right, *wrong, unreadable], k, size=DRAWS, method="marginals")[:, :-1]
    most = votes.max(axis=1)
    won = (votes[:, 0] == most) & (most > 0)
    return float((won / (votes == most[:, None]).sum(axis=1)).mean())


def _check(n: int, c: int, k: int) -> None:
    if not 0 <= c <= n:
        raise ValueError(f"{c} of {n} completions are right; expected 0 <= right <= n")
    if not 1 <= k <= n:
        raise ValueError(f"k is {k} with {n} completions a problem; expected 1 <= k <= {n}")


@dataclass(frozen=True)
class Estimate:
    """A mean over problems with its interval."""

    value: float
    low: float
    high: float


def over_problems(values: FloatArray, seed: int, level: float = 0.95) -> list[Estimate]:
    """The mean of each column of [P, M] values, and a percentile bootstrap interval over the P problems.

    All columns see the same resamples, so their intervals may be compared. The interval is about which problems were
    asked, not about which completions were drawn; with a single problem it is a point.
    """
    rng = np.random.default_rng(seed)
    problems = len(values)
    even = np.full(problems, 1 / problems)
    means = np.concatenate(
        [rng.multinomial(problems, even, size=RESAMPLES // 10) @ values / problems for _ in range(10)]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return [Estimate(*map(float, row)) for row in zip(values.mean(axis=0), low, high, strict=True)]
