r"""The reference answer of a solution, whatever the type of the value that holds it."""

from __future__ import annotations

import decimal
from collections.abc import Sequence
from numbers import Integral, Rational, Real
from typing import Any

from viprl.errors import DataError
from viprl.rewards.grading.extract import boxed

FLOAT_DIGITS = 15
"""Significant digits of a float that is not whole: 0.1 + 0.2 is 0.3."""
_MISSING = ("NAType", "NaTType", "MaskedConstant")


def reference(solution: Any) -> str | None:
    r"""The reference answer of a solution: the content of its box, or what follows ``####``, or all of it.

    None for an empty solution. Raises DataError as `text_of` does.
    """
    text = text_of(solution)
    if text is None:
        return None
    answer = boxed(text) if "\\boxed" in text else None
    answer = text.rpartition("####")[2] if answer is None else answer
    return answer.strip() or None


def text_of(solution: Any) -> str | None:
    """The text of a solution; None if it is missing (None, NaN, or nothing but white space).

    Numbers of all types are written in plain notation, 0.00003 rather than 3e-05, and 5 rather than 5.0. A list or an
    array of one element is that element.

    Raises DataError for what is not one text or one number: truth values, bytes, mappings, lists of several answers.
    """
    if isinstance(solution, str):
        return solution if solution.strip() else None
    if solution is None or type(solution).__name__ in _MISSING:
        return None
    if isinstance(solution, Real | decimal.Decimal) and not isinstance(solution, bool):
        return _number_text(solution)
    if hasattr(solution, "tolist"):  # arrays and scalars of NumPy and torch
        solution = solution.tolist()
        if isinstance(solution, int | float) and not isinstance(solution, bool):
            return _number_text(solution)
    if isinstance(solution, Sequence) and not isinstance(solution, bytes | bytearray):
        if len(solution) == 1 and (isinstance(solution[0], str) or not isinstance(solution[0], Sequence)):
            return text_of(solution[0])
        raise DataError(f"it is a list of {len(solution)} elements, {solution!r:.80}; give one answer, as a text")
    remedy = "decode it" if isinstance(solution, bytes | bytearray) else "give the answer as a text or a number"
    raise DataError(f"it is of type {type(solution).__name__}, {solution!r:.80}; {remedy}")


def _number_text(value: Any) -> str | None:
    if isinstance(value, Rational) and not isinstance(value, Integral):
        return str(value)  # a fraction: 3/4
    try:
        number = decimal.Decimal(str(value))
    except (ValueError, decimal.InvalidOperation):
        raise DataError(f"it is a number of type {type(value).__name__} that cannot be written out") from None
    if number.is_nan():
        return None
    if number.is_infinite():
        return "inf" if number > 0 else "-inf"
    if not isinstance(value, Integral | decimal.Decimal):
        whole = number == number.to_integral_value()
        number = number.to_integral_value() if whole else number.normalize(decimal.Context(prec=FLOAT_DIGITS))
    return f"{number:f}"
