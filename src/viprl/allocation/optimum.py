"""The allocation of a batch: minimise sum_q a_q f(n_q) under a hard budget (arXiv 2602.01601, Section 5).

symbol   meaning                                               shape
Q, C     prompts in the batch, rollouts to spend (all of them)  scalars
a        variance weight of each prompt, p(1-p) for known p     [Q]
L, U     fewest and most rollouts of each prompt                [Q]
n        rollouts of each prompt, integers                      [Q]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from viprl.advantages import RewardPrior
from viprl.allocation.budget import Budget, even_counts
from viprl.allocation.exact import exact_counts
from viprl.allocation.variance_models import VarianceModel
from viprl.errors import InputError
from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.sequences import numbers


@dataclass(frozen=True)
class Allocation:
    """Rollout counts and the gradient variance predicted for them."""

    counts: IntArray
    """[Q] rollouts of each prompt; sums to the budget."""
    success_probability: FloatArray | None
    """[Q] success probability that each count is based on; None if only weights were given."""
    expected_variance: float
    """sum_q a_q f(n_q): the predicted variance of the batch gradient, times Q^2 and in units of the score variance."""
    uniform_variance: float
    """The same for the budget spread evenly (linear between integers if C/Q is not whole)."""
    prior: RewardPrior | None = None
    """What is expected of the rewards of each prompt, for `viprl.group_advantages`; None if nothing is."""

    def __repr__(self) -> str:
        n = self.counts
        some = f"counts={n.tolist()}" if len(n) <= 8 else f"{len(n)} prompts, counts={n.min()}..{n.max()}"
        return f"Allocation({some}, {n.sum()} rollouts, variance_ratio={self.variance_ratio:.3g})"

    @property
    def variance_ratio(self) -> float:
        """Predicted variance relative to uniform; 1 if both are zero."""
        return self.expected_variance / self.uniform_variance if self.uniform_variance > 0 else 1.0

    @classmethod
    def of(cls, counts: IntArray, weights: FloatArray, budget: Budget, p: FloatArray | None = None) -> Allocation:
        """`counts` with the variances that `weights` [Q] predict."""
        uniform = float(weights @ budget.model.interpolated_factor(even_counts(budget)))
        return cls(counts, p, float(weights @ budget.model.factor(counts)), uniform)


def allocate(
    success_probability: ArrayLike,
    *,
    budget: int,
    min_rollouts: ArrayLike | None = None,
    max_rollouts: ArrayLike | None = None,
    estimator: str | VarianceModel = "rloo",
    rng: np.random.Generator | None = None,
) -> Allocation:
    """The exact optimum for known success probabilities.

    Args:
        success_probability: [Q] numbers in [0, 1]; a prompt with exactly 0 or 1 has weight 0.
        budget: C, the rollouts to spend, every one of them.
        min_rollouts, max_rollouts: L and U, numbers or [Q]; infinity for no limit. Defaults: the smallest legal group,
            and no limit.
        estimator: "rloo" or "dr_grpo".
        rng: breaks ties. By default equal input gives equal output.

    Raises InputError (a ValueError) for probabilities outside [0, 1] or NaN, and for a budget that the bounds cannot
    meet.

    Example:
        >>> viprl.allocate([0.5, 0.1, 1.0], budget=24, min_rollouts=2, max_rollouts=16).counts
        array([13,  9,  2])
    """
    p = _row("success_probability", success_probability, lambda x: (x >= 0) & (x <= 1), "numbers in [0, 1]")
    plan = allocate_weights(
        p * (1 - p), budget=budget, min_rollouts=min_rollouts, max_rollouts=max_rollouts, estimator=estimator, rng=rng
    )
    return Allocation(plan.counts, p, plan.expected_variance, plan.uniform_variance)


def allocate_weights(
    weights: ArrayLike,
    *,
    budget: int,
    min_rollouts: ArrayLike | None = None,
    max_rollouts: ArrayLike | None = None,
    estimator: str | VarianceModel = "rloo",
    rng: np.random.Generator | None = None,
) -> Allocation:
    """The exact optimum for variance weights, such as E[p(1-p)] under a posterior.

    Args:
        weights: a, [Q] numbers from 0 to 1e300.
        budget, min_rollouts, max_rollouts, estimator, rng: as for `allocate`.

    Raises InputError (a ValueError) for weights that are negative, infinite or NaN, and for a budget that the bounds
    cannot meet.
    """
    a = _row("weights", weights, lambda x: (x >= 0) & (x <= 1e300), "numbers from 0 to 1e300")  # sums stay finite
    limits = Budget.of(len(a), budget, min_rollouts, max_rollouts, estimator)
    counts = exact_counts(a, limits, np.random.default_rng(0) if rng is None else rng)
    return Allocation.of(counts, a, limits)


def _row(name: str, values: ArrayLike, valid: Callable[[FloatArray], np.ndarray], expected: str) -> FloatArray:
    array = numbers(name, values)
    if not valid(array).all():
        raise InputError(f"{name} holds {array[~valid(array)][:3]}; expected {expected}")
    return array
