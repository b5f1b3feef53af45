"""What reward functions may return, who gets the blame, and functions that assume groups of equal size."""

from __future__ import annotations

import asyncio
import functools
import math
from collections import deque
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import torch

from viprl.engines.planned_batch import PlannedBatch
from viprl.engines.trl.equal_groups import cuts_equal_groups
from viprl.engines.trl.ragged_advantages import grpo_advantages, rloo_advantages, weighted_total
from viprl.engines.trl.reward_calls import checked
from viprl.errors import InputError

GIVEN = {"prompts": ["p"] * 3, "completions": ["c"] * 3, "completion_ids": [[1]] * 3, "solution": ["s"] * 3}


def returning(value):
    def accuracy(completions, **_):
        return value

    return checked(accuracy, "accuracy", "at training step 2")


@pytest.mark.parametrize(
    "value",
    [
        [1, 0.5, None],
        (True, 0.5, None),
        deque([1, np.float32(0.5), math.nan]),
        [torch.tensor(1.0), np.array([0.5]), None],
        [Decimal(1), Decimal("0.5"), pd.NA],
        np.array([1, 0.5, math.nan]),
        torch.tensor([1, 0.5, math.nan], requires_grad=True),
        pd.Series([1, 0.5, None]),
        (x for x in (1.0, 0.5, None)),
    ],
)
def test_rewards_that_are_numbers(value):
    assert [None if x is None or math.isnan(x) else x for x in returning(value)(**GIVEN)] == [1, 0.5, None]


def test_whole_numbers_beyond_every_float_are_infinite():
    assert returning([10**400, -(10**400), 3])(**GIVEN) == [math.inf, -math.inf, 3]


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("111", "'111'"),
        (None, "None"),
        ([1.0, 0.0], "2 values"),
        (np.ones((3, 1)), "(3, 1)"),
        (torch.ones(3, 3), "(3, 3)"),
        ([1.0, "0.5", 1.0], "'0.5' (value 2"),
    ],
)
def test_rewards_that_are_not_numbers_are_refused_by_name(value, named):
    with pytest.raises(InputError) as error:
        returning(value)(**GIVEN)
    assert "accuracy" in str(error.value) and named in str(error.value)
    assert "'accuracy'" in error.value.__notes__[0] and "step 2" in error.value.__notes__[0]


def test_a_missing_column_names_the_function_and_the_columns():
    def needs(completions, answer):
        return [1.0] * 3

    with pytest.raises(TypeError) as error:
        checked(needs, "needs", "at training step 1")(**GIVEN)
    assert "'needs'" in error.value.__notes__[0] and "solution" in error.value.__notes__[0]


class Judge:
    async def __call__(self, completions, vip_group, **_):
        return [float(group) for group in vip_group]


def test_functions_get_the_groups_if_they_take_them():
    groups = {"vip_group": [0, 0, 1], "vip_rollouts": [2, 2, 1]}
    assert asyncio.run(checked(Judge(), "Judge", "", groups)(**GIVEN)) == [0, 0, 1]
    everything = checked(lambda **given: [len(given["vip_rollouts"])] * 3, "f", "", groups)
    assert everything(**GIVEN) == [3, 3, 3]
    strict = checked(
        functools.partial(lambda prompts, completions, completion_ids, solution: [1, 1, 1]), "f", "", groups
    )
    assert strict(**GIVEN) == [1, 1, 1]
    own = checked(lambda vip_group, **_: vip_group, "f", "", groups)
    assert own(**GIVEN, vip_group=[7, 8, 9]) == [7, 8, 9], "a column of the data set wins"


INF = math.inf


@pytest.mark.parametrize(
    ("rewards", "weights", "total", "unreadable"),
    [
        ([[1.0, 2.0]], [1, 0.5], 2.0, False),
        ([[math.nan, 2.0]], [1, 0.5], 1.0, False),
        ([[math.nan, math.nan]], [1, 1], math.nan, False),
        ([[INF, 2.0]], [0, 0.5], 1.0, False),
        ([[-INF, math.nan]], [1, 1], math.nan, True),
        ([[INF, -INF]], [1, 1], math.nan, True),
        ([[9e29, 9e29]], [1, 1], math.nan, True),
        ([[3.3e38, 1.0]], [1, 1], 1.0, False),
    ],
)
def test_totals_of_rewards_that_cannot_be_trained_on(rewards, weights, total, unreadable):
    found, unread = weighted_total(np.array(rewards), np.array(weights, dtype=float))
    assert found.tolist() == pytest.approx([total], nan_ok=True) and unread.tolist() == [unreadable]


def test_advantages_of_the_largest_rewards_are_finite_in_32_bits():
    total, _ = weighted_total(np.array([[1e30], [-1e30], [INF], [0.0], [1.0], [0.5]]), np.ones(1))
    for scale in ("none", "group", "batch"):
        assert np.isfinite(
            grpo_advantages(
                total, PlannedBatch([], np.array([4, 2]), np.ones(2)), 3, leave_one_out=True, scale=scale
            ).astype("f4")
        ).all()
    for normalize in (False, True):
        assert np.isfinite(
            rloo_advantages(total, PlannedBatch([], np.array([4, 2]), np.ones(2)), normalize=normalize).astype("f4")
        ).all()


N = 4


def by_global(completions, **_):
    return [completions[i : i + N] for i in range(0, len(completions), N)]


def by_literal(completions, **_):
    return np.array(completions).reshape(-1, 4)


def by_option(prompts, trainer):
    return prompts[:: trainer.args.num_generations]


def by_product(completions, **_):
    return [completions[i * N : (i + 1) * N] for i in range(2)]


def by_prompt(prompts, completions, **_):
    """Groups of num_generations rollouts? No: by prompt."""
    return [prompts.count(prompt) for prompt in prompts] + [range(0, 8, 3)]


class Cutting:
    def __init__(self, size):
        self.size = size

    def __call__(self, completions, **_):
        return torch.tensor(completions).view(-1, 4)

    def method(self, completions, **_):
        return by_global(completions)


def closure(size):
    return lambda completions, **_: [completions[i : i + size] for i in range(0, len(completions), size)]


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (by_global, True),
        (by_literal, True),
        (by_option, True),
        (by_product, True),
        (functools.partial(by_global), True),
        (Cutting(4), True),
        (closure(4), True),
        (closure(5), False),
        (by_prompt, False),
        (Cutting(4).method, False),
        (len, False),
        (torch.nn.Linear(1, 1), False),
    ],
)
def test_functions_that_cut_groups_of_equal_size(function, found):
    assert cuts_equal_groups(function, 4) == found
