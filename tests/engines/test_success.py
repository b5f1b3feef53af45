"""Which reward decides about success, and the check of the first batch."""

import functools
import math
from types import SimpleNamespace

import numpy as np
import pytest

from viprl import VIP
from viprl.engines.planned_batch import PlannedBatch
from viprl.engines.success import SuccessCriterion, reward_name
from viprl.errors import InputError
from viprl.utils.comparisons import Comparison


def exact(completions): ...


def length(completions): ...


FUNCTIONS = [exact, length]


@pytest.mark.parametrize(
    ("success", "column", "rule"),
    [
        ("exact", "exact", None),
        ("length >= 0.5", "length", 0.5),
        ("length>0.5", "length", Comparison(">", 0.5)),
        ("length <= -1e3", "length", Comparison("<=", -1000.0)),
        ("length<2", "length", Comparison("<", 2.0)),
        ("exact==1", "exact", Comparison("==", 1.0)),
        (">=0.5", None, 0.5),
        ("<3", None, Comparison("<", 3.0)),
        (np.float32(0.5), None, 0.5),
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
        ("accuracy", FUNCTIONS, "'accuracy'.*exact, length"),
        ("exact>=much", FUNCTIONS, "'much'"),
        ("exact>=inf", FUNCTIONS, "'inf'"),
        ("exact=0.5", FUNCTIONS, "'exact=0.5'"),
        ("exact>=0.5>=0.1", FUNCTIONS, "'exact>=0.5>=0.1'"),
        ("exact>0.5 and length<3", FUNCTIONS, "several comparisons"),
        ("exact>=", FUNCTIONS, "''"),
        ("exact", [exact, exact], "2 rewards have this name"),
        ("partial>=0.5", [functools.partial(exact), length], "'partial'.*exact, length"),
        ("nowhere:function", FUNCTIONS, "nowhere:function"),
        (10**400, FUNCTIONS, "threshold"),
    ],
)
def test_success_that_cannot_be_used(success, functions, named):
    with pytest.raises(ValueError, match=named):
        SuccessCriterion(success, functions)


class Grader:
    def __call__(self, completions): ...

    def graded(self, completions): ...


def decorated(function):
    @functools.wraps(function)
    def inner(completions): ...

    return inner


class Model:
    """A reward model, as far as its name is concerned."""

    def __init__(self, path):
        self.config = SimpleNamespace(_name_or_path=path)

    def parameters(self): ...


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (exact, "exact"),
        (functools.partial(functools.partial(exact, a=1), b=2), "exact"),
        (functools.partial(Grader()), "Grader"),
        (Grader(), "Grader"),
        (Grader().graded, "graded"),
        (decorated(length), "length"),
        (lambda completions: None, "<lambda>"),
        (Model("org/grader-1b"), "grader-1b"),
        (Model("/folder/judge"), "judge"),
        ("org/grader-1b", "grader-1b"),
    ],
)
def test_every_kind_of_reward_has_a_name_that_success_takes(function, name):
    assert reward_name(function) == name
    for success, rule in ((name, None), (f"{name}>=0.5", 0.5), (f"{name} < 2", Comparison("<", 2.0))):
        criterion = SuccessCriterion(success, [function, length if name != "length" else exact])
        assert (criterion.column, criterion.rule) == (name, rule)
        later = SuccessCriterion(success, complete=False)
        assert (later.column, later.rule) == (name, rule)


def observed(criterion, rewards, deciding=None):
    vip = VIP(features="none", cache=None)
    prompts = [f"prompt {q}" for q in range(len(rewards))]
    batch = PlannedBatch(prompts, np.array(list(map(len, rewards))), np.ones(len(prompts)))
    return criterion.observe(vip, batch, rewards, rewards if deciding is None else deciding)


def test_values_are_read_with_the_precision_of_rewards():
    """0.7 in 32 bits is less than 0.7, and 0.7 + 0.1 in 64 bits is less than 0.8."""
    for success, value in ((0.7, float(np.float32(0.7))), (0.8, 0.7 + 0.1), ("exact==0.1", float(np.float32(0.1)))):
        assert observed(SuccessCriterion(success, [exact]), [[value, 0.05]]).successes.tolist() == [1]


def test_success_is_that_of_the_deciding_values_and_the_rest_that_of_the_rewards():
    seen = observed(SuccessCriterion("exact", FUNCTIONS), [[0.3, 1.3, 0.1]], [[0.0, 1.0, None]])
    assert (seen.successes.tolist(), seen.judged.tolist(), seen.rollouts.tolist()) == ([1], [2], [3])
    assert seen.reward_mean[0] == pytest.approx(1.7 / 3)


@pytest.mark.parametrize(("rewards", "successes"), [([[0, 1, 1]], 2), ([[-1, 1]], 1), ([[0.1, 1]], math.nan)])
def test_without_the_option_only_some_rewards_say_what_success_is(rewards, successes, caplog):
    np.testing.assert_array_equal(observed(SuccessCriterion(None, FUNCTIONS), rewards).successes, [successes])
    assert not caplog.records


def test_a_first_batch_without_any_reward_causes_one_warning(caplog):
    check = SuccessCriterion(None)
    for values in ([None, None], [math.nan, None], [0.3, None]):
        observed(check, [values])
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_criterion_that_judges_nothing_causes_one_warning(caplog):
    check = SuccessCriterion("exact", FUNCTIONS, option="trainer.success")
    for _ in range(2):
        observed(check, [[0.3, 0.5]])
    warned = [record.getMessage() for record in caplog.records if "trainer.success" in record.getMessage()]
    assert len(warned) == 1 and "0.3" in warned[0]


def test_rewards_that_are_known_later():
    late = SuccessCriterion("Room", [exact], complete=False, option="trainer.success")
    late.bind(["exact", "Room"])
    with pytest.raises(InputError, match=r"trainer\.success.*'Room'.*exact"):
        late.bind(["exact"])


def test_values_are_split_by_prompt():
    batch = PlannedBatch(["a", "b", "c"], np.array([2, 0, 3]), np.ones(3))
    assert (
        batch.split([1, None, 2, "x", 3]) == batch.split(np.array([1, None, 2, "x", 3])) == [[1, None], [], [2, "x", 3]]
    )
