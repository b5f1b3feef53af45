"""From a completion to its final answer, and from a solution to the reference answer. Linear in the text's length."""

from __future__ import annotations

import re
from numbers import Real
from typing import Any

ANSWER_LIMIT = 10_000
"""Characters of the longest box that is read."""
NUMBER_LIMIT = 400
"""Characters of the longest number that `last_number` reads."""

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_SIGN = r"(?:(?<![\w)\]}])[-+−])?"  # in "5-3" the last number is 3
_NUMBER = re.compile(
    rf"{_SIGN}\\[dtc]?frac ?(?:\{{-?\d+\}}|\d) ?(?:\{{-?\d+\}}|\d)"  # \frac12 is a half
    rf"|{_SIGN}(?:\\?\$)?(?:{_DIGITS})(?:/\d+)?(?:\s?\\?%)?",
    re.ASCII,
)


def boxed(text: str) -> str | None:
    r"""The content of the last ``\boxed{...}`` or ``\fbox{...}`` (``\boxed 5`` too); None without one.

    Only the last box counts: neither an intermediate result nor a list of guesses is taken for the answer. A last box
    that is not closed is no answer. Escaped braces are content.
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
    r"""The last number of the text with its sign: 1,000 or .5 or 3/4 or \frac{3}{4} or \frac34 or 50%; None
    without one."""
    end = max(text.rfind(digit) for digit in "0123456789") + 1
    start = max(0, end - NUMBER_LIMIT)
    found = list(_NUMBER.finditer(text[start : end + 3]))
    if not found or (start > 0 and found[-1].start() == 0):  # it began before the window: too long to be meant
        return None
    return found[-1][0]


def whole(text: str) -> str:
    """The text itself, its white space made even."""
    return " ".join(text.split())


def reference(solution: Any) -> str | None:
    r"""The reference answer of a solution: what is boxed, what follows ``####``, or else all of it; None without one.

    Numbers are welcome. Raises ValueError for anything that is neither text nor number.
    """
    if solution is None or solution != solution:  # NaN is how tables say None
        return None
    if isinstance(solution, Real):
        return str(solution)
    if not isinstance(solution, str):
        raise ValueError(f"a solution is of type {type(solution).__name__}; expected a text or a number")
    answer = boxed(solution) if "\\boxed" in solution else None
    answer = solution.rpartition("####")[2] if answer is None else answer
    return answer.strip() or None
