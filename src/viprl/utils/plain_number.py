"""Numbers of all types as texts in plain decimal notation."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from numbers import Integral, Rational
from typing import Any

from viprl.errors import DataError

LARGEST_EXPONENT = 400
"""Numbers beyond 1e400 or below 1e-400 are not written out."""


def plain_number(value: Any, what: str) -> str:
    """A number without exponent and trailing zeros: 5, not 5.0; 0.00003, not 3e-05; 3/4 for a Fraction.

    Args:
        value: a number of Python, NumPy, `decimal` or `fractions`.
        what: what the number is, for errors, such as "the answer".

    Raises DataError for numbers that are not finite, real or of a usual size.
    """
    try:
        if isinstance(value, Integral):
            return str(int(value))
        if isinstance(value, Rational):
            return f"{value.numerator}/{value.denominator}" if value.denominator != 1 else str(value.numerator)
        # str: the shortest digits of this float type
        exact = value if isinstance(value, Decimal) else Decimal(str(value))
    except (ValueError, InvalidOperation):
        raise DataError(
            f"{what} is a number of type {type(value).__name__} that is not written out; give it as a text"
        ) from None
    if not exact.is_finite():
        raise DataError(f"{what} is {exact}; expected a text or a finite number")
    if exact and abs(exact.adjusted()) > LARGEST_EXPONENT:
        raise DataError(f"{what} is {exact}, which is not written out; give it as a text")
    text = f"{exact:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text
