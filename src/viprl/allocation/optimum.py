"""The allocation of a batch: the smallest variance sum_q a_q f(n_q) of a budget, or the smallest cost of a variance
(arXiv 2602.01601, Section 5).

symbol   meaning                                                     shape
Q, C     prompts in the batch, rollouts that uniform counts spend    scalars
a        variance weight of each prompt, p(1-p) for known p          [Q]
c        cost of a rollout of each prompt                            [Q]
L, U     fewest and most rollouts of each prompt                     [Q]
n        rollouts of each prompt, integers                           [Q]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from viprl.advantages import RewardPrior
from viprl.allocation.budget import Budget, even_counts
from viprl.allocation.exact import exact_counts, optimality_gap
from viprl.allocation.variance_models import VarianceModel
from viprl.allocation.waves.pooled import Waves
from viprl.errors import InputError
from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.sequences import numbers, positive_number


@dataclass(frozen=True)
class Allocation:
    """Rollout counts, the gradient variance predicted for them, and their cost."""

    counts: IntArray
    """[Q] rollouts of each prompt; of a hard budget they sum to it."""
    success_probability: FloatArray | None
    """[Q] success probability that each count is based on; None if only weights were given."""
    expected_variance: float
    """sum_q a_q f(n_q): the predicted variance of the batch gradient, times Q^2 and in units of the score variance."""
    uniform_variance: float
    """The same for C rollouts spread evenly (linear between integers), with baselines of the group."""
    cost: float
    """sum_q c_q n_q; the number of rollouts if no costs were given. Of a first wave what is expected of both."""
    uniform_cost: float
    """The same for C rollouts spread evenly."""
    gap: float = 0.0
    """Bound on the distance to the optimum, as a share of what was minimised (`viprl.allocation.exact`); 0: exact."""
    prior: RewardPrior | None = None
    """What is expected of the rewards of each prompt, for `viprl.group_advantages`; None if nothing is."""
    waves: Waves | None = None
    """Of a batch that is sampled in two waves (`VIP.allocate(..., waves=2)`): what `VIP.next` and
    `viprl.pooled_advantages` need. `counts` are then the rollouts to sample now."""

    def __repr__(self) -> str:
        n = self.counts
        some = f"counts={n.tolist()}" if len(n) <= 8 else f"{len(n)} prompts, counts={n.min()}..{n.max()}"
        saved = f", saved={self.saved:.3g}" if abs(self.saved) > 1e-9 else ""
        gap = f", gap={self.gap:.2g}" if self.gap > 1e-9 else ""
        if self.waves is not None and self.waves.counts is None:
            some = f"first wave of two: {some}"
        elif self.waves is not None:
            some = f"second wave of two: {some}"
        return f"Allocation({some}, {n.sum()} rollouts, variance_ratio={self.variance_ratio:.3g}{saved}{gap})"

    @property
    def variance_ratio(self) -> float:
        """Predicted variance relative to uniform; 1 if both are zero."""
        return self.expected_variance / self.uniform_variance if self.uniform_variance > 0 else 1.0

    @property
    def saved(self) -> float:
        """Share of the cost of uniform counts that is not spent."""
        return 1 - self.cost / self.uniform_cost

    @classmethod
    def of(cls, counts: IntArray, weights: FloatArray, budget: Budget, p: FloatArray | None = None) -> Allocation:
        """`counts` with the variances that `weights` [Q] predict."""
        uniform, even = budget.uniform_variance(weights), even_counts(budget)
        value = float(weights @ budget.model.factor(counts))
        gap = optimality_gap(weights, counts, budget)
        return cls(counts, p, value, uniform, budget.cost(counts), budget.cost(even), gap)


def allocate(
    success_probability: ArrayLike,
    *,
    budget: float | None = None,
    match_uniform: int | None = None,
    variance_target: float = 1.0,
    costs: ArrayLike | None = None,
    min_rollouts: ArrayLike | None = None,
    max_rollouts: ArrayLike | None = None,
    estimator: str | VarianceModel = "rloo",
    rng: np.random.Generator | None = None,
) -> Allocation:
    """The exact optimum for known success probabilities.

    Give a `budget` for the smallest variance that it buys, or `match_uniform` for the smallest cost of uniform's
    variance.

    Args:
        success_probability: [Q] numbers in [0, 1]; a prompt with exactly 0 or 1 has weight 0.
        budget: C, the rollouts to spend, every one of them. With `costs` the most that the rollouts may cost.
        match_uniform: C, the rollouts that uniform counts would spend, and the most that are spent here.
        variance_target: with `match_uniform`, the variance to reach, relative to uniform's.
        costs: c, [Q] positive numbers, what a rollout of each prompt costs. Default: 1 each.
        min_rollouts, max_rollouts: L and U, numbers or [Q]; infinity for no limit. Defaults: the smallest legal group,
            and no limit.
        estimator: "rloo" or "dr_grpo".
        rng: breaks ties. By default equal input gives equal output.

    Returns: an allocation. With costs it may miss the optimum by the share `gap`, otherwise it is exact.

    Raises InputError (a ValueError) for probabilities outside [0, 1] or NaN, and for a budget that the bounds cannot
    meet.

    Example:
        >>> viprl.allocate([0.5, 0.1, 1.0], budget=24, min_rollouts=2, max_rollouts=16).counts
        array([13,  9,  2])
        >>> viprl.allocate([0.5, 0.1, 1.0], match_uniform=24).counts
        array([9, 6, 2])
    """
    p = _row("success_probability", success_probability, lambda x: (x >= 0) & (x <= 1), "numbers in [0, 1]")
    plan = allocate_weights(
        p * (1 - p),
        budget=budget,
        match_uniform=match_uniform,
        variance_target=variance_target,
        costs=costs,
        min_rollouts=min_rollouts,
        max_rollouts=max_rollouts,
        estimator=estimator,
        rng=rng,
    )
    return replace(plan, success_probability=p)


def allocate_weights(
    weights: ArrayLike,
    *,
    budget: float | None = None,
    match_uniform: int | None = None,
    variance_target: float = 1.0,
    costs: ArrayLike | None = None,
    min_rollouts: ArrayLike | None = None,
    max_rollouts: ArrayLike | None = None,
    estimator: str | VarianceModel = "rloo",
    rng: np.random.Generator | None = None,
) -> Allocation:
    """The exact optimum for variance weights, such as E[p(1-p)] under a posterior.

    Args:
        weights: a, [Q] numbers from 0 to 1e300.
        budget, match_uniform, variance_target, costs, min_rollouts, max_rollouts, estimator, rng: as for `allocate`.

    Raises InputError (a ValueError) for weights that are negative, infinite or NaN, and for a budget that the bounds
    cannot meet.
    """
    a = _row("weights", weights, lambda x: (x >= 0) & (x <= 1e300), "numbers from 0 to 1e300")  # sums stay finite
    if (budget is None) == (match_uniform is None):
        given = "neither" if budget is None else "both"
        raise InputError(f"give either budget or match_uniform; {given} were given")
    bounds = min_rollouts, max_rollouts, estimator
    c = None if costs is None else _row("costs", costs, lambda x: (x > 0) & (x <= 1e300), "positive numbers")
    if c is not None and len(c) and 1e-12 * c.max() > c.min():
        raise InputError(f"costs go from {c.min():g} to {c.max():g}; expected a ratio of at most 1e12")
    share = positive_number("variance_target", variance_target)
    if match_uniform is None and share != 1.0:
        raise InputError("variance_target is given without match_uniform; leave it out, or give match_uniform")
    if c is not None and len(c) != len(a):
        raise InputError(f"costs has {len(c)} numbers; expected one for each of {len(a)} prompts")
    if match_uniform is not None:
        limits = Budget.of(len(a), match_uniform, *bounds).matching(share, c)
    elif c is None:
        limits = Budget.of(len(a), budget, *bounds)  # type: ignore[arg-type]  # it reads any number
    else:
        limits = Budget.of_cost(positive_number("budget", budget), c, *bounds)
    counts = exact_counts(a, limits, np.random.default_rng(0) if rng is None else rng)
    return Allocation.of(counts, a, limits)


def _row(name: str, values: ArrayLike, valid: Callable[[FloatArray], np.ndarray], expected: str) -> FloatArray:
    array = numbers(name, values)
    if not valid(array).all():
        raise InputError(f"{name} holds {array[~valid(array)][:3]}; expected {expected}")
    return array
