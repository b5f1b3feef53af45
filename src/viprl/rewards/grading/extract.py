"""The final answer of a completion. Linear in the length of the text."""

from __future__ import annotations

import itertools
import re

from viprl.rewards.grading.notation import FRACTIONS

ANSWER_LIMIT = 10_000
"""Longest box that is read, in characters."""
BRACES_LIMIT = 2_000
"""Most braces and escapes in a box that is read."""
NUMBER_LIMIT = 400
"""Longest number that `last_number` reads, in characters."""
TAIL = 8
"""Characters after the last digit that belong to its number at most: a per cent sign, the power of 10⁻⁵."""

_DIGIT_CHARACTERS = (*"0123456789", *map(chr, FRACTIONS))
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_SIGN = r"(?:(?<![\w)\]}])[-+−])?"  # no sign after an operand: the last number of "5-3" is 3
_FRACTION = r"\\[dtc]?frac ?(?:\{-?\d+\}|\d) ?(?:\{-?\d+\}|\d)"  # \frac12 is a half
_POWER_OF_TEN = r"\s?(?:\\times|\\cdot|[*x×·⋅])\s?10(?:\^(?:\{[-+−]?\d+\}|[-+−]?\d+)|[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)"
_SIGNED = rf"{_SIGN}(?:\\?\$)?"
_NUMBER = re.compile(
    rf"{_SIGNED}(?:\d+ ?)?{_FRACTION}"  # also 2\frac12, two and a half
    rf"|(?P<whole>{_SIGNED}\d+ )(?P<above>[1-9]\d*)/(?P<below>\d+)"  # 2 1/2
    rf"|{_SIGNED}(?:{_DIGITS})(?:[eE][-+]?\d+(?!\w)|{_POWER_OF_TEN}|/\d+)?(?:\s?\\?%)?",
    re.ASCII,
)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:\{|(?<=\s)(\d+))")
_MARKS = re.compile(r"\\.|[{}]", re.DOTALL)


def boxed(text: str) -> str | None:
    r"""The content of the last ``\boxed{...}`` or ``\fbox{...}`` (also ``\boxed 5``); None without one.

    Earlier boxes are ignored: they hold intermediate results or guesses. None if the last box is not closed. Escaped
    braces belong to the content.
    """
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if start < 0:
        return None
    rest = text[start : start + ANSWER_LIMIT]
    opening = _BOX.match(rest)
    if opening is None:
        return None
    if opening[1] is not None:
        return opening[1]
    depth = 1
    for mark in itertools.islice(_MARKS.finditer(rest, opening.end()), BRACES_LIMIT):
        depth += {"{": 1, "}": -1}.get(mark[0], 0)
        if depth == 0:
            return rest[opening.end() : mark.start()].strip()
    return None


def last_number(text: str) -> str | None:
    r"""The last number of the text, with its sign; None without one.

    Examples of numbers: 1,000, .5, 1.5e3, 3 \times 10^{-5}, 3/4, 2 1/2, 2½, \frac{3}{4}, 2\frac34, 50%.
    """
    end = max(text.rfind(digit) for digit in _DIGIT_CHARACTERS) + 1
    start = max(0, end - NUMBER_LIMIT)
    found = list(_NUMBER.finditer(text[start : end + TAIL].translate(FRACTIONS)))
    if not found or (start > 0 and found[-1].start() == 0):  # begins before the window: too long
        return None
    number, whole = found[-1][0], found[-1]["whole"]
    improper = whole is not None and int(found[-1]["above"]) >= int(found[-1]["below"])
    return number.removeprefix(whole) if improper else number


def whole(text: str) -> str:
    """The text with every run of white space replaced by one space."""
    return " ".join(text.split())
