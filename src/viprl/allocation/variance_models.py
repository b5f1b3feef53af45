"""Variance models: how the gradient variance of a prompt falls with its number of rollouts.

Notation
    n       rollouts of a prompt
    a       variance weight of a prompt, proportional to p(1-p)
    f(n)    variance factor; the gradient estimate of a prompt has variance a f(n)
    d(n)    f(n) - f(n+1), the marginal decrease

The gradient estimate of a prompt is the mean over its own n rollouts. With independent reward and projected score
(arXiv 2602.01601, Propositions 4.2 and 4.3):

    RLOO     f(n) = 1/(n-1)      d(n) = 1/(n(n-1))
    Dr.GRPO  f(n) = (n-1)/n^2    d(n) = (n^2-n-1)/(n^2 (n+1)^2)

Both are decreasing, and convex from `min_rollouts` on: n = 2 for RLOO, n = 3 for Dr.GRPO, whose decrease from 2 to 3
is smaller than its decrease from 3 to 4. The allocation is exact because f is convex, so smaller groups are refused.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import ArrayLike

from viprl.errors import InputError
from viprl.utils.arrays import FloatArray


class VarianceModel(ABC):
    """A variance factor f, elementwise on arrays of group sizes n >= `min_rollouts`."""

    name: str
    min_rollouts: int
    """Smallest legal group."""

    @abstractmethod
    def factor(self, n: ArrayLike) -> FloatArray:
        """f(n), the variance of a group of n rollouts in units of a."""

    @abstractmethod
    def marginal(self, n: ArrayLike) -> FloatArray:
        """d(n) = f(n) - f(n+1), the decrease that one more rollout brings; strictly decreasing in n."""

    @abstractmethod
    def continuous_count(self, ratio: ArrayLike) -> FloatArray:
        """The real n with -f'(n) = 1/ratio, before clipping to the bounds (Theorems 5.1 and 5.2).

        `ratio` is a/multiplier > 0.
        """

    @abstractmethod
    def _approximate_count(self, ratio: FloatArray) -> FloatArray:
        """`count_at_threshold` in closed form, correct to within one rollout."""

    def count_at_threshold(self, ratio: ArrayLike) -> FloatArray:
        """The smallest n with d(n) <= 1/ratio, where `ratio` is a/threshold >= 0.

        A group of that size has received every rollout whose decrease a d(n) exceeds the threshold, and no other.
        """
        ratio = np.asarray(ratio, dtype=float)
        n = np.maximum(np.floor(self._approximate_count(ratio)), self.min_rollouts)
        fewer = np.maximum(n - 1, self.min_rollouts)  # rounding can put the closed form off by one either way
        n = np.where(ratio * self.marginal(fewer) <= 1, fewer, n)
        return np.where(ratio * self.marginal(n) > 1, n + 1, n)

    def part(self, mask: np.ndarray) -> VarianceModel:
        """The model for the prompts where `mask` [Q], if it differs between prompts."""
        return self

    def interpolated_factor(self, n: ArrayLike) -> FloatArray:
        """f at real n, linear between integers: the mean variance when chance decides who gets the fraction."""
        n = np.asarray(n, dtype=float)
        whole = np.floor(n)
        return self.factor(whole) - (n - whole) * self.marginal(whole)


class RLOO(VarianceModel):
    """Leave-one-out baseline: unbiased, f(n) = 1/(n-1), legal from two rollouts on (Proposition 4.3)."""

    name = "rloo"
    min_rollouts = 2

    def factor(self, n: ArrayLike) -> FloatArray:
        return 1 / (np.asarray(n, dtype=float) - 1)

    def marginal(self, n: ArrayLike) -> FloatArray:
        n = np.asarray(n, dtype=float)
        return 1 / (n * (n - 1))

    def continuous_count(self, ratio: ArrayLike) -> FloatArray:
        return 1 + np.sqrt(np.asarray(ratio, dtype=float))  # (n-1)^2 = ratio

    def _approximate_count(self, ratio: FloatArray) -> FloatArray:
        return np.ceil((1 + np.sqrt(1 + 4 * ratio)) / 2)  # n(n-1) >= ratio


class ShrunkRLOO(RLOO):
    """Baselines that are shrunk towards the expected reward (`viprl.shrinkage`): f(n) = (1/n)(1 + 1/(kappa + n - 1)).

    Args:
        pseudocounts: kappa >= 0 [Q], how many rollouts the expectation is worth. 0 is RLOO.
    """

    def __init__(self, pseudocounts: FloatArray) -> None:
        self.pseudocounts = pseudocounts

    def factor(self, n: ArrayLike) -> FloatArray:
        n = np.asarray(n, dtype=float)
        return (1 + 1 / (self.pseudocounts + n - 1)) / n

    def marginal(self, n: ArrayLike) -> FloatArray:
        n = np.asarray(n, dtype=float)
        return self.factor(n) - self.factor(n + 1)

    def continuous_count(self, ratio: ArrayLike) -> FloatArray:
        raise NotImplementedError("the relaxation is that of the published allocation, which shrinks no baseline")

    def part(self, mask: np.ndarray) -> VarianceModel:
        return ShrunkRLOO(self.pseudocounts[mask])

    # the approximate count of RLOO is right to within one: d(n) lies between 1/(n(n+1)) and 1/(n(n-1))


class DrGRPO(VarianceModel):
    """Group mean as the baseline: f(n) = (n-1)/n^2, legal from three rollouts on (Proposition 4.2).

    The expectation of the estimate is (n-1)/n times the gradient, so groups of different sizes also get different
    weights.
    """

    name = "dr_grpo"
    min_rollouts = 3

    def factor(self, n: ArrayLike) -> FloatArray:
        n = np.asarray(n, dtype=float)
        return (n - 1) / n**2

    def marginal(self, n: ArrayLike) -> FloatArray:
        n = np.asarray(n, dtype=float)
        return (n * n - n - 1) / (n * (n + 1)) ** 2

    def continuous_count(self, ratio: ArrayLike) -> FloatArray:
        # n^3 = ratio (n-2): the largest root, which exists with n >= 3 from ratio = 27 on.
        s = np.maximum(np.asarray(ratio, dtype=float), 27.0)
        return 2 * np.sqrt(s / 3) * np.cos(np.arccos(-np.sqrt(27 / s)) / 3)

    def _approximate_count(self, ratio: FloatArray) -> FloatArray:
        return np.ceil(self.continuous_count(ratio) - 0.5)  # d(n) is close to -f'(n + 1/2)


class GRPO(DrGRPO):
    """Advantages divided by the standard deviation of the group. No published law holds; Dr.GRPO's is used instead."""

    name = "grpo"


VARIANCE_MODELS: dict[str, VarianceModel] = {model.name: model for model in (RLOO(), DrGRPO(), GRPO())}


def get_variance_model(estimator: str | VarianceModel) -> VarianceModel:
    """The variance model of an estimator: "rloo" (recommended), "dr_grpo", or "grpo" (with a warning).

    Raises InputError for other names.
    """
    if isinstance(estimator, VarianceModel):
        return estimator
    if not isinstance(estimator, str) or estimator not in VARIANCE_MODELS:
        raise InputError(f"estimator is {estimator!r}; expected one of {', '.join(map(repr, VARIANCE_MODELS))}")
    if estimator == "grpo":
        warnings.warn(
            "estimator 'grpo' divides advantages by the standard deviation of the group, for which the variance model "
            "p(1-p) f(n) does not hold; the model of 'dr_grpo' is used instead. Prefer 'rloo', or 'dr_grpo' without "
            "the division.",
            stacklevel=3,
        )
    return VARIANCE_MODELS[estimator]
