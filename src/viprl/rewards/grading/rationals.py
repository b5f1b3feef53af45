"""Answers that are rational numbers, read exactly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

DECIMALS = 6
"""A decimal with at least this many places equals every number that rounds to it: .333333 is 1/3, as in math-verify."""
DIGITS = 4
"""And at least this many significant digits, so that .000030 is not .0000304."""
FLOAT_DIGITS = 15
"""Significant digits that a float holds."""
LONGEST_NUMBER = 1000
"""Longest text that is read as a number, in characters."""

_WHOLE = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+)"
_CURRENCY = r"(?:\\?\$|[€£¥₹]|\\(?:euro|pounds)(?![a-zA-Z]) ?)?"
_POWER_OF_TEN = r"10 ?\^ ?(?:\{ ?([-+]?\d{1,3}) ?\}|([-+]?\d{1,3}))"
_EXPONENT = rf"(?:[eE]([-+]?\d{{1,3}})|(?: ?(?:\\times|\\cdot|\*|x) ?){_POWER_OF_TEN})?"
_DECIMAL = re.compile(rf"([-+]?) ?{_CURRENCY}({_WHOLE}?)(?:\.(\d*))?{_EXPONENT}(\\?%)?", re.ASCII)
_POWER = re.compile(rf"([-+]?) ?{_POWER_OF_TEN}", re.ASCII)
_RATIO = re.compile(rf"([-+]?) ?({_WHOLE}) ?/ ?({_WHOLE})(\\?%)?", re.ASCII)
_PART = r"(?:\{ ?([-+]?\d+) ?\}|(\d))"
_FRAC = re.compile(rf"([-+]?) ?(\d*) ?\\frac ?{_PART} ?{_PART}(\\?%)?", re.ASCII)
_REPEATING = re.compile(r"([-+]?)(\d*)\.(\d*)\\(?:overline|bar|dot) ?(?:\{(\d+)\}|(\d))", re.ASCII)

_E_NOTATION = re.compile(r"(?<![\w.\\}])(\d+(?:\.\d*)?|\.\d+)[eE]([-+]?\d{1,3})(?![\w.^])", re.ASCII)
_EULER = re.compile(r"(?<![a-zA-Z\\])e(?![a-zA-Z])")


@dataclass(frozen=True)
class Number:
    """An exact rational number."""

    value: Fraction
    places: int = 0
    """Decimal places as written."""
    digits: int = 0
    """Significant digits as written; 0 for a fraction."""
    percent: bool = False


def number(text: str) -> Number | None:
    r"""The number that a `cleaned` text is; None if it is not a number.

    Examples: 1,000, -.5, 1.5e3, 3 \times 10^{-5}, 3/4, \frac{3}{4}, 2\frac{1}{2}, 0.\overline{3}, 50\%, \$18.
    """
    text = text.removesuffix("^\\circ").strip()
    if not text or len(text) > LONGEST_NUMBER:
        return None
    for pattern, read in (
        (_DECIMAL, _decimal),
        (_POWER, _power),
        (_RATIO, _ratio),
        (_FRAC, _frac),
        (_REPEATING, _cycle),
    ):
        if found := pattern.fullmatch(text):
            return read(*found.groups())
    return None


def same_number(a: Number, b: Number) -> bool:
    """Whether a equals b, or is b rounded to `DECIMALS` or more places, or printed from a float of b, or the reverse.

    50% equals both 50 and 1/2, as in math-verify.
    """
    return any(
        x == y or _rounds_to(x, y, b) or _rounds_to(y, x, a) or _float_of(x, y, b) or _float_of(y, x, a)
        for x in {a.value, a.value / 100 if a.percent and not b.percent else a.value}
        for y in {b.value, b.value / 100 if b.percent and not a.percent else b.value}
    )


def scientific(first: str, second: str) -> tuple[str, str]:
    r"""The two answers with 1.5e3 inside them as 1.5 \cdot 10^{3}, unless one has Euler's number, as 2e-1 = -1+2e."""
    forms = tuple(_E_NOTATION.sub(r"\1 \\cdot 10^{\2}", text) for text in (first, second))
    return (first, second) if any(map(_EULER.search, forms)) else (forms[0], forms[1])


def _rounds_to(value: Fraction, rounded: Fraction, written: Number) -> bool:
    enough = written.places >= DECIMALS and written.digits >= DIGITS
    return enough and rounded != 0 and round(value, written.places) == rounded


def _float_of(value: Fraction, printed: Fraction, written: Number) -> bool:
    """Whether a decimal is the value as far as the digits of a float go: 0.30000000000000004 is 0.3."""
    long = written.places > 0 and written.digits > FLOAT_DIGITS
    return long and abs(value - printed) * 10**FLOAT_DIGITS <= abs(value)


def _decimal(sign: str, whole: str, decimals: str | None, *rest: str | None) -> Number | None:
    *powers, percent = rest
    if not whole and not decimals:
        return None
    digits, exponent = _digits(whole or "0") + (decimals or ""), int(next(filter(None, powers), "0"))
    value = Fraction(int(digits)) * Fraction(10) ** (exponent - len(decimals or ""))
    places = max(0, len(decimals or "") - exponent)
    return Number(-value if sign == "-" else value, places, len(digits.lstrip("0")), bool(percent))


def _power(sign: str, *exponents: str | None) -> Number:
    value = Fraction(10) ** int(next(filter(None, exponents), "0"))
    return Number(-value if sign == "-" else value)


def _ratio(sign: str, above: str, below: str, percent: str | None = None, whole: str = "") -> Number | None:
    numerator, denominator = int(_digits(above)), int(_digits(below))
    if denominator == 0 or (whole and not 0 <= numerator < denominator):
        return None
    value = int(whole or "0") + Fraction(numerator, denominator)
    return Number(-value if sign == "-" else value, percent=bool(percent))


def _frac(sign: str, whole: str, *rest: str | None) -> Number | None:
    *parts, percent = rest
    above, below = filter(None, parts)
    return _ratio(sign, above, below, percent, whole)


def _cycle(sign: str, whole: str, before: str, *cycles: str | None) -> Number:
    cycle = next(filter(None, cycles), "0")
    digits = Fraction(int(whole + before or "0")) + Fraction(int(cycle), 10 ** len(cycle) - 1)
    value = digits / 10 ** len(before)
    return Number(-value if sign == "-" else value)


def _digits(text: str) -> str:
    return text.replace(",", "").replace(" ", "")
