"""Arguments of any library as lists and numbers. They are converted once, where they come in."""

from __future__ import annotations

import math
import reprlib
import sys
from collections.abc import Collection, ItemsView, Iterable, KeysView, Mapping, Set
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

from viprl.errors import InputError, InputTypeError
from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.missing import is_missing

LARGEST = 2**40
"""Largest whole number that is read. Sums of such numbers are exact, in float64 and in int64."""

_LIST_METHODS = ("tolist", "to_pylist", "to_list")
"""Of NumPy, PyTorch, JAX and pandas; of Arrow; of Polars and datasets. Each ignores an index."""

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80


def listed(what: str, value: Any, items: str = "with one for each prompt") -> list[Any]:
    """`value` as a list, in its own order, whatever index it has.

    Lists, tuples, iterators, arrays, tensors and columns of a table are read. Texts, mappings, sets and tables are
    refused: they have no order, or their items are not what is meant.

    Args:
        what: `value` in errors, a plural.
        items: what the list holds, for errors.

    Raises InputTypeError (an InputError and a TypeError) for everything else.
    """
    if isinstance(value, list):
        return value
    kind = _refused(value)
    if kind is None:
        for method in _LIST_METHODS:
            if callable(getattr(type(value), method, None)):
                found = getattr(value, method)()
                if isinstance(found, list):
                    return found
                kind = f"a single value ({short(value)})"  # an array without dimensions
                break
        else:
            if isinstance(value, Iterable) or hasattr(value, "__getitem__"):
                return list(value)
            kind = f"a single value ({short(value)})"
    raise InputTypeError(f"{what} are {kind}; expected a list {items}")


def _refused(value: Any) -> str | None:
    """What `value` is, if it is iterable but not a sequence of the items that are meant."""
    if isinstance(value, str | bytes | bytearray | memoryview):
        return f"{'a text' if isinstance(value, str) else 'bytes'} ({short(value)})"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, Set) and not isinstance(value, KeysView | ItemsView):  # views of a dict have an order
        return "a set, which has no order"
    if hasattr(value, "ngroups") or (hasattr(value, "columns") and not hasattr(value, "to_pylist")):
        return "a table, of which one column is needed"  # iterating gives its names; tables of Arrow give rows
    return None


def short(value: Any) -> str:
    """A `repr` of one line and limited length, for errors."""
    try:
        return _short.repr(value).replace("\n", " ")
    except Exception:  # an integer of thousands of digits, or a class with a faulty __repr__
        return f"<{type(value).__name__}>"


def to_float(value: Any) -> float:
    """One number as a float: bool, int, float, Decimal, Fraction, and what `scalar` reads.

    NaN for a missing value. Raises TypeError, ValueError or OverflowError for everything else, texts included.
    """
    if isinstance(value, int | float):
        return float(value)
    value = scalar(value)
    if is_missing(value):
        return math.nan
    if isinstance(value, str | bytes | bytearray):
        raise TypeError(f"a {type(value).__name__} is not a number")
    return float(value)


def scalar(value: Any) -> Any:
    """A scalar of NumPy, PyTorch or Arrow, or an array of one element, as a Python object; anything else as it is."""
    for method in ("tolist", "as_py"):
        if callable(getattr(type(value), method, None)):
            found = getattr(value, method)()
            while isinstance(found, list) and len(found) == 1:
                found = found[0]
            return found
    return value


def _plain(value: Any, kinds: str) -> bool:
    """Whether a value is an array [n] of these kinds of numbers, none of which can be masked."""
    array = isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray)
    return array and value.ndim == 1 and value.dtype.kind in kinds


def numbers(what: str, value: Any, items: str = "with one for each prompt") -> FloatArray:
    """[n] the numbers in a sequence, NaN for None. Raises InputError for items that are not numbers."""
    if _plain(value, "fiub"):
        return value.astype(float)
    given = listed(what, value, items)
    if {float}.issuperset(map(type, given)):
        return np.array(given, dtype=float)  # the usual case
    read = np.empty(len(given))
    for position, one in enumerate(given):
        try:
            read[position] = to_float(one)
        except Exception as error:  # objects of any library
            raise InputError(f"{what}: entry {position} is {short(one)}; expected a number") from error
    return read


def whole_number(what: str, value: Any, *, least: int = 0, limitless: bool = False) -> int:
    """A whole number from `least` to `LARGEST`.

    Args:
        what: `value` in errors.
        least: the smallest number that is read.
        limitless: read larger numbers, infinity included, as `LARGEST`.

    Raises InputError for everything else: fractions, booleans, NaN, texts.
    """
    number: Any = scalar(value)
    readable = isinstance(number, Real | Decimal) and not isinstance(number, bool)
    if readable and not is_missing(number):
        if number > LARGEST:
            if limitless:
                return LARGEST
            raise InputError(f"{what} is {short(value)}; expected a whole number of at most {LARGEST}")
        if number < least:
            raise InputError(f"{what} is {short(value)}; expected a whole number of at least {least}")
        if number == int(number):
            return int(number)
    raise InputError(f"{what} is {short(value)}; expected a whole number")


def positive_number(what: str, value: Any) -> float:
    """A positive, finite number. Raises InputError for everything else."""
    number: Any = scalar(value)
    readable = isinstance(number, Real | Decimal) and not isinstance(number, bool) and not is_missing(number)
    if readable and 0 < number <= sys.float_info.max and float(number) > 0:  # not rounded to 0
        return float(number)
    raise InputError(f"{what} is {short(value)}; expected a positive number")


def check_choice(what: str, value: Any, choices: Collection[str]) -> None:
    """Raise InputError unless `value` is one of these names."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{what} is {short(value)}; expected {' or '.join(map(repr, choices))}")


def whole_numbers(what: str, value: Any, *, least: int = 0, limitless: bool = False) -> IntArray:
    """[n] the whole numbers in a sequence, as `whole_number` reads them."""
    if _plain(value, "iu") and (len(value) == 0 or (value.min() >= least and value.max() <= LARGEST)):
        return value.astype(np.int64)
    given = listed(what, value)
    read = (
        whole_number(f"{what}: entry {position}", one, least=least, limitless=limitless)
        for position, one in enumerate(given)
    )
    return np.fromiter(read, dtype=np.int64, count=len(given))
