"""From the value of a cell to the text of an answer."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from decimal import Decimal
from numbers import Integral
from typing import Any

import numpy as np

from viprl.data.values import Unreadable
from viprl.errors import DataError
from viprl.utils.missing import MISSING_TEXTS, is_missing
from viprl.utils.plain_number import plain_number
from viprl.utils.words import in_short

MARK = "####"
"""GSM8K's mark of the final answer: the last line of a worked solution is `#### 18`."""


def read_answer(value: Any, mark: str | None = None) -> str:
    """The answer of a row as text: what follows the last `mark`, or all of it without a mark.

    A number is written in plain decimal notation without trailing zeros: 5, not 5.0; 0.00003, not 3e-05. A list of one
    answer is that answer.

    Raises DataError, with what the answer is, if it is missing, has no `mark`, or is not a text or a number.
    """
    several = list | tuple | np.ndarray
    flat = isinstance(value, several) and getattr(value, "ndim", 1) == 1
    if flat and len(value) == 1 and not isinstance(value[0], several):
        value = value[0]
    if is_missing(value):
        raise DataError("the answer is empty")
    text = value if isinstance(value, str) else _number_text(value)
    if mark:
        if mark not in text:
            raise DataError(f"the answer does not contain {mark!r} (answer_after)")
        text = text.rpartition(mark)[2].strip()
        if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", text):  # GSM8K writes 1,000
            text = text.replace(",", "")
    text = text.strip()
    if not text:
        raise DataError("the answer is empty")
    if text.lower() in MISSING_TEXTS:
        raise DataError(f"the answer is the text {text!r}, which stands for a missing value")
    check_characters(text, "the answer")
    return text


def _number_text(value: Any) -> str:
    if isinstance(value, bool | np.bool_) or not isinstance(value, Integral | float | np.floating | Decimal):
        field = "; name one of them with a dot (solution_column: COLUMN.KEY)" if isinstance(value, Mapping) else ""
        raise DataError(f"the answer is {described(value)}; expected a text or a number{field}")
    return plain_number(value, "the answer")


def described(value: Any) -> str:
    """What a value is, in words, for errors."""
    if isinstance(value, bool | np.bool_):
        return f"the truth value {str(value).lower()}"
    if isinstance(value, list | tuple | np.ndarray):
        return f"a list of {len(value)} values ({in_short(value)})" if getattr(value, "ndim", 1) else in_short(value)
    if isinstance(value, Mapping):
        return f"a mapping with the keys {in_short(', '.join(map(str, value)))}"
    if isinstance(value, bytes):
        return "of type bytes"
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta | np.datetime64 | np.timedelta64):
        return f"a date or a time ({value})"
    if isinstance(value, Integral | float | np.floating | Decimal):
        return f"the number {in_short(value)}"
    if isinstance(value, Unreadable):
        return f"unreadable ({value.reason})"
    return f"of type {type(value).__name__}"


def check_characters(text: str, what: str) -> None:
    """Raise DataError for half a surrogate pair, which UTF-8 cannot express."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise DataError(f"{what} has half of a character ({half}), as if it was cut inside one") from None
