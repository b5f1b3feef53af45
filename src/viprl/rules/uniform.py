"""Every prompt the same: C/Q rollouts, the remainder spread by chance."""

from __future__ import annotations

import numpy as np

from viprl.allocation import Budget, IntArray, exact_counts
from viprl.predictors.protocol import Prediction


def uniform(prediction: Prediction, spec: Budget, rng: np.random.Generator) -> IntArray:
    """As even as the bounds allow; who gets one more is drawn by `rng`."""
    return exact_counts(np.ones(len(prediction.success_probability)), spec, rng)
