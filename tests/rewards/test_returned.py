"""What reward functions return."""

from __future__ import annotations

import decimal
import fractions
import math

import numpy as np
import pyarrow
import pytest

from refused import refused
from viprl.errors import InputError
from viprl.rewards.returned import returned_rewards


class Scalar:
    """As a tensor without dimensions."""

    ndim = 0

    def __init__(self, value) -> None:
        self.value = value

    def tolist(self):
        return self.value


@pytest.mark.parametrize(
    ("returned", "rewards"),
    [
        ([1, 0.5], [1.0, 0.5]),
        ((True, False), [1.0, 0.0]),
        (np.array([1, 0]), [1.0, 0.0]),
        ([np.float32(1), np.bool_(True)], [1.0, 1.0]),
        ([Scalar(1), Scalar(-1.0)], [1.0, -1.0]),
        (iter([0, 1]), [0.0, 1.0]),
        ([decimal.Decimal(1), fractions.Fraction(1, 2)], [1.0, 0.5]),
        ([np.array([1.0]), np.array([[0.5]])], [1.0, 0.5]),
        (pyarrow.array([1, 0]), [1.0, 0.0]),
    ],
)
def test_rewards_that_an_engine_can_use(returned, rewards):
    assert returned_rewards("f", returned, 2) == rewards


@pytest.mark.parametrize(
    "returned", [np.ma.array([0.5, 1], mask=[1, 0]), pyarrow.array([None, 1]), [decimal.Decimal("sNaN"), 1]]
)
def test_masked_and_null_rewards_are_unscorable(returned):
    np.testing.assert_array_equal(returned_rewards("f", returned, 2), [math.nan, 1])


def test_unscorable_completions():
    found = returned_rewards("f", [None, math.nan, math.inf, -(10**400), 0], 5)
    assert [math.isnan(value) for value in found] == [True, True, False, False, False]
    assert found[2:] == [math.inf, -math.inf, 0]


@pytest.mark.parametrize(
    ("returned", "parts"),
    [
        (None, ["None", "return"]),
        ("10", ["'10'"]),
        (b"10", ["b'10'"]),
        ({"a": 1, "b": 0}, ["{'a': 1, 'b': 0}"]),
        ({1, 0}, ["{0, 1}"]),
        (1.0, ["1.0"]),
        (np.array(1.0), ["array(1.)"]),
        (Scalar(1.0), ["Scalar"]),
        ([1.0], ["1 value,", "[1.0]"]),
        ([1, 0, 1], ["3 values", "[1, 0, 1]"]),
        (["1", "0"], ["'1'", "value 1", "str"]),
        ([1, "good"], ["'good'", "value 2"]),
        ([[1], [0]], ["[1]", "list"]),
        (np.ones((2, 1)), ["(2, 1)"]),
        ([1, 1j], ["1j", "complex"]),
        ([{"score": 1}, {"score": 0}], ["{'score': 1}", "dict"]),
        (object(), ["object"]),
        (memoryview(b"10"), ["memory"]),
    ],
)
def test_anything_else_is_named(returned, parts):
    with refused(InputError, "reward f returned", "2 completions", "list of 2 numbers", *parts):
        returned_rewards("f", returned, 2)
