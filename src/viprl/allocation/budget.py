"""The budget of a batch: what to spend, what a rollout costs, and the bounds of each prompt.

One multiplier, the price of a unit of cost, decides the counts of every budget (`viprl.allocation.exact`). Budgets
differ in what sets it:

    hard      all C rollouts are spent (`Budget.of`)
    limited   the cost of the rollouts is at most a limit (`limited`)
    match     the smallest cost whose predicted variance is at most a share of that of uniform counts (`matching`)
    priced    the price is given (`priced`)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from viprl.allocation.variance_models import VarianceModel, get_variance_model
from viprl.errors import InputError
from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.numerics import bisect
from viprl.utils.sequences import LARGEST, scalar, whole_number, whole_numbers


@dataclass(frozen=True)
class Budget:
    """A validated budget for Q prompts. Build one with `Budget.of`."""

    total: int
    """C, the rollouts to spend. A hard budget spends every one of them, the others at most so many."""
    min_rollouts: IntArray
    """[Q] L, the fewest rollouts of each prompt."""
    max_rollouts: IntArray
    """[Q] U, the most rollouts of each prompt."""
    model: VarianceModel
    """Of the counts."""
    reference: VarianceModel
    """Of the uniform counts that they are compared with; another one if baselines are shrunk."""
    reference_factors: FloatArray | None = None
    """[Q] by which the weight of a prompt counts in the variance of uniform counts; None for 1 each. Of prompts that
    were selected 1/v, v their weights in the gradient (`uniform_variance`)."""
    costs: FloatArray | None = None
    """[Q] c, the cost of a rollout of each prompt; None for 1 each."""
    limit: float | None = None
    """Most cost of all rollouts."""
    match: float | None = None
    """Share of the variance of uniform counts that the cheapest counts may have."""
    price: float | None = None
    """Least decrease of the variance that a unit of cost must bring."""
    most: int | None = None
    """Most rollouts of the batch; None for C."""
    multiple: int = 1
    """The number of rollouts is a multiple of it, by rounding up. C must be one."""

    @classmethod
    def of(
        cls,
        prompts: int,
        total: int,
        min_rollouts: ArrayLike | None,
        max_rollouts: ArrayLike | None,
        estimator: str | VarianceModel,
    ) -> Budget:
        """Fill in the defaults and check that the bounds can meet the total.

        Args:
            prompts: Q, at least 1.
            total: C, at most `viprl.utils.sequences.LARGEST`.
            min_rollouts: L, a number or [Q]; None for the smallest legal group of the estimator.
            max_rollouts: U, a number or [Q]; None or infinity for no limit.
            estimator: see `get_variance_model`.

        Raises InputError for bounds below the smallest legal group, L > U, totals outside [sum L, sum U], and numbers
        that are not whole.
        """
        model = get_variance_model(estimator)
        _check_prompts(prompts)
        least = bounds("min_rollouts", model.min_rollouts if min_rollouts is None else min_rollouts, prompts)
        most = bounds("max_rollouts", LARGEST if max_rollouts is None else max_rollouts, prompts, limitless=True)
        c = whole_number("budget", total, least=-LARGEST)
        if (least < model.min_rollouts).any():
            raise InputError(
                f"min_rollouts is {least.min()}, but estimator {model.name!r} needs groups of at least "
                f"{model.min_rollouts}; raise min_rollouts to {model.min_rollouts}"
            )
        if (least > most).any():
            q = int(np.argmax(least > most))
            raise InputError(
                f"min_rollouts exceeds max_rollouts for prompt {q}: min_rollouts={least[q]}, max_rollouts={most[q]}"
            )
        if not least.sum() <= c <= most.sum():
            fix = ("lower min_rollouts", "raise") if c < least.sum() else ("raise max_rollouts", "lower")
            limited = (most < LARGEST).all()
            limits = f"from {least.sum()} to {most.sum()}" if limited else f"at least {least.sum()}"
            raise InputError(
                f"the budget cannot be met: {prompts} prompts with min_rollouts={_span(least)} and "
                f"max_rollouts={_span(most) if limited else None} need {limits} rollouts, but the budget is {c}; "
                f"{fix[0]} or {fix[1]} the budget"
            )
        return cls(c, least, np.maximum(np.minimum(most, c), least), model, model)  # no prompt can get more than C

    @classmethod
    def of_cost(
        cls,
        limit: float,
        costs: FloatArray,
        min_rollouts: ArrayLike | None,
        max_rollouts: ArrayLike | None,
        estimator: str | VarianceModel,
    ) -> Budget:
        """Rollouts of a cost of at most `limit`, however many these are. C is the number that it buys for equal counts.

        Raises InputError as `of` does, and if the limit does not buy the fewest rollouts of each prompt.
        """
        model, q = get_variance_model(estimator), len(costs)
        _check_prompts(q)
        least = bounds("min_rollouts", model.min_rollouts if min_rollouts is None else min_rollouts, q)
        most = bounds("max_rollouts", LARGEST if max_rollouts is None else max_rollouts, q, limitless=True)
        if costs @ least > limit * (1 + 1e-12):
            raise InputError(
                f"the budget is {limit:g}, but min_rollouts={_span(least)} rollouts of each of {q} prompts cost "
                f"{costs @ least:g}; lower min_rollouts or raise the budget"
            )
        total = int(min(max(q * limit / costs.sum(), least.sum()), most.sum(), LARGEST))
        budget = cls.of(q, total, least, most, model)
        affordable = np.minimum(limit / costs, LARGEST).astype(np.int64)
        most = np.maximum(np.minimum(most, affordable), least)
        return replace(budget, max_rollouts=most, most=LARGEST).limited(limit, costs)

    def limited(self, limit: float, costs: FloatArray) -> Budget:
        """At most C rollouts, of a cost of at most `limit`."""
        return replace(self, costs=costs, limit=limit)

    def matching(self, share: float, costs: FloatArray | None = None) -> Budget:
        """The cheapest counts, of at most C rollouts, with at most this share of the variance of uniform counts."""
        return replace(self, costs=costs, match=share)

    def priced(self, price: float, costs: FloatArray | None = None) -> Budget:
        """Every rollout that lowers the variance by more than `price` times its cost, however many these are."""
        return replace(self, costs=costs, price=price)

    @property
    def is_hard(self) -> bool:
        """Whether all C rollouts are spent, whatever the prediction is."""
        return self.costs is None and self.match is None and self.price is None

    @property
    def hard(self) -> Budget:
        """The same number of rollouts, all of them to be spent."""
        return replace(self, costs=None, limit=None, match=None, price=None, multiple=1, most=None)

    def part(self, mask: np.ndarray, total: int) -> Budget:
        """The same for the prompts where `mask` [Q], with C = `total`. A limit of the cost stays as it is."""
        costs = None if self.costs is None else self.costs[mask]
        least, most = self.min_rollouts[mask], self.max_rollouts[mask]
        factors = None if self.reference_factors is None else self.reference_factors[mask]
        return replace(
            self,
            total=total,
            min_rollouts=least,
            max_rollouts=most,
            costs=costs,
            model=self.model.part(mask),
            reference=self.reference.part(mask),
            reference_factors=factors,
        )

    def uniform_variance(self, weights: FloatArray) -> float:
        """The variance of C rollouts spread evenly, with the weights a [Q].

        If the prompts were selected with the weights v in the gradient, a prompt counts with v^2 a in the variance. Of
        prompts that are chosen by chance alone, the variance is the sum of a over all candidates, which the sum of v a
        over the selected ones estimates without bias.
        """
        weights = weights if self.reference_factors is None else weights * self.reference_factors
        return float(weights @ self.reference.interpolated_factor(even_counts(self)))

    def cost(self, counts: FloatArray | IntArray) -> float:
        """The cost of counts [Q]; their sum if every rollout costs 1."""
        return float(counts.sum() if self.costs is None else self.costs @ counts)


def default_max_rollouts(prompts: int, total: int, min_rollouts: ArrayLike) -> int:
    """Six average groups, at least the fewest rollouts of any prompt; `min_rollouts` as for `Budget.of`.

    Raises InputError for numbers that are not whole.
    """
    average = -(-6 * whole_number("budget", total, least=-LARGEST) // max(prompts, 1))
    return min(max([average, *bounds("min_rollouts", min_rollouts, prompts).tolist()]), LARGEST)


def even_counts(budget: Budget) -> FloatArray:
    """[Q] real counts, as equal as the bounds allow, that sum to C: clip(level, L, U)."""
    level = budget.total / len(budget.min_rollouts)
    if budget.min_rollouts.max() <= level <= budget.max_rollouts.min():
        return np.full(len(budget.min_rollouts), level)

    def counts(level: float) -> FloatArray:
        return np.clip(level, budget.min_rollouts, budget.max_rollouts)

    ends = float(budget.min_rollouts.min()), float(budget.max_rollouts.max())
    lower, upper = bisect(lambda level: counts(level).sum() < budget.total, *ends)
    share = counts_between(counts(lower), counts(upper), budget.total)
    nearest = np.round(share)  # a level of 7.999999999 is 8
    return np.where(np.abs(share - nearest) < 1e-9, nearest, share)


def counts_between(few: FloatArray, many: FloatArray, total: int) -> FloatArray:
    """[Q] real counts of sum `total` on the line from `few` to `many`, the ends of a bisection."""
    gap = many.sum() - few.sum()
    return few if gap <= 0 else few + (many - few) * (total - few.sum()) / gap


def bounds(name: str, value: Any, prompts: int, *, limitless: bool = False) -> IntArray:
    """[Q] bounds from one number or one for each prompt, read as `whole_numbers` does. Raises InputError."""
    value = value if getattr(value, "ndim", 0) else scalar(value)
    if isinstance(value, str | Real | Decimal) or value is None:
        return np.full(prompts, whole_number(name, value, least=-LARGEST, limitless=limitless), dtype=np.int64)
    each = whole_numbers(name, value, least=-LARGEST, limitless=limitless)
    if len(each) != prompts:
        raise InputError(f"{name} has {len(each)} numbers; expected one number or one for each of {prompts} prompts")
    return each


def _check_prompts(prompts: int) -> None:
    if prompts == 0:
        raise InputError("no prompts were given; an allocation needs at least one")


def _span(bounds: IntArray) -> str:
    return str(bounds[0]) if (bounds == bounds[0]).all() else f"{bounds.min()}..{bounds.max()}"
