"""Knapsack RL: the budget as a knapsack of prompts, each worth the chance of a mixed group (arXiv 2509.25849)."""

from __future__ import annotations

import heapq

import numpy as np

from viprl.allocation import Budget, IntArray
from viprl.predictors.protocol import Prediction
from viprl.variance import FloatArray


def knapsack(prediction: Prediction, spec: Budget, rng: np.random.Generator) -> IntArray:
    """maximise sum_q [1 - p^n - (1-p)^n] p (1-p)^2 over whole n within the bounds; exact.

    One more rollout adds [p^n (1-p) + (1-p)^n p] p (1-p)^2, which falls with n, so taking the largest gain C - sum(L)
    times is the optimum (the paper solves it by dynamic programming). O(C log Q).

    Chosen here: L at least 2 (the paper allows none at all), p as predicted, without doubt; equal gains go to the
    prompt with fewer rollouts, then by `rng`, so that prompts without any gain share what is left.
    """
    p, counts = prediction.success_probability, spec.low.copy()
    chance = rng.permutation(len(p))
    queue = [(-gain, n, chance[q], q) for q, (gain, n) in enumerate(zip(added(p, counts), counts, strict=True))]
    queue = [entry for entry in queue if entry[1] < spec.high[entry[3]]]
    heapq.heapify(queue)
    for _ in range(spec.total - int(counts.sum())):
        *_, q = heapq.heappop(queue)
        counts[q] += 1
        if counts[q] < spec.high[q]:
            heapq.heappush(queue, (-added(p[q], counts[q]), counts[q], chance[q], q))
    return counts


def value(p: FloatArray, n: IntArray) -> FloatArray:
    """[1 - p^n - (1-p)^n] p (1-p)^2, elementwise: the chance of a mixed group times what it teaches."""
    return (1 - p**n - (1 - p) ** n) * p * (1 - p) ** 2


def added(p: FloatArray, n: IntArray) -> FloatArray:
    """value(p, n + 1) - value(p, n), without cancellation."""
    return (p**n * (1 - p) + (1 - p) ** n * p) * p * (1 - p) ** 2
