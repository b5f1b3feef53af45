"""Texts that say when a reward counts as a success: "accuracy", "accuracy>=0.5", ">0.5", "0.5"."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from viprl.errors import InputError

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
_COMPARISON = re.compile(r"(?P<name>.*?)\s*(?P<sign>>=|<=|==|>|<)\s*(?P<number>[^<>=]*)", re.DOTALL)
_BRACKETED = re.compile(r"<\w+>")
"""The name of a function without a name: "<lambda>"."""


@dataclass(frozen=True)
class Comparison:
    """A condition on one number."""

    sign: str
    """One of `OPERATORS`."""
    number: float

    def __call__(self, value: float) -> bool:
        return OPERATORS[self.sign](value, self.number)

    def __str__(self) -> str:
        return f"{self.sign}{self.number:g}"


def read_comparison(text: str, names: Sequence[str] = ()) -> tuple[str | None, Comparison | None]:
    """The name in a text and the condition on its value; None for what the text does not have.

    "accuracy>=0.5" has both; "accuracy" has no condition; ">=0.5" and "0.5", which means ">=0.5", have no name.

    Args:
        names: known names, which may contain the signs: "<lambda>".

    Raises InputError for a comparison with something that is not a finite number, and for several comparisons.
    """
    text = text.strip()
    if text in names or _BRACKETED.fullmatch(text):
        return text, None
    if (number := _number(text)) is not None:
        return None, Comparison(">=", number)
    found = _COMPARISON.fullmatch(text)
    if found is None:
        if "=" in text:
            raise InputError(f"{text!r} is not a comparison; write NAME>=NUMBER, with one of {' '.join(OPERATORS)}")
        return text, None
    name, sign, right = found["name"], found["sign"], found["number"].strip()
    if name not in names and re.search(r"[<>=]", _BRACKETED.sub("", name)):
        raise InputError(f"{text!r} has several comparisons; write one: NAME>=NUMBER")
    if (number := _number(right)) is None:
        raise InputError(f"{text!r} compares with {right!r}, which is not a number")
    return name or None, Comparison(sign, number)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
