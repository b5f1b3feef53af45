"""The default rule: exact integer minimum of the predicted variance, weights E[p(1-p)]."""

from __future__ import annotations

import numpy as np

from viprl.allocation import Budget, IntArray, exact_counts
from viprl.predictors.protocol import Prediction


def minimum_variance(prediction: Prediction, spec: Budget, rng: np.random.Generator) -> IntArray:
    """minimise sum_q E[p_q(1-p_q)] f(n_q) over integers; ties by `rng`."""
    return exact_counts(prediction.reward_variance, spec, rng)
