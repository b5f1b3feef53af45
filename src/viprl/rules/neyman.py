"""Neyman's allocation: each stratum in proportion to its standard deviation (J. R. Stat. Soc. 97, 1934, 558-625)."""

from __future__ import annotations

import numpy as np

from viprl.allocation import Budget, IntArray
from viprl.predictors.protocol import Prediction
from viprl.rules.proportional import proportional


def neyman(prediction: Prediction, spec: Budget, rng: np.random.Generator) -> IntArray:
    """n proportional to sqrt(p(1-p)), the minimum of sum_q p_q(1-p_q)/n_q.

    Chosen here: E[p(1-p)] where the predictor knows doubt (the objective is linear in it), at least 1e-12; clipped to
    [L, U], largest remainders, ties by `rng`.
    """
    return proportional(np.sqrt(np.maximum(prediction.reward_variance, 1e-12)), spec, rng)
