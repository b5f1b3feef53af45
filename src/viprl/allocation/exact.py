"""The exact integer minimum of sum_q a_q f(n_q) under a budget (arXiv 2602.01601, Section 5).

The problem is separable and convex, so its integer optimum makes the C - sum(L) largest decreases a_q d(n). Bisection
finds the threshold on the decreases, without a loop over rollouts.
"""

from __future__ import annotations

import numpy as np

from viprl.allocation.budget import Budget
from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.numerics import bisect


def exact_counts(weights: FloatArray, budget: Budget, rng: np.random.Generator) -> IntArray:
    """[Q] the counts of the minimum for weights a [Q] >= 0.

    Ties are broken by `rng`. Prompts of weight 0 share evenly what the others cannot take.
    """
    positive = weights > 0
    if not positive.any():
        return exact_counts(np.ones_like(weights), budget, rng)
    if not positive.all():
        most = int(budget.max_rollouts[positive].sum() + budget.min_rollouts[~positive].sum())
        counts = np.where(positive, budget.max_rollouts, budget.min_rollouts)
        part = positive if budget.total < most else ~positive
        rest = Budget(
            budget.total - int(counts[~part].sum()), budget.min_rollouts[part], budget.max_rollouts[part], budget.model
        )
        counts[part] = exact_counts(weights[part] if budget.total < most else np.ones(part.sum()), rest, rng)
        return counts
    a = scaled(weights)
    low, high = _threshold_range(a, budget)
    many, few = _counts_at(a, low, budget), _counts_at(a, high, budget)

    def is_below(threshold: float) -> bool:
        nonlocal many, few
        counts = _counts_at(a, threshold, budget)
        if counts.sum() >= budget.total:
            many = counts
            return True
        few = counts
        return False

    # until no prompt has two decreases between the thresholds
    bisect(is_below, low, high, geometric=True, done=lambda: not (many - few > 1).any())
    return _spend_rest(few, many, a * budget.model.marginal(few), budget, rng)


def scaled(weights: FloatArray) -> FloatArray:
    """Weights of maximum 1, none below 1e-100, which keeps the thresholds far from underflow."""
    return np.maximum(weights / weights.max(), 1e-100)


def _counts_at(a: FloatArray, threshold: float, budget: Budget) -> IntArray:
    """[Q] the counts that make every decrease above `threshold`."""
    counts = budget.model.count_at_threshold(np.minimum(a / threshold, 1e30))
    return np.clip(counts, budget.min_rollouts, budget.max_rollouts).astype(np.int64)


def _threshold_range(a: FloatArray, budget: Budget) -> tuple[float, float]:
    """A threshold below every decrease that the bounds allow, and one above all of them."""
    d = budget.model.marginal
    return float((a * d(budget.max_rollouts)).min()) / 2, float((a * d(budget.min_rollouts)).max()) * 2


def _spend_rest(
    few: IntArray, many: IntArray, decreases: FloatArray, budget: Budget, rng: np.random.Generator
) -> IntArray:
    """Between `few` (at most C rollouts) and `many` (at least C) every prompt has one decrease: make the largest."""
    rest = budget.total - int(few.sum())
    order = rng.permutation(np.flatnonzero(many > few))
    order = order[np.argsort(-decreases[order], kind="stable")]
    counts = few.copy()
    counts[order[:rest]] += 1
    return counts
