"""Visits with counts and with rewards in one log."""

from __future__ import annotations

import math

import numpy as np
import pytest

from viprl.runs.visits import Visit, of_one_kind


def rewarded(*rewards, successes=math.nan):
    return Visit(len(rewards), successes, np.array(rewards))


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_rewards_with_the_values_of_success_and_failure_become_counts(low):
    assert of_one_kind([[rewarded(1.0, low, low), Visit(4, 3)], [rewarded(low)]]) == [
        [Visit(3, 1), Visit(4, 3)],
        [Visit(1, 0)],
    ]


@pytest.mark.parametrize(
    ("given", "failure"),
    [
        (rewarded(0.1, 1.0), 0.0),
        (rewarded(-1.0, 0.5), -1.0),
        (rewarded(-1.0, 0.0, 1.0), 0.0),
        (rewarded(0.0, 1.0, successes=0), 0.0),  # success is something else than the reward
    ],
)
def test_counts_become_rewards_where_other_visits_have_them(given, failure):
    ((first, second),) = of_one_kind([[given, Visit(3, 1)]])
    assert first is given and second.rewards.tolist() == [1.0, failure, failure] and second.successes == 1


def test_a_log_of_counts_stays_as_it_is():
    assert of_one_kind([[Visit(3, 1)], [Visit(2, 2), Visit(2, 0)]]) == [[Visit(3, 1)], [Visit(2, 2), Visit(2, 0)]]
