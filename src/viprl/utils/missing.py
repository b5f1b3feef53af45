"""Missing values, as Python, NumPy, pandas and JSON have them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np

MISSING_TEXTS = frozenset({"nan", "<na>", "nat"})
"""What pandas writes for a missing value where it makes texts of a column, in lower case."""
NONE_TEXTS = frozenset({"none", "null"})
"""The names of None, in lower case. Unlike `MISSING_TEXTS` they can be answers."""


def is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, pandas' NA or NaT, or a masked value of NumPy."""
    if value is None or type(value).__name__ in ("NAType", "NaTType", "MaskedConstant"):
        return True
    if isinstance(value, Decimal):
        return value.is_nan()  # a signaling NaN cannot be compared
    return isinstance(value, float | np.floating) and bool(value != value)


def names_missing(text: str) -> bool:
    """Whether a text is nothing but the name of a missing value, None and null included."""
    return text.strip().lower() in MISSING_TEXTS | NONE_TEXTS
