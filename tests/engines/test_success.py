"""Which reward decides about success, and the check of the first batch."""

import math

import numpy as np
import pytest

from viprl import VIP
from viprl.engines.planned_batch import PlannedBatch
from viprl.engines.success import SuccessCriterion
from viprl.errors import InputError


def exact(completions): ...


def length(completions): ...


FUNCTIONS = [exact, length]


@pytest.mark.parametrize(
    ("success", "column", "rule"),
    [
        ("exact", "exact", None),
        ("length >= 0.5", "length", 0.5),
        ("1.5", None, 1.5),
        (0.5, None, 0.5),
        ("math:isfinite", None, math.isfinite),
    ],
)
def test_the_column_and_the_rule(success, column, rule):
    criterion = SuccessCriterion(success, FUNCTIONS)
    assert (criterion.column, criterion.rule) == (column, rule)
    criterion.bind(["exact", "length"])
    values, total = np.array([[1.0, 3.0], [0.0, 4.0]]), np.array([4.0, 4.0])
    expected = {"exact": [1, 0], "length": [3, 4], None: [4, 4]}[column]
    assert criterion.values(values, total).tolist() == expected


@pytest.mark.parametrize(
    ("success", "functions", "named"),
    [
        (None, FUNCTIONS, "2 reward functions"),
        (None, ["some/reward-model"], "reward model"),
        ("accuracy", FUNCTIONS, "'accuracy'.*exact, length"),
        ("exact>=much", FUNCTIONS, "'much'"),
        ("exact>=inf", FUNCTIONS, "'inf'"),
        ("exact>0.5", FUNCTIONS, "'exact>0.5'"),
        ("nowhere:function", FUNCTIONS, "nowhere:function"),
    ],
)
def test_success_that_cannot_be_used(success, functions, named):
    with pytest.raises(ValueError, match=named):
        SuccessCriterion(success, functions)


def test_rewards_that_are_known_later():
    late = SuccessCriterion("Room", [exact], complete=False, option="trainer.success")
    late.bind(["exact", "Room"])
    with pytest.raises(InputError, match=r"trainer\.success.*'Room'.*exact"):
        late.bind(["exact"])
    alone = SuccessCriterion(None, [])
    alone.bind(["Room"])  # a single environment is unambiguous
    with pytest.raises(InputError):
        SuccessCriterion(None, [exact], complete=False).bind(["exact", "Room"])


def test_values_are_split_by_prompt():
    batch = PlannedBatch(["a", "b", "c"], np.array([2, 0, 3]))
    assert (
        batch.split([1, None, 2, "x", 3]) == batch.split(np.array([1, None, 2, "x", 3])) == [[1, None], [], [2, "x", 3]]
    )


def test_a_first_batch_without_a_readable_reward():
    vip, check = VIP(features="none", cache=None), SuccessCriterion(None, option="trainer.success")
    batch = PlannedBatch(["a", "b"], vip.allocate(["a", "b"], 4).counts)
    with pytest.raises(InputError, match=r"0\.3.*trainer\.success"):
        check.observe(vip, batch, [[None, math.nan], [0.3, 0.3]])
    vip.allocate(["a", "b"], 4)
    check.observe(vip, batch, [[0.3, 0.3], [0.3, 0.3]])  # later batches only cause warnings
    for values in ([[None, None], [None, None]], [[0.3, 0.3], [0.3, 1.0]]):
        vip.allocate(["a", "b"], 4)
        SuccessCriterion(None).observe(vip, batch, values)
