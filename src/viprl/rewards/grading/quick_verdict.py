"""Comparisons that need no computer algebra: most answers are a number, or the same text as the reference."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

DECIMALS = 6
"""A decimal with at least this many places equals every number that rounds to it: .333333 is 1/3, as in math-verify."""

_SPACES = dict.fromkeys(map(ord, "\u00a0\u2009\u202f\u3000"), " ")
_SAME = {ord("−"): "-", ord("–"): "-", ord("∶"): ":", ord("％"): "%", ord("，"): ",", ord("。"): "."}
_FULL_WIDTH = {0xFF10 + digit: str(digit) for digit in range(10)}
_LETTERS = _SPACES | _SAME | _FULL_WIDTH | {ord("°"): r"^\circ "}

_ENCLOSING = (("\\(", "\\)"), ("\\[", "\\]"), ("$$", "$$"), ("$", "$"), ("**", "**"))
_WHOLE = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+)"
_DECIMAL = re.compile(rf"([-+]?)(?:\\?\$)?({_WHOLE}?)(?:\.(\d*))?(\\?%)?", re.ASCII)
_RATIO = re.compile(rf"([-+]?)({_WHOLE}) ?/ ?({_WHOLE})(\\?%)?", re.ASCII)
_FRAC = re.compile(r"([-+]?)\\frac ?(?:\{ ?([-+]?\d+) ?\}|(\d)) ?(?:\{ ?([-+]?\d+) ?\}|(\d))(\\?%)?", re.ASCII)
_WORDS = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|operatorname) ?\{([^{}\\]*)\}")
LONGEST_NUMBER = 1000
"""Longest text that is read as a number, in characters."""


@dataclass(frozen=True)
class Number:
    """An exact rational number."""

    value: Fraction
    places: int = 0
    """Decimal places as written."""
    percent: bool = False


def cleaned(answer: str) -> str:
    r"""The answer without notation that has no meaning: enclosing dollars, thin spaces, \left, a final full stop."""
    text = " ".join(answer.translate(_LETTERS).split())
    text = re.sub(r"\\!|\\left(?![a-zA-Z])|\\right(?![a-zA-Z])", "", text)
    text = re.sub(r"\\[,;: ]|\\q?quad(?![a-zA-Z])|~", " ", text).replace("{,}", ",")
    text = re.sub(r"\\[dtc]frac(?![a-zA-Z])", r"\\frac", text)
    text = re.sub(r"\^ ?(?:\{ ?\\circ ?\}|\\circ(?![a-zA-Z]))", r"^\\circ", text)
    before = None
    while text != before:
        before = text = text.strip()
        for opening, closing in _ENCLOSING:
            inner = text[len(opening) : -len(closing)]
            if len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing):
                text = inner if opening not in inner and not inner.endswith("\\") else text
        text = re.sub(r"(?<=[^\s.])\.$|[,;]$", "", text)
    return text


def number(text: str) -> Number | None:
    r"""The number that a `cleaned` text is (1,000, -.5, 3/4, \frac{3}{4}, 50\%, \$18); None if it is not a number."""
    text = text.removesuffix("^\\circ").strip()
    if not text or len(text) > LONGEST_NUMBER:
        return None
    if found := _DECIMAL.fullmatch(text):
        sign, whole, decimals, percent = found.groups()
        if not whole and not decimals:
            return None
        digits = re.sub("[, ]", "", whole or "0")
        value = Fraction(int(digits + (decimals or "")), 10 ** len(decimals or ""))
        return Number(-value if sign == "-" else value, len(decimals or ""), bool(percent))
    if found := _RATIO.fullmatch(text):
        sign, above, below, percent = found.groups()
    elif found := _FRAC.fullmatch(text):
        sign, *parts, percent = found.groups()
        above, below = (parts[0] or parts[1]), (parts[2] or parts[3])
    else:
        return None
    numerator, denominator = (int(re.sub("[, ]", "", part)) for part in (above, below))
    if denominator == 0:
        return None
    value = Fraction(numerator, denominator)
    return Number(-value if sign == "-" else value, 0, bool(percent))


def same_number(a: Number, b: Number) -> bool:
    """Whether a equals b, or is b rounded to `DECIMALS` or more places, or the reverse.

    50% equals both 50 and 1/2, as in math-verify.
    """
    return any(
        x == y or _rounds_to(x, y, b.places) or _rounds_to(y, x, a.places)
        for x in {a.value, a.value / 100 if a.percent and not b.percent else a.value}
        for y in {b.value, b.value / 100 if b.percent and not a.percent else b.value}
    )


def quick_verdict(reference: str, answer: str) -> bool | None:
    """Whether two `cleaned` answers are the same; None if only computer algebra can decide."""
    if _tight(reference) == _tight(answer):
        return True
    known, given = number(reference), number(answer)
    if known is not None and given is not None:
        return same_number(known, given)
    words, said = _words(reference), _words(answer)
    if words is not None and said is not None:
        if words.casefold() == said.casefold():
            return True
        if words != reference:  # the reference is marked as text (\text{...}), so it is not a product of variables
            return False
    return None


def _rounds_to(value: Fraction, rounded: Fraction, places: int) -> bool:
    return places >= DECIMALS and rounded != 0 and round(value, places) == rounded


def _tight(text: str) -> str:
    """Without spaces, except between letters and digits, where they have a meaning."""
    return re.sub(r"(?<![a-zA-Z0-9]) | (?![a-zA-Z0-9])", "", text)


def _words(text: str) -> str | None:
    r"""The words that an answer consists of, with or without \text; None if it has other content."""
    bare = " ".join(_WORDS.sub(r"\1", text).split()).strip("() ")
    return bare if re.fullmatch(r"[^\W\d_]+(?:[ '-][^\W\d_]+)*", bare) else None
