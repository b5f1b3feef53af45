"""What decides whether a completion is right."""

from __future__ import annotations

import pytest

from refused import refused
from viprl.errors import DataError, InputError
from viprl.evaluate.generations import Generations
from viprl.evaluate.judge import chosen_judge, graded
from viprl.evaluate.problems import Problem
from viprl.evaluate.scores import scores

HERE = "sample_judges"
FOUND = [
    Generations("p", "a", ("a", "b", "a")),
    Generations("q", "b", ("a", "a", "a")),
    Generations("r", "c", ("c", "c", "c")),
]
PROBLEMS = {
    name: Problem(name, prompt, answer, columns={"level": level, "solution": answer, "completions": "reserved"})
    for name, prompt, answer, level in (("p", "a ?", "a", 1), ("q", "b ?", "b", 1), ("r", "c ?", "c", 0))
}


@pytest.mark.parametrize("name", ["equal", "waits"])
def test_a_reward_function_grades_without_a_vote(name):
    judge = chosen_judge(f"{HERE}:{name}")
    found = graded(FOUND, judge, {})
    assert [problem.correct for problem in found] == [(True, False, True), (False,) * 3, (True,) * 3]
    result = scores(found, [1, 3], 0, votes=judge.votes)
    assert set(result.metrics) == {"pass@k", "mean@k"} and result.metrics["pass@k"][3].mean == pytest.approx(2 / 3)
    assert "majority" not in result.problems[0] and "maj@1" not in result.problems[0]


def test_a_function_gets_the_prompts_and_columns_of_the_data_set():
    found = graded(FOUND, chosen_judge(f"{HERE}:first_letter"), PROBLEMS)
    assert [problem.correct for problem in found[:2]] == [(True, False, True), (False,) * 3]
    assert not found[2].scorable and found[2].unreadable == 3
    with refused(InputError, "first_letter", "`level`", "--dataset"):
        graded(FOUND, chosen_judge(f"{HERE}:first_letter"), {})


def test_a_chat_is_answered_by_messages():
    chat = Problem("p", [{"role": "user", "content": "?"}], "a")
    (found,) = graded(FOUND[:1], chosen_judge(f"{HERE}:chats_alone"), {"p": chat})
    assert found.correct == (True, False, True)


def test_success_is_a_threshold():
    for success in (0.5, "0.5"):
        assert graded(FOUND[:1], chosen_judge(f"{HERE}:half", success), {})[0].correct == (True, False, True)
    with refused(DataError, "'p'", "half", "0.5", "--success"):
        graded(FOUND[:1], chosen_judge(f"{HERE}:half"), {})


@pytest.mark.parametrize(
    ("verify", "success", "parts"),
    [
        ("maths", None, ["'maths'", "mean math?"]),
        ("nowhere:f", None, ["nowhere"]),
        (f"{HERE}:equal", "better", ["--success", "'better'"]),
        ("exact_match", 0.5, ["--success", "exact_match"]),
    ],
)
def test_options_that_cannot_be_used(verify, success, parts):
    with refused(InputError, *parts):
        chosen_judge(verify, success)


def test_what_the_function_returns_is_checked():
    with refused(InputError, "reward texts", "'right'", "problem 'p'"):
        graded(FOUND, chosen_judge(f"{HERE}:texts"), {})
    with pytest.raises(KeyError) as error:
        graded(FOUND, chosen_judge(f"{HERE}:broken"), {})
    assert "broken" in error.value.__notes__[0] and "'p'" in error.value.__notes__[0]
