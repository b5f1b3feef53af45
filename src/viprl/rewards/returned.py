"""What a reward function returned, as numbers."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Set
from numbers import Number
from typing import Any

from viprl.errors import InputError

_SHORT = reprlib.Repr()
_SHORT.maxlist, _SHORT.maxstring, _SHORT.maxother = 4, 60, 60


def returned_rewards(name: str, returned: Any, n: int, what: str = "completions") -> list[float]:
    """[n] rewards; NaN for None and NaN: a completion that cannot be scored. Infinite values stay.

    Args:
        name: of the reward function, for errors.
        returned: what it returned: a list, tuple, iterator, array or tensor of n numbers or None.
        n: number of completions.
        what: the completions, for errors.

    Raises InputError for anything else.
    """
    if returned is None:
        raise _error(name, "None", n, what, "; is its `return` missing?")
    returned = returned.detach().cpu() if hasattr(returned, "detach") else returned  # a tensor
    if getattr(returned, "ndim", 1) > 1:
        raise _error(name, f"an array of shape {tuple(returned.shape)}", n, what)
    if isinstance(returned, str | bytes | Mapping | Set | Number) or getattr(returned, "ndim", 1) == 0:
        raise _error(name, _SHORT.repr(returned), n, what)
    try:
        values = list(returned)
    except TypeError:
        raise _error(name, _SHORT.repr(returned), n, what) from None
    if len(values) != n:
        raise _error(name, f"{len(values)} value{'' if len(values) == 1 else 's'}, {_SHORT.repr(values)},", n, what)
    rewards = []
    for place, value in enumerate(values, start=1):
        number = _number(value)
        if number is None:
            shown = f"{_SHORT.repr(value)} (value {place}, of type {type(value).__name__})"
            raise _error(name, shown, n, what)
        rewards.append(number)
    return rewards


def _number(value: Any) -> float | None:
    """A reward as a number, NaN if it is missing; None if it is not a number."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):  # as pandas writes a missing value
        return math.nan
    if _holds_one(value):
        value = value.item()
    if not isinstance(value, Number) or isinstance(value, complex):
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:  # a whole number with hundreds of digits
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]


def _holds_one(value: Any) -> bool:
    """Whether a value is a scalar, or an array or tensor of one number."""
    single = getattr(value, "ndim", None) == 0 or math.prod(getattr(value, "shape", (0,))) == 1
    return single and hasattr(value, "item")


def _error(name: str, given: str, n: int, what: str, hint: str = "") -> InputError:
    return InputError(
        f"reward {name} returned {given} for {n} {what}{hint}; expected a list of {n} numbers, with None for a "
        "completion that it cannot score"
    )
