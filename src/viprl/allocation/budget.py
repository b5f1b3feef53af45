"""The budget of a batch: the number of rollouts to spend, and the bounds of each prompt."""

from __future__ import annotations

from dataclasses import dataclass
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
    """C, the rollouts to spend, every one of them."""
    min_rollouts: IntArray
    """[Q] L, the fewest rollouts of each prompt."""
    max_rollouts: IntArray
    """[Q] U, the most rollouts of each prompt."""
    model: VarianceModel

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
        if prompts == 0:
            raise InputError("no prompts were given; an allocation needs at least one")
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
        return cls(c, least, np.maximum(np.minimum(most, c), least), model)  # no prompt can get more than C


def default_max_rollouts(prompts: int, total: int, min_rollouts: ArrayLike) -> int:
    """Six average groups, at least the fewest rollouts of any prompt; `min_rollouts` as for `Budget.of`.

    Raises InputError for numbers that are not whole.
    """
    average = -(-6 * whole_number("budget", total, least=-LARGEST) // max(prompts, 1))
    return min(max([average, *bounds("min_rollouts", min_rollouts, prompts).tolist()]), LARGEST)


def even_counts(budget: Budget) -> FloatArray:
    """[Q] real counts, as equal as the bounds allow, that sum to C: clip(level, L, U)."""

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


def _span(bounds: IntArray) -> str:
    return str(bounds[0]) if (bounds == bounds[0]).all() else f"{bounds.min()}..{bounds.max()}"
