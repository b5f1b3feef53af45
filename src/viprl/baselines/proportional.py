"""Counts in proportion to a weight, clipped to the bounds: ablations of arXiv 2602.01601, and a random control."""

from __future__ import annotations

import numpy as np

from viprl.allocation.budget import Budget
from viprl.allocation.rules import Rule
from viprl.predictors.base import Prediction
from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.numerics import bisect


class InverseAccuracy(Rule):
    """n proportional to 1/p (ablation of arXiv 2602.01601)."""

    def __call__(self, prediction: Prediction, budget: Budget, rng: np.random.Generator) -> IntArray:
        return proportional_counts(1 / np.maximum(prediction.success_probability, 1e-6), budget, rng)


class InverseVariance(Rule):
    """n proportional to 1/(p(1-p)) (ablation of arXiv 2602.01601)."""

    def __call__(self, prediction: Prediction, budget: Budget, rng: np.random.Generator) -> IntArray:
        p = prediction.success_probability
        return proportional_counts(1 / np.maximum(p * (1 - p), 1e-6), budget, rng)


class ProportionalToVariance(Rule):
    """n proportional to E[p(1-p)], at least 1e-12: capped proportional filling (DynaMO, arXiv 2602.19208)."""

    def __call__(self, prediction: Prediction, budget: Budget, rng: np.random.Generator) -> IntArray:
        return proportional_counts(np.maximum(prediction.reward_variance, 1e-12), budget, rng)


class ProportionalToDeviation(Rule):
    """n proportional to sqrt(p(1-p)): Neyman's allocation, the minimum of sum_q p_q(1-p_q)/n_q.

    Neyman, J. R. Stat. Soc. 97, 1934, 558-625. Chosen here: E[p(1-p)] in place of p(1-p) if the predictor has
    uncertainty (the objective is linear in it), at least 1e-12.
    """

    def __call__(self, prediction: Prediction, budget: Budget, rng: np.random.Generator) -> IntArray:
        return proportional_counts(np.sqrt(np.maximum(prediction.reward_variance, 1e-12)), budget, rng)


class Random(Rule):
    """n proportional to independent exponential draws: all splits of the budget equally likely, but for the bounds."""

    def __call__(self, prediction: Prediction, budget: Budget, rng: np.random.Generator) -> IntArray:
        return proportional_counts(rng.exponential(size=len(prediction.success_probability)), budget, rng)


def proportional_counts(weights: FloatArray, budget: Budget, rng: np.random.Generator) -> IntArray:
    """[Q] clip(c w, L, U) with c such that the sum is C, then the largest remainders; ties by `rng`."""
    w = np.maximum(np.asarray(weights, dtype=float) / np.max(weights), 1e-12)

    def share(c: float) -> FloatArray:
        return np.clip(c * w, budget.min_rollouts, budget.max_rollouts)

    most = float(budget.max_rollouts.max()) / float(w.min())
    real = share(bisect(lambda c: share(c).sum() < budget.total, 0.0, most)[0])  # sums to C or a hair less
    counts = np.floor(real).astype(np.int64)
    while (rest := budget.total - int(counts.sum())) > 0:
        free = rng.permutation(np.flatnonzero(counts < budget.max_rollouts))
        largest = free[np.argsort(-(real - counts)[free], kind="stable")]
        counts[largest[:rest]] += 1
    return counts
