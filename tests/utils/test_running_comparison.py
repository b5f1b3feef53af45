"""The comparison of alternatives by their losses in a run."""

from __future__ import annotations

import numpy as np
import pytest

from viprl.errors import StateError
from viprl.utils.running_comparison import RunningComparison


def after(differences, **options) -> RunningComparison:
    comparison = RunningComparison(len(differences[0]), **options)
    for difference in differences:
        comparison.add(np.array(difference, dtype=float))
    return comparison


def test_the_first_is_used_until_another_is_better() -> None:
    assert RunningComparison(3).choice == 0
    assert after([[0, 1, 2]] * 5).choice == 0
    assert after([[0, 0, 0]] * 5).choice == 0
    assert after([[0, -1, -3]] * 5).choice == 2


@pytest.mark.parametrize(("steps", "choice"), [(1, 0), (2, 0), (3, 1), (20, 1)])
def test_one_lucky_step_is_not_enough(steps: int, choice: int) -> None:
    """A constant advantage of 1 in s steps is sqrt(s) standard errors: 1.5 are needed."""
    assert after([[0, -1]] * steps, forgetting_factor=1.0).choice == choice


def test_noise_asks_for_more_evidence() -> None:
    assert after([[0, -6], [0, 5], [0, -6], [0, 5]]).choice == 0
    assert after([[0, -6], [0, 5]] * 4, caution=0.0, forgetting_factor=1.0).choice == 1


def test_evidence_is_forgotten() -> None:
    assert after([[0, -1]] * 20 + [[0, 0.3]] * 30).choice == 0
    assert after([[0, -1]] * 20 + [[0, 0.3]] * 30, forgetting_factor=1.0).choice == 1


def test_the_state() -> None:
    one, other = after([[0, -1, 2]] * 4), RunningComparison(3)
    state = one.state_dict()
    other.load_state_dict(state)
    for comparison in (one, other):
        comparison.add(np.array([0, 9.0, -1]))
    assert one.choice == other.choice
    assert all((one.state_dict()[name] == other.state_dict()[name]).all() for name in state)
    assert state["difference"][1] == pytest.approx(-sum(0.98**i for i in range(4)))  # a snapshot


@pytest.mark.parametrize(
    "damage", [{"difference": np.zeros(2)}, {"squares": -np.ones(3)}, {"squares": np.full(3, np.nan)}]
)
def test_damaged_states_are_refused(damage) -> None:
    one = after([[0, -1, 2]] * 4)
    before = one.state_dict()
    with pytest.raises(StateError):
        one.load_state_dict(before | damage)
    np.testing.assert_array_equal(one.state_dict()["difference"], before["difference"])
