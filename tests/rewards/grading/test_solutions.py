"""Reference answers of solutions of all types."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from viprl.errors import DataError
from viprl.rewards.grading.solutions import reference, text_of


class NAType:
    """As pandas.NA, whose truth value and comparisons raise."""

    def __ne__(self, other):
        raise TypeError

    __hash__ = None


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        # texts
        (" 5 ", "5"), ("so 5\n#### 18", "18"), (r"thus \boxed{\frac12}", r"\frac12"), (np.str_("5"), "5"),
        # missing
        ("", None), (" \n", None), (None, None), ("#### ", None), (float("nan"), None), (np.float32("nan"), None),
        (Decimal("NaN"), None), (NAType(), None), (np.datetime64("NaT").astype("float64") * np.nan, None),
        # numbers
        (5, "5"), (2.5, "2.5"), (5.0, "5"), (-0.5, "-0.5"), (0.00003, "0.00003"), (1e16, "10000000000000000"),
        (1.5e-7, "0.00000015"), (-0.0, "0"), (1e300, "1" + "0" * 300),
        (12345678901234567.0, "12345678901234568"), (np.int64(7), "7"), (np.uint8(7), "7"),
        (np.float32(0.1), "0.1"), (np.float64(3e-5), "0.00003"),
        (np.float16(0.5), "0.5"), (Decimal("3E-5"), "0.00003"), (Decimal("1E+3"), "1000"), (Fraction(3, 4), "3/4"),
        (float("inf"), "inf"), (2**70, str(2**70)),
        # lists and arrays of one
        (["5"], "5"), ([3e-5], "0.00003"), (("x+1",), "x+1"), ([None], None), (np.array([7]), "7"),
        (np.array(7), "7"),
        (np.array(["5"]), "5"), (np.array(["5"], dtype=object), "5"),
    ],
)  # fmt: skip
def test_reference(solution, answer):
    assert reference(solution) == answer


@pytest.mark.parametrize(
    ("solution", "word"),
    [
        (True, "bool"), (np.bool_(True), "bool"), ([True], "bool"), (b"5", "bytes"), ({"target": ["5"]}, "dict"),
        (["5", "7"], "list of 2"), ([], "list of 0"), ([["5"]], "list of 1"), (np.array([1, 2]), "list of 2"),
        ({"5"}, "set"), (1 + 2j, "complex"), (object(), "object"),
    ],
)  # fmt: skip
def test_an_unusable_type_is_named(solution, word):
    with pytest.raises(DataError, match=word):
        text_of(solution)


def test_a_whole_number_that_python_does_not_write():
    with pytest.raises(DataError, match="int"):
        text_of(10**5000)
