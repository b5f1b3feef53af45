"""Budgets and bounds of any size and type: counts sum to the budget, or an error names the option."""

from __future__ import annotations

import math
import sys
import warnings
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from viprl.allocation.budget import Budget, bounds, default_max_rollouts
from viprl.allocation.optimum import allocate, allocate_weights
from viprl.errors import InputError
from viprl.predictors.base import Prediction
from viprl.strategies import STRATEGIES
from viprl.utils.sequences import LARGEST
from viprl.vip import VIP

RULES = {type(build().rule).__name__: build().rule for _, build in STRATEGIES.values()}


@pytest.mark.parametrize(
    "most", [math.inf, sys.maxsize, 2**62, 1e19, 10**30, np.float32("inf"), [math.inf, 2**63], None]
)
def test_no_limit(most: Any) -> None:
    np.testing.assert_array_equal(allocate([0.5, 0.5], budget=32, max_rollouts=most).counts, [16, 16])


def test_one_limit_among_none() -> None:
    np.testing.assert_array_equal(
        allocate([0.5] * 3, budget=32, max_rollouts=[math.inf, 4, math.inf]).counts, [14, 4, 14]
    )


@pytest.mark.parametrize("least", [2**62, sys.maxsize, 10**30, math.inf, 1e19, [2, 2**62], 12])
def test_bounds_that_no_budget_meets(least: Any) -> None:
    with pytest.raises(InputError, match="min_rollouts"):
        allocate([0.5, 0.5], budget=10, min_rollouts=least)


@pytest.mark.parametrize("least", [2**63, math.inf, 7.5])
def test_a_bound_of_vip_that_is_refused_is_named(least: Any) -> None:
    with pytest.raises(InputError, match="min_rollouts is"):
        VIP(min_rollouts=least, features=None, cache=None)


@pytest.mark.parametrize(
    "budget", [10.5, "10", True, None, math.nan, math.inf, -1, 0, 10**18, 10**30, [10], Decimal("0.5"), 1j]
)
def test_budgets_that_are_refused(budget: Any) -> None:
    with pytest.raises(InputError, match="budget"):
        allocate([0.5, 0.5], budget=budget)


@pytest.mark.parametrize("budget", [10, 10.0, np.int8(10), np.uint64(10), np.float16(10), np.array(10), Decimal(10)])
def test_budgets_of_other_types(budget: Any) -> None:
    assert allocate([0.5, 0.5], budget=budget).counts.tolist() == [5, 5]


@pytest.mark.parametrize(
    "given_bounds", [[2, 3], (2, 3), np.array([2, 3]), np.array([2.0, 3.0]), iter([2, 3]), {1: 2, 0: 3}.values()]
)
def test_bounds_of_each_prompt(given_bounds: Any) -> None:
    assert bounds("min_rollouts", given_bounds, 2).tolist() == [2, 3]


@pytest.mark.parametrize(
    "given_bounds", [[2, 3, 4], [2.5, 3], [[2], [3]], {2, 3}, {0: 2, 1: 3}, "23", ["2", "3"], [None, 2]]
)
def test_bounds_that_are_refused(given_bounds: Any) -> None:
    with pytest.raises(InputError, match="min_rollouts"):
        allocate([0.5, 0.5], budget=10, min_rollouts=given_bounds)


def test_bounds_in_a_column_with_another_index() -> None:
    pandas = pytest.importorskip("pandas")
    least = pandas.Series([2, 3, 4], index=[2, 0, 1])
    assert bounds("min_rollouts", least, 3).tolist() == [2, 3, 4]
    p = pandas.Series([0.5, 0.0, 0.5], index=[9, 8, 7])
    np.testing.assert_array_equal(allocate(p, budget=12).counts, allocate([0.5, 0, 0.5], budget=12).counts)


@given(st.integers(1, 6), st.integers(12, LARGEST), st.data())
@settings(max_examples=60, deadline=None)
def test_every_rule_spends_exactly_the_budget(prompts: int, total: int, data: st.DataObject) -> None:
    total = max(total, 6 * prompts)
    least = data.draw(st.lists(st.integers(3, max(3, total // prompts)), min_size=prompts, max_size=prompts))
    most = [
        data.draw(st.sampled_from([math.inf, 2**62, max(n, -(-total // prompts)), max(n, total // 2, 6 * n)]))
        for n in least
    ]
    p = np.array(data.draw(st.lists(st.sampled_from([0, 1e-9, 0.1, 0.5, 0.9, 1]), min_size=prompts, max_size=prompts)))
    try:
        budget = Budget.of(prompts, total, least, most, data.draw(st.sampled_from(["rloo", "dr_grpo"])))
    except InputError:
        assert sum(least) > total or sum(most) < total
        return
    for name, rule in RULES.items():
        if name != "Knapsack" or total < 10_000:  # one rollout at a time
            counts = rule(Prediction(p, p * (1 - p)), budget, np.random.default_rng(0))
            assert sum(counts.tolist()) == total, name
            assert (counts >= budget.min_rollouts).all() and (counts <= budget.max_rollouts).all(), name


@pytest.mark.parametrize("scale", [1e300, 1e-300, 1e-320, 1.0])
def test_weights_of_any_scale(scale: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = allocate_weights([scale, 0.0, scale], budget=20)
    np.testing.assert_array_equal(found.counts, [9, 2, 9])
    assert 0 < found.variance_ratio < 1


@pytest.mark.parametrize(
    "weights", [[1e308] * 2, [math.inf, 1], [-1e-9, 1], [math.nan, 1], [None, 1], ["1", 1], {1, 2}]
)
def test_weights_that_are_refused(weights: Any) -> None:
    with pytest.raises(InputError, match="weights"):
        allocate_weights(weights, budget=20)


def test_default_bound_of_huge_budgets() -> None:
    assert default_max_rollouts(4, 10, 2) == 15
    assert default_max_rollouts(2, LARGEST, 2) == LARGEST
    assert default_max_rollouts(2, np.int32(2**30), [2, 3]) == 3 * 2**30
    for total in ("12", None, 2.5, 2**62):
        with pytest.raises(InputError, match="budget"):
            default_max_rollouts(2, total, 2)  # type: ignore[arg-type]


def test_an_allocation_is_shown_in_one_line() -> None:
    small, large = allocate([0.5, 0.1], budget=9), allocate([0.5] * 500, budget=4000)
    assert repr(small.counts.tolist()) in repr(small)
    assert all(len(repr(one)) < 120 and "\n" not in repr(one) for one in (small, large))
