"""Sequences and numbers of any library, converted or refused."""

from __future__ import annotations

import math
from collections import UserDict, UserList, deque
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from viprl.errors import InputError
from viprl.utils.sequences import (
    LARGEST,
    check_choice,
    listed,
    numbers,
    positive_number,
    to_float,
    whole_number,
    whole_numbers,
)


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    "value",
    [
        ["a", "b"],
        ("a", "b"),
        deque(["a", "b"]),
        UserList(["a", "b"]),
        np.array(["a", "b"]),
        np.array(["a", "b"], dtype=object),
        iter(["a", "b"]),
        map(str, ["a", "b"]),
        {"a": 1, "b": 2}.keys(),
        {1: "a", 2: "b"}.values(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_sequences(value: Any) -> None:
    assert listed("prompts", value) == ["a", "b"]


def test_sequences_of_other_libraries() -> None:
    pandas, pyarrow, torch = (pytest.importorskip(name) for name in ("pandas", "pyarrow", "torch"))
    column = pandas.DataFrame({"x": ["b", "a"]}, index=[1, 0])["x"]
    for value in (column, column.astype("category"), column.astype("string"), pandas.Index(["b", "a"])):
        assert listed("prompts", value) == ["b", "a"]
    for value in (pyarrow.array(["b", "a"]), pyarrow.chunked_array([["b"], ["a"]])):
        assert listed("prompts", value) == ["b", "a"]
    for tensor in (torch.tensor([1.0, 0.0], requires_grad=True), torch.tensor([1, 0], dtype=torch.bfloat16)):
        assert listed("rewards", tensor) == [1, 0]
    assert listed("rewards", torch.eye(2)) == [[1, 0], [0, 1]]
    for table in (pandas.DataFrame({"x": [1]}), pandas.DataFrame({"x": [1]}).groupby("x")):
        with pytest.raises(InputError):
            listed("prompts", table)


@pytest.mark.parametrize(
    "value",
    ["ab", b"ab", bytearray(b"ab"), memoryview(b"ab"), {"a": 1}, UserDict(a=1), {"a", "b"}, frozenset("ab"),
     np.array("a"), np.array(1.0), 5, 1.5, None, True, Unprintable(), object],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_no_sequence(value: Any) -> None:
    with pytest.raises(InputError) as error:
        listed("prompts", value)
    assert isinstance(error.value, TypeError) and "prompts" in str(error.value)


@pytest.mark.parametrize(
    ("value", "number"),
    [(1, 1), (True, 1), (np.float32(0.5), 0.5), (np.bool_(False), 0), (np.array(2), 2), (Decimal("0.5"), 0.5),
     (Fraction(1, 4), 0.25), (None, math.nan), (math.inf, math.inf), (np.ma.masked, math.nan),
     (np.array([0.5]), 0.5), (np.array([[2]]), 2)],
)  # fmt: skip
def test_one_number(value: Any, number: float) -> None:
    assert to_float(value) == pytest.approx(number, nan_ok=True)


@pytest.mark.parametrize("value", ["1.0", b"1", [1.0], {}, 1j, object(), 10**400, np.array([1.0, 1.0]), Unprintable()])
def test_what_is_no_number(value: Any) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        to_float(value)
    with pytest.raises(InputError, match="entry 1"):
        numbers("weights", [0.5, value])


def test_masked_numbers_are_missing() -> None:
    masked = np.ma.array([1.0, 2.0], mask=[True, False])
    np.testing.assert_array_equal(numbers("rewards", masked), [math.nan, 2])
    with pytest.raises(InputError, match="entry 0"):
        whole_numbers("counts", np.ma.array([1, 2], mask=[True, False]))


def test_missing_numbers_of_pandas_and_scalars_of_torch() -> None:
    pandas, torch = pytest.importorskip("pandas"), pytest.importorskip("torch")
    read = numbers("rewards", [pandas.NA, pandas.NaT, torch.tensor(0.5), torch.tensor(1.0, requires_grad=True)])
    np.testing.assert_array_equal(read, [math.nan, math.nan, 0.5, 1])


@pytest.mark.parametrize(
    "value", [0, -1, True, "1", math.nan, math.inf, 10**400, Decimal("sNaN"), Decimal("1e-999"), 1j, None]
)
def test_what_is_no_positive_number(value: Any) -> None:
    with pytest.raises(InputError, match="budget"):
        positive_number("budget", value)


@pytest.mark.parametrize("value", ["c", 1, None, np.zeros(0), np.array(["a", "b"]), {}])
def test_what_is_no_choice(value: Any) -> None:
    with pytest.raises(InputError, match="'a' or 'b'"):
        check_choice("kind", value, ("a", "b"))


@pytest.mark.parametrize(
    "value", [8, 8.0, np.int64(8), np.uint8(8), np.float32(8), np.array(8), Decimal(8), Fraction(8)]
)
def test_one_whole_number(value: Any) -> None:
    found = whole_number("budget", value)
    assert found == 8 and type(found) is int


@pytest.mark.parametrize(
    "value",
    [2.5, -1, True, np.bool_(True), "8", b"8", None, math.nan, math.inf, -math.inf, 2**62, 1e19, 10**30, 10**400, [8],
     Fraction(1, 2), Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), 1j, Unprintable()],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_no_whole_number(value: Any) -> None:
    with pytest.raises(InputError, match="budget"):
        whole_number("budget", value)
    with pytest.raises(InputError, match="counts: entry 1"):
        whole_numbers("counts", [1, value])


@pytest.mark.parametrize("value", [LARGEST, 2**62, 2**64, 10**400, 1e19, math.inf, np.float64("inf"), np.uint64(2**63)])
def test_numbers_without_limit(value: Any) -> None:
    assert whole_number("max_rollouts", value, limitless=True) == LARGEST
    np.testing.assert_array_equal(whole_numbers("max_rollouts", [value, 3], limitless=True), [LARGEST, 3])


@given(st.lists(st.integers(0, LARGEST), max_size=5))
def test_whole_numbers_are_exact(values: list[int]) -> None:
    for given_ in (
        values,
        tuple(values),
        np.array(values, dtype=np.int64),
        np.array(values, dtype=float),
        iter(values),
    ):
        found = whole_numbers("counts", given_)
        assert found.dtype == np.int64 and found.tolist() == values
