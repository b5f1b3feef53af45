"""Final answers of completions."""

from __future__ import annotations

import pytest

from viprl.rewards.grading.extract import boxed, last_number


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{5}.", "5"), (r"\boxed{1} no, \boxed{2}", "2"), (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"), (r"\boxed{\left\{1,2\right.}", r"\left\{1,2\right."), (r"\fbox{7}", "7"),
        (r"\boxed 5", "5"), (r"\boxed {5}", "5"), (r"\boxed{\boxed{5}}", "5"), (r"\boxed{ 5 }", "5"),
        (r"\boxed{}", ""),
        (r"\boxed{1} and \boxed{2", None), (r"\boxed{5\}", None), ("5", None), ("", None), (r"\boxedx{5}", None),
        (r"\boxed{" + "{" * 10_000_000, None), (r"\boxed{5}" + "x" * 1_000_000, "5"), (r"\boxed{\\}", r"\\"),
    ],
)  # fmt: skip
def test_boxed(text, answer):
    assert boxed(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 5.", "5"), ("5 and then 1,234.50 dollars", "1,234.50"), ("x = -3", "-3"), ("5-3", "3"),
        ("= −3", "−3"),
        ("$18", "$18"), (r"\$18.", r"\$18"), ("it is 3/4 of it", "3/4"), (r"\frac{3}{4}$", r"\frac{3}{4}"),
        (r"half, \frac12.", r"\frac12"), (r"\dfrac 1{20}", r"\dfrac 1{20}"), (r"\boxed{-\tfrac{1}2}", r"-\tfrac{1}2"),
        ("50%", "50%"),
        (r"50\%", r"50\%"), (".5", ".5"), ("no number", None), ("", None), ("#### 18", "18"),
        ("7 " + "x" * 100_000, "7"),
        ("9" * 10_000_000, None), ("1,2", "2"), ("it is 1.5e3.", "1.5e3"), ("2e and 3e^2", "2"),
        (r"so 3 \times 10^{-5}", r"3 \times 10^{-5}"),
        ("3×10⁻⁵ m", "3×10⁻⁵"), ("2 x 10 = 20", "20"), (r"is $2\frac{1}{2}$", r"$2\frac{1}{2}"),
        ("2 1/2 cups", "2 1/2"), ("of 3 10/5", "10/5"), ("step 2: 1/2", "1/2"), ("12,345,678", "12,345,678"),
        (r"\boxed{42}", "42"), ("٣", None),
        ("of 2½ cups.", r"2\frac{1}{2}"), ("= −½", r"−\frac{1}{2}"), ("⅓ of 6 is 2", "2"),
    ],
)  # fmt: skip
def test_last_number(text, answer):
    assert last_number(text) == answer
