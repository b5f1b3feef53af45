"""The published allocation: the continuous optimum, rounded down, then one rollout at a time (arXiv 2602.01601,
Theorems 5.1 and 5.2, Algorithm 2). The rounding is near the integer optimum but not always on it."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

import numpy as np

from viprl.allocation.budget import Budget, counts_between, even_counts
from viprl.allocation.exact import scaled
from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.numerics import bisect


def continuous_counts(weights: FloatArray, budget: Budget) -> FloatArray:
    """[Q] real counts that minimise sum_q a_q f(n_q), by bisection on the multiplier; even if all a = 0.

    A prompt of weight 0 stays at L until every other prompt has U.
    """
    weights = np.asarray(weights, dtype=float)
    if not (weights > 0).any():
        return even_counts(budget)
    a = scaled(weights)

    def counts(multiplier: float) -> FloatArray:
        return np.clip(budget.model.continuous_count(a / multiplier), budget.min_rollouts, budget.max_rollouts)

    everyone_at_most = float(a.min()) / (4.0 * float(budget.max_rollouts.max()) ** 2)  # at 1 every prompt has L
    low, high = bisect(lambda m: counts(m).sum() >= budget.total, everyone_at_most, 1.0, geometric=True)
    return counts_between(counts(high), counts(low), budget.total)


def rounded_counts(continuous: FloatArray, weights: FloatArray, budget: Budget) -> IntArray:
    """[Q] Algorithm 2: the floor of the continuous optimum, then each rollout to the largest decrease a_q d(n_q).

    Equal decreases go to the first prompt of the batch.
    """
    floor = np.clip(np.floor(continuous + 1e-9), budget.min_rollouts, budget.max_rollouts).astype(np.int64)
    return spend_greedily(floor, lambda q, n: (-weights[q] * float(budget.model.marginal(n)),), budget)


def spend_greedily(counts: IntArray, cost: Callable[[int, int], tuple[Any, ...]], budget: Budget) -> IntArray:
    """[Q] `counts` and one rollout at a time to the prompt with the smallest cost, until the budget is spent.

    `cost(q, n)` orders the next rollout of prompt q, which has n; the first prompt of the batch wins a tie.
    """
    counts = counts.copy()
    queue = [(*cost(q, counts[q]), q) for q in range(len(counts)) if counts[q] < budget.max_rollouts[q]]
    heapq.heapify(queue)
    for _ in range(budget.total - int(counts.sum())):
        q = int(heapq.heappop(queue)[-1])
        counts[q] += 1
        if counts[q] < budget.max_rollouts[q]:
            heapq.heappush(queue, (*cost(q, counts[q]), q))
    return counts
