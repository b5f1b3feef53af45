"""Texts in one notation, numbers, and inequalities as intervals."""

from __future__ import annotations

from fractions import Fraction

import pytest

from viprl.rewards.grading.inequalities import Region, comparable, region
from viprl.rewards.grading.notation import cleaned
from viprl.rewards.grading.rationals import number, scientific


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("√(1+√2)", r"\sqrt{1+\sqrt{2}}"), ("x²³", "x^{23}"), ("a₁₀", "a_{10}"), ("√¾", r"\sqrt{\frac{3}{4}}"),
        ("$\\left(2,\\ 5\\right)$.", "(2, 5)"), ("\\(5\\);", "5"), ("$;", "$"), (" , ;", ""), ("ｘ＋１", "x+1"),
        ("(\\sin 30^\\circ)", r"(\sin(\frac{30\pi}{180}))"), ("2 1/2, 3 1/4", r"2\frac{1}{2}, 3\frac{1}{4}"),
        ("1 000/3", "1 000/3"), ("4 10/3", "4 10/3"), ("1 1/2/3", "1 1/2/3"), ("inflation", "inflation"),
        ("spin", "spin"), (r"\operatorname{arcsin}(1)", r"\operatorname{arcsin}(1)"), ("1.234.567", "1234567"),
        ("1.234", "1.234"), ("5'100", "5100"), ("5'10", "5'10"), (r"\text{E}", r"\text{E}"), (r"2\text{e}", "2e"),
    ],
)  # fmt: skip
def test_cleaned(answer, text):
    assert cleaned(answer) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.5e3", 1500), ("-2E-2", Fraction(-1, 50)), (r"3 \times 10^{-5}", Fraction(3, 10**5)), ("10^5", 10**5),
        ("1,500e2", 150_000), (r"2\frac{1}{2}", Fraction(5, 2)), (r"-2\frac12", Fraction(-5, 2)),
        (r"0.1\overline{6}", Fraction(1, 6)), (r".\overline{09}", Fraction(1, 11)), (r"\$18", 18),
        ("€2.50", Fraction(5, 2)), ("e3", None), ("2e", None), ("3e^2", None), ("1e1000", None),
        ("10^{99999}", None), (r"2\frac{3}{2}", None),
        ("1/0", None), (r"\frac{1}{0}", None), ("", None), (".", None), ("9" * 1001, None), ("1.2.3", None),
    ],
)  # fmt: skip
def test_number(text, value):
    found = number(text)
    assert (found and found.value) == value


@pytest.mark.parametrize(
    ("pair", "forms"),
    [
        (("(1e3,2)", "x"), (r"(1 \cdot 10^{3},2)", "x")), (("2e-1", "-1+2e"), ("2e-1", "-1+2e")),
        (("1e5x", "1e5"), ("1e5x", "1e5")), (("e1e", "x_1e5"), ("e1e", "x_1e5")),
    ],
)  # fmt: skip
def test_scientific_notation_inside_answers(pair, forms):
    assert scientific(*pair) == forms


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("x<3", Region("x", r"(-\infty,3)")), (r"5 \ge t > -1", Region("t", "(-1,5]")),
        ("3<=x", Region("x", r"[3,\infty)")),
        (r"x\le 1\text{ or }x>2", Region("x", r"(-\infty,1] \cup (2,\infty)")),
        (r"x \in (1,2)", Region("x", "(1,2)")),
        (r"\{x \mid x \ne 0\}", Region("x", r"(-\infty,0) \cup (0,\infty)")),
        (r"\theta < \pi", Region(r"\theta", r"(-\infty,\pi)")),
        ("2x+3<7", None), ("x<2x", None), ("x<3, x>1", None), ("x<1 or y>2", None), ("1<x>2", None), ("1<2<3", None),
        ("x=3", None), ("5", None), ("<", None), ("x<", None), (r"\{y : x < 3\}", None), ("x<1 or 5", None),
        ("a<b<c<d", None),
    ],
)  # fmt: skip
def test_region(text, found):
    assert region(text) == found


def test_two_inequalities_of_different_variables_stay():
    assert comparable("x<3", "y<3") == ("x<3", "y<3")
    assert comparable("x<3", "3>x") == (r"(-\infty,3)", r"(-\infty,3)")
    assert comparable("2x<6", r"(-\infty,3)") == ("2x<6", r"(-\infty,3)")
