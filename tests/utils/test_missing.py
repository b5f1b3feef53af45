"""Missing values of Python, NumPy and pandas."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from viprl.utils.missing import is_missing, names_missing


@pytest.mark.parametrize(
    "value", [None, math.nan, np.float32("nan"), np.float16("nan"), Decimal("NaN"), Decimal("sNaN"), np.ma.masked]
)
def test_missing_values(value: Any) -> None:
    assert is_missing(value) is True


def test_missing_values_of_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    assert is_missing(pandas.NA) and is_missing(pandas.NaT)


@pytest.mark.parametrize("value", [0, 0.0, math.inf, "", "nan", False, [], np.array(math.nan), Decimal(0)])
def test_other_values(value: Any) -> None:
    assert is_missing(value) is False


@pytest.mark.parametrize(
    ("text", "missing"),
    [("nan", True), (" NaN ", True), ("<NA>", True), ("NaT", True), ("None", True), ("NULL", True), ("", False),
     ("nano", False), ("0", False)],
)  # fmt: skip
def test_names_of_missing_values(text: str, missing: bool) -> None:
    assert names_missing(text) is missing
