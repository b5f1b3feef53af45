"""GVM: more rollouts where a success is rare, but not where there is none (arXiv 2505.02391)."""

from __future__ import annotations

import numpy as np

from viprl.allocation import Budget, IntArray
from viprl.predictors.protocol import Prediction
from viprl.rules.proportional import proportional

ALPHA, BETA = 1e-3, 2.0


def gradient_norm(prediction: Prediction, spec: Budget, rng: np.random.Generator) -> IntArray:
    """n proportional to G / sqrt(p + alpha / p^(beta-1)), alpha = 1e-3, beta = 2: largest at p = sqrt(alpha) = .03.

    Chosen here: G = 1, since gradient norms are not known before sampling; p is predicted (the paper samples a pilot),
    at least 1e-12; clipped to [L, U], largest remainders, ties by `rng`.
    """
    p = np.maximum(prediction.success_probability, 1e-12)
    return proportional(1 / np.sqrt(p + ALPHA / p ** (BETA - 1)), spec, rng)
