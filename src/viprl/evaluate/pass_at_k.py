"""Estimators from n completions of a problem, c of them right, for k <= n; intervals over problems.

Pass@k   probability that at least one of k completions is right: 1 - C(n-c, k) / C(n, k) (Chen et al., 2021)
Mean@k   mean correctness of k completions; its expectation is c/n for every k
Maj@k    probability that the majority vote of k completions is right

The k completions are a uniformly drawn subset of the n. All three estimators are unbiased for k new completions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from viprl.analysis.statistics import Estimate
from viprl.errors import InputError
from viprl.utils.arrays import FloatArray

EXACT_WORK = 3e7
"""Most array elements that the exact count of a majority vote may use, about a second. Beyond it, subsets are drawn."""
EXACT_COMPLETIONS = 1000
"""Most completions of an exact count. Beyond it, the numbers of subsets exceed the range of floating-point numbers."""
DRAWS = 10_000
"""Subsets that are drawn."""
RESAMPLES = 10_000
"""Resamples of the bootstrap."""


def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that at least one of k of n completions is right, if c of the n are right.

    Computed in whole numbers, with one division. Raises InputError unless 0 <= c <= n and 1 <= k <= n.
    """
    _check(n, c, k)
    subsets = math.comb(n, k)
    return (subsets - math.comb(n - c, k)) / subsets


def maj_at_k(
    right: int, wrong: Sequence[int], unreadable: int, k: int, rng: np.random.Generator | None = None
) -> float:
    """Expected result of the majority vote of k of n completions.

    The result of a vote is 1 if the right answer wins, 1/t if it ties with t - 1 others, and 0 otherwise.

    Args:
        right: number of completions with the right answer.
        wrong: number of completions in each class of equivalent wrong answers.
        unreadable: number of completions without an answer. They are drawn but do not vote; without any vote the
            result is 0.
        k: completions that are drawn.
        rng: draws subsets if an exact count would take too long. None: always an exact count.

    Raises InputError unless 1 <= k <= n.
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
    """Exact count, for each number m of votes for the right answer: the ways in which no other class gets more than m.

    `ways[t, v]` is the number of ways in which t other classes have m votes, and v votes are assigned so far.
    """
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
        raise InputError(f"c is {c}; expected 0 <= c <= n = {n}")
    if not 1 <= k <= n:
        raise InputError(f"k is {k}; expected 1 <= k <= n = {n}")


def over_problems(values: FloatArray, rng: np.random.Generator) -> list[Estimate]:
    """The mean of each column of `values` [P, M], with its 95 % percentile bootstrap interval over the P problems.

    The interval is about the choice of problems, not of completions. All columns use the same resamples, so their
    intervals can be compared. With one problem the interval is a point.
    """
    problems = len(values)
    even = np.full(problems, 1 / problems)
    means = np.concatenate(
        [rng.multinomial(problems, even, size=RESAMPLES // 10) @ values / problems for _ in range(10)]
    )
    ends = np.quantile(means, [0.025, 0.975], axis=0).T.tolist()
    sds = values.std(axis=0, ddof=1).tolist() if problems > 1 else [None] * values.shape[1]
    columns = zip(values.mean(axis=0).tolist(), sds, ends, strict=True)
    return [Estimate(mean, problems, sd, low, high) for mean, sd, (low, high) in columns]
