"""Counts in proportion to a weight, clipped to the bounds: the paper's ablations, and a random control."""

from __future__ import annotations

import numpy as np

from viprl.allocation import Budget, IntArray
from viprl.predictors.protocol import Prediction
from viprl.variance import FloatArray


def inverse_accuracy(prediction: Prediction, spec: Budget, rng: np.random.Generator) -> IntArray:
    """n proportional to 1/p (ablation of arXiv 2602.01601)."""
    return proportional(1 / np.maximum(prediction.success_probability, 1e-6), spec, rng)


def inverse_variance(prediction: Prediction, spec: Budget, rng: np.random.Generator) -> IntArray:
    """n proportional to 1/(p(1-p)) (ablation of arXiv 2602.01601)."""
    p = prediction.success_probability
    return proportional(1 / np.maximum(p * (1 - p), 1e-6), spec, rng)


def proportional_to_variance(prediction: Prediction, spec: Budget, rng: np.random.Generator) -> IntArray:
    """n proportional to E[p(1-p)], at least 1e-12: capped proportional filling (DynaMO, arXiv 2602.19208)."""
    return proportional(np.maximum(prediction.reward_variance, 1e-12), spec, rng)


def random(prediction: Prediction, spec: Budget, rng: np.random.Generator) -> IntArray:
    """n proportional to independent exponential draws: all splits of the budget equally likely, but for the bounds."""
    return proportional(rng.exponential(size=len(prediction.success_probability)), spec, rng)


def proportional(weights: FloatArray, spec: Budget, rng: np.random.Generator) -> IntArray:
    """clip(c w, L, U) with c such that the sum is C, then the largest remainders, ties by `rng`."""
    w = np.maximum(np.asarray(weights, dtype=float) / np.max(weights), 1e-12)
    low, high = 0.0, float(spec.high.max()) / float(w.min())
    for _ in range(200):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        if np.clip(middle * w, spec.low, spec.high).sum() >= spec.total:
            high = middle
        else:
            low = middle
    share = np.clip(low * w, spec.low, spec.high)  # sums to C or a hair less
    counts = np.floor(share).astype(np.int64)
    while (rest := spec.total - int(counts.sum())) > 0:
        open_ = rng.permutation(np.flatnonzero(counts < spec.high))
        largest = open_[np.argsort(-(share - counts)[open_], kind="stable")]
        counts[largest[:rest]] += 1
    return counts
