"""The published rule: weights p(1-p), relaxation by bisection, floor, then the largest drops (Algorithm 2)."""

from __future__ import annotations

import numpy as np

from viprl.allocation import Budget, IntArray, relaxed_counts, round_like_paper
from viprl.predictors.protocol import Prediction


def published(prediction: Prediction, spec: Budget, rng: np.random.Generator) -> IntArray:
    """Deterministic: the paper names no tie-break, so equal drops go to the first prompt of the batch."""
    p = prediction.success_probability
    weights = p * (1 - p)
    return round_like_paper(relaxed_counts(weights, spec), weights, spec)
