"""GVM: more rollouts for prompts whose successes are rare, but not for those without any (arXiv 2505.02391)."""

from __future__ import annotations

import numpy as np

from viprl.allocation.budget import Budget
from viprl.allocation.rules import Rule
from viprl.baselines.proportional import proportional_counts
from viprl.predictors.base import Prediction
from viprl.utils.arrays import IntArray

ALPHA, BETA = 1e-3, 2.0


class InverseRootSuccess(Rule):
    """n proportional to G / sqrt(p + alpha / p^(beta-1)), alpha = 1e-3, beta = 2: largest at p = sqrt(alpha) = .03.

    Chosen here: G = 1, since gradient norms are not known before sampling; p is predicted (the paper samples a pilot),
    at least 1e-12.
    """

    def __call__(self, prediction: Prediction, budget: Budget, rng: np.random.Generator) -> IntArray:
        p = np.maximum(prediction.success_probability, 1e-12)
        return proportional_counts(1 / np.sqrt(p + ALPHA / p ** (BETA - 1)), budget, rng)
