"""The estimators' variance laws: how the gradient variance of one prompt falls with its number of rollouts.

With independent reward and projected score (arXiv 2602.01601, Propositions 4.2 and 4.3) the gradient estimate
of a prompt, the mean over its own n rollouts, has variance a f(n), a proportional to p(1-p):

    RLOO     f(n) = 1/(n-1)      drop d(n) = f(n) - f(n+1) = 1/(n(n-1))
    Dr.GRPO  f(n) = (n-1)/n^2    drop d(n) = (n^2-n-1)/(n^2 (n+1)^2)

Both are decreasing, and convex from the smallest legal group on: n = 2 for RLOO, n = 3 for Dr.GRPO (whose drop
2 -> 3 is smaller than its drop 3 -> 4). Convexity is what makes the allocation exact, so it is enforced.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


class Estimator(ABC):
    """A variance law f, elementwise on arrays of group sizes n >= `smallest_group`."""

    name: str
    smallest_group: int

    @abstractmethod
    def factor(self, n: ArrayLike) -> FloatArray:
        """f(n), the variance of a group of n rollouts in units of a."""

    @abstractmethod
    def drop(self, n: ArrayLike) -> FloatArray:
        """d(n) = f(n) - f(n+1), what one more rollout saves; strictly decreasing."""

    @abstractmethod
    def relaxed(self, ratio: ArrayLike) -> FloatArray:
        """The real n where -f'(n) = 1/ratio, ratio = a/multiplier > 0 (Theorems 5.1 and 5.2), before clipping."""

    @abstractmethod
    def _rough_size(self, ratio: FloatArray) -> FloatArray:
        """`size` in closed form, right to within one rollout."""

    def size(self, ratio: ArrayLike) -> FloatArray:
        """Inverse of the drops: the smallest n with d(n) <= 1/ratio, ratio = a/threshold >= 0.

        A group of that size has taken every rollout that saves more than the threshold and no other.
        The closed form can miss by one through rounding; comparing the drops themselves settles it.
        """
        ratio = np.asarray(ratio, dtype=float)
        n = np.maximum(np.floor(self._rough_size(ratio)), self.smallest_group)
        fewer = np.maximum(n - 1, self.smallest_group)
        n = np.where(ratio * self.drop(fewer) <= 1, fewer, n)
        return np.where(ratio * self.drop(n) > 1, n + 1, n)

    def interpolated(self, n: ArrayLike) -> FloatArray:
        """f at real n, linear between integers: the mean variance when chance decides who gets the fraction."""
        n = np.asarray(n, dtype=float)
        whole = np.floor(n)
        return self.factor(whole) - (n - whole) * self.drop(whole)


class RLOO(Estimator):
    """Leave-one-out baseline: unbiased, f(n) = 1/(n-1), legal from two rollouts on (Proposition 4.3)."""

    name = "rloo"
    smallest_group = 2

    def factor(self, n: ArrayLike) -> FloatArray:
        return 1 / (np.asarray(n, dtype=float) - 1)

    def drop(self, n: ArrayLike) -> FloatArray:
        n = np.asarray(n, dtype=float)
        return 1 / (n * (n - 1))

    def relaxed(self, ratio: ArrayLike) -> FloatArray:
        return 1 + np.sqrt(np.asarray(ratio, dtype=float))  # (n-1)^2 = ratio

    def _rough_size(self, ratio: FloatArray) -> FloatArray:
        return np.ceil((1 + np.sqrt(1 + 4 * ratio)) / 2)  # n(n-1) >= ratio


class DrGRPO(Estimator):
    """Group mean as the baseline: f(n) = (n-1)/n^2, legal from three rollouts on (Proposition 4.2).

    Its expectation is (n-1)/n times the gradient, so ragged counts also tilt the weights between prompts.
    """

    name = "dr_grpo"
    smallest_group = 3

    def factor(self, n: ArrayLike) -> FloatArray:
        n = np.asarray(n, dtype=float)
        return (n - 1) / n**2

    def drop(self, n: ArrayLike) -> FloatArray:
        n = np.asarray(n, dtype=float)
        return (n * n - n - 1) / (n * (n + 1)) ** 2

    def relaxed(self, ratio: ArrayLike) -> FloatArray:
        # n^3 = ratio (n-2): the largest root, which exists with n >= 3 from ratio = 27 on.
        s = np.maximum(np.asarray(ratio, dtype=float), 27.0)
        return 2 * np.sqrt(s / 3) * np.cos(np.arccos(-np.sqrt(27 / s)) / 3)

    def _rough_size(self, ratio: FloatArray) -> FloatArray:
        return np.ceil(self.relaxed(ratio) - 0.5)  # d(n) is close to -f'(n + 1/2)


class GRPO(DrGRPO):
    """Advantages divided by the group's standard deviation: no published law holds; Dr.GRPO's stands in."""

    name = "grpo"


ESTIMATORS: dict[str, Estimator] = {e.name: e for e in (RLOO(), DrGRPO(), GRPO())}


def get_estimator(name: str | Estimator) -> Estimator:
    """The law called `name`: "rloo" (recommended), "dr_grpo", or "grpo" (with a warning). ValueError otherwise."""
    if isinstance(name, Estimator):
        return name
    if not isinstance(name, str) or name not in ESTIMATORS:
        raise ValueError(f"estimator is {name!r}; expected one of {', '.join(map(repr, ESTIMATORS))}")
    if name == "grpo":
        warnings.warn(
            "estimator 'grpo' divides by the standard deviation of the group, so the squared advantages of every "
            "mixed group sum to the same number and no variance law p(1-p) f(n) holds; the law of 'dr_grpo' is used "
            "as a stand-in. Prefer 'rloo', or 'dr_grpo' without the division.",
            stacklevel=3,
        )
    return ESTIMATORS[name]
