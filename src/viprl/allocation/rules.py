"""Rules: a prediction and a budget to counts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from viprl.allocation.budget import Budget
from viprl.allocation.exact import exact_counts
from viprl.allocation.published import continuous_counts, rounded_counts
from viprl.errors import InputError
from viprl.predictors.base import Prediction
from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.sequences import short


class Rule(ABC):
    """A prediction and a budget to counts. Rules keep no state; their only randomness is the generator."""

    any_model: ClassVar[bool] = False
    """Whether the rule works with variance models that differ between prompts."""

    @abstractmethod
    def __call__(self, prediction: Prediction, budget: Budget, rng: np.random.Generator) -> IntArray:
        """[Q] whole counts within the bounds that sum to `budget.total`; ties are broken by `rng`."""

    def variance_weights(self, prediction: Prediction) -> FloatArray | None:
        """[Q] the weights a of a rule that minimises sum_q a_q f(n_q); None for every other rule."""
        return None


class MinimumVariance(Rule):
    """Exact integer minimum of the predicted variance; the weights a are learned where the strategy learns them,
    otherwise E[p(1-p)]."""

    any_model = True

    def __call__(self, prediction: Prediction, budget: Budget, rng: np.random.Generator) -> IntArray:
        return exact_counts(prediction.weight, budget, rng)

    def variance_weights(self, prediction: Prediction) -> FloatArray:
        return prediction.weight


class Published(Rule):
    """Algorithm 2 of arXiv 2602.01601: weights p(1-p), relaxation by bisection, floor, then the largest decreases.

    Deterministic: the paper names no tie-break, so equal decreases go to the first prompt of the batch.
    """

    def __call__(self, prediction: Prediction, budget: Budget, rng: np.random.Generator) -> IntArray:
        weights = self.variance_weights(prediction)
        return rounded_counts(continuous_counts(weights, budget), weights, budget)

    def variance_weights(self, prediction: Prediction) -> FloatArray:
        p = prediction.success_probability
        return p * (1 - p)


class Uniform(Rule):
    """C/Q rollouts for every prompt, as even as the bounds allow; the generator decides who gets one more."""

    def __call__(self, prediction: Prediction, budget: Budget, rng: np.random.Generator) -> IntArray:
        return exact_counts(np.ones(len(prediction.success_probability)), budget, rng)


def check_counts(rule: Rule, counts: Any, budget: Budget, strategy: str) -> None:
    """Raise InputError unless the counts of a rule spend the budget within its bounds."""
    least, most = budget.min_rollouts, budget.max_rollouts
    whole = isinstance(counts, np.ndarray) and counts.shape == least.shape and counts.dtype.kind in "iu"
    if not whole or counts.sum() != budget.total or (counts < least).any() or (counts > most).any():
        raise InputError(
            f"{type(rule).__name__} of strategy {strategy!r} returned the counts {short(counts)}; expected an array of "
            f"{len(least)} whole numbers within the bounds whose sum is {budget.total}; correct the rule, or resume "
            "the run with another strategy"
        )
