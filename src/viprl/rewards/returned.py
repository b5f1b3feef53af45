"""What a reward function returned, as numbers."""

from __future__ import annotations

import math
from typing import Any

from viprl.errors import InputError
from viprl.utils.sequences import listed, short, to_float


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
    if getattr(returned, "ndim", 1) > 1:
        raise _error(name, f"an array of shape {tuple(returned.shape)}", n, what)
    try:
        values = listed("rewards", returned)
    except InputError:
        raise _error(name, short(returned), n, what) from None
    if len(values) != n:
        raise _error(name, f"{len(values)} value{'' if len(values) == 1 else 's'}, {short(values)},", n, what)
    rewards = []
    for place, value in enumerate(values, start=1):
        number = _number(value)
        if number is None:
            shown = f"{short(value)} (value {place}, of type {type(value).__name__})"
            raise _error(name, shown, n, what)
        rewards.append(number)
    return rewards


def _number(value: Any) -> float | None:
    """A reward as a number, NaN if it is missing; None if it is not a number."""
    try:
        return to_float(value)
    except OverflowError:  # a whole number with hundreds of digits
        return math.inf if value > 0 else -math.inf
    except Exception:  # objects of any library
        return None


def _error(name: str, given: str, n: int, what: str, hint: str = "") -> InputError:
    return InputError(
        f"reward {name} returned {given} for {n} {what}{hint}; expected a list of {n} numbers, with None for a "
        "completion that it cannot score"
    )
