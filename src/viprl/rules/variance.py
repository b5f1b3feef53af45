"""The default rule: exact integer minimum of the predicted variance, weights E[p(1-p)] or what is learned of them."""

from __future__ import annotations

import numpy as np

from viprl.allocation import Budget, IntArray, exact_counts
from viprl.predictors.protocol import Prediction


def minimum_variance(prediction: Prediction, spec: Budget, rng: np.random.Generator) -> IntArray:
    """minimise sum_q a_q f(n_q) over integers; ties by `rng`."""
    return exact_counts(prediction.weight, spec, rng)
