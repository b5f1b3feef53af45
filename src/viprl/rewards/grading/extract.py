"""The final answer of a completion, and the reference answer of a solution. Linear in the length of the text."""

from __future__ import annotations

import re
from numbers import Real
from typing import Any

from viprl.errors import DataError

ANSWER_LIMIT = 10_000
"""Longest box that is read, in characters."""
NUMBER_LIMIT = 400
"""Longest number that `last_number` reads, in characters."""

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_SIGN = r"(?:(?<![\w)\]}])[-+−])?"  # no sign after an operand: the last number of "5-3" is 3
_NUMBER = re.compile(
    rf"{_SIGN}\\[dtc]?frac ?(?:\{{-?\d+\}}|\d) ?(?:\{{-?\d+\}}|\d)"  # \frac12 is a half
    rf"|{_SIGN}(?:\\?\$)?(?:{_DIGITS})(?:/\d+)?(?:\s?\\?%)?",
    re.ASCII,
)


def boxed(text: str) -> str | None:
    r"""The content of the last ``\boxed{...}`` or ``\fbox{...}`` (also ``\boxed 5``); None without one.

    Earlier boxes are ignored: they hold intermediate results or guesses. None if the last box is not closed. Escaped
    braces belong to the content.
    """
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if start < 0:
        return None
    rest = text[start : start + ANSWER_LIMIT]
    opening = re.match(r"\\(?:boxed|fbox)\s*(?:\{|(?<=\s)(\d+))", rest)
    if opening is None:
        return None
    if opening[1] is not None:
        return opening[1]
    depth = 1
    for mark in re.compile(r"\\.|[{}]", re.DOTALL).finditer(rest, opening.end()):
        depth += {"{": 1, "}": -1}.get(mark[0], 0)
        if depth == 0:
            return rest[opening.end() : mark.start()].strip()
    return None


def last_number(text: str) -> str | None:
    r"""The last number of the text, with its sign; None without one.

    Examples of numbers: 1,000, .5, 3/4, \frac{3}{4}, \frac34, 50%.
    """
    end = max(text.rfind(digit) for digit in "0123456789") + 1
    start = max(0, end - NUMBER_LIMIT)
    found = list(_NUMBER.finditer(text[start : end + 3]))
    if not found or (start > 0 and found[-1].start() == 0):  # begins before the window: too long
        return None
    return found[-1][0]


def whole(text: str) -> str:
    """The text with every run of white space replaced by one space."""
    return " ".join(text.split())


def reference(solution: Any) -> str | None:
    r"""The reference answer of a solution: the content of its box, or what follows ``####``, or all of it.

    None for an empty solution (None, NaN, or nothing but white space). Raises DataError for a solution that is neither
    a text nor a number.
    """
    if solution is None or solution != solution:  # tables hold NaN for None
        return None
    if isinstance(solution, Real):
        return str(solution)
    if not isinstance(solution, str):
        raise DataError(f"a solution is of type {type(solution).__name__}; expected a text or a number")
    answer = boxed(solution) if "\\boxed" in solution else None
    answer = solution.rpartition("####")[2] if answer is None else answer
    return answer.strip() or None
