"""Rewards to outcomes, and statistics of groups."""

from __future__ import annotations

import itertools
import logging
import math

import numpy as np
import pytest

from viprl.errors import InputError
from viprl.outcomes import RewardReader, read_logprobs, scorable, tally
from viprl.reward_groups import GroupOutcomes

NAN = math.nan


@pytest.mark.parametrize(
    ("success", "rewards", "outcomes"),
    [
        (None, [0, 1, 1.0, 0.0, True, False], [0, 1, 1, 0, 1, 0]),
        (None, [-1, 1, -1.0], [0, 1, 0]),
        (None, np.array([1, -1], dtype=np.float32), [1, 0]),
        (None, [None, NAN, np.float32("nan"), 1], [NAN, NAN, NAN, 1]),
        (0.5, [None, NAN, 1], [NAN, NAN, 1]),
        (lambda reward: True, [None, NAN, 1], [NAN, NAN, 1]),
        (0.7, [0.69, 0.7, 5, -3, 1e30, -1e30], [0, 1, 1, 0, 1, 0]),
        (0, [0, -0.1], [1, 0]),
        (np.float32(0.5), [0.25, 0.75], [0, 1]),
        (lambda reward: None if reward > 10 else reward < 0, [-1, 2, 11], [1, 0, NAN]),
        (lambda reward: np.float64(reward) > 0.5, [0.2, 0.7], [0, 1]),
        (lambda reward: NAN, [1, 0], [NAN, NAN]),
    ],
)
def test_readable_rewards(success, rewards, outcomes) -> None:
    read = RewardReader(success)
    np.testing.assert_array_equal(read(rewards), outcomes)
    assert read.unreadable == 0


@pytest.mark.parametrize("reward", [0.5, 2, "yes", [1, 2], {}, math.inf, 1e-12, object()])
def test_unreadable_rewards_are_unscorable(reward, caplog) -> None:
    read = RewardReader()
    with caplog.at_level(logging.WARNING, logger="viprl"):
        np.testing.assert_array_equal(read([1, reward, 0]), [1, NAN, 0])
    assert read.unreadable == 1 and repr(reward) in caplog.text


def test_missing_values_of_pandas_do_not_count() -> None:
    pandas = pytest.importorskip("pandas")
    read = RewardReader()
    np.testing.assert_array_equal(read([1, pandas.NA, pandas.NaT, None]), [1, NAN, NAN, NAN])
    assert read.unreadable == 0


@pytest.mark.parametrize("success", [None, 0.5, lambda reward: True])
@pytest.mark.parametrize("reward", [math.inf, -math.inf, 3e38, -1e300, 10**400, "1", b"1", "inf"])
def test_huge_numbers_and_texts_are_unscorable(reward, success) -> None:
    read = RewardReader(success)
    np.testing.assert_array_equal(read([1, reward]), [1, NAN])
    np.testing.assert_array_equal(read.values([1, reward, None, 0.25]), [1, NAN, NAN, 0.25])
    assert read.unreadable == 2


def test_scorable_numbers_of_any_shape() -> None:
    rewards = np.array([[1.0, math.inf, NAN], [-1e30, 1.1e30, -math.inf]])
    np.testing.assert_array_equal(scorable(rewards), [[True, False, False], [True, False, False]])
    assert not scorable(np.array([1, np.inf], dtype=np.float32)).all()


def test_a_failing_callable(caplog) -> None:
    def success(reward: float) -> bool:
        if reward == 2:
            raise RuntimeError("no idea")
        return reward - 1  # type: ignore[return-value]

    read = RewardReader(success)
    with caplog.at_level(logging.WARNING, logger="viprl"):
        np.testing.assert_array_equal(read([1, 2, 0, -1]), [0, NAN, NAN, NAN])
    assert read.unreadable == 3 and "RuntimeError: no idea" in caplog.text


def test_an_interrupt_in_a_callable_is_not_caught() -> None:
    def success(reward: float) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RewardReader(success)([1])


def test_the_number_of_warnings_grows_slowly(caplog) -> None:
    read = RewardReader()
    with caplog.at_level(logging.WARNING, logger="viprl"):
        read([0.5] * 100)
    assert read.unreadable == 100 and len(caplog.records) == 7  # the 1st, 2nd, 4th ... 64th


@pytest.mark.parametrize("success", ["accuracy", [0.5], {}, NAN])
def test_unusable_success(success) -> None:
    with pytest.raises(InputError) as error:
        RewardReader(success)
    assert repr(success) in str(error.value)


def test_tally() -> None:
    successes, rollouts = tally([np.array([1.0, 0, NAN]), np.array([NAN, NAN]), np.array([]), np.array([1.0, 1])])
    np.testing.assert_array_equal(successes, [1, 0, 0, 2])
    np.testing.assert_array_equal(rollouts, [2, 0, 0, 2])


def test_sample_variance_is_unbiased() -> None:
    """By enumeration of all outcomes."""
    for n in range(2, 8):
        for p in (0.0, 0.03, 0.5, 0.8, 1.0):
            outcomes = np.array(list(itertools.product([0.0, 1.0], repeat=n)))
            chance = np.where(outcomes == 1, p, 1 - p).prod(1)
            k = outcomes.sum(1)
            assert chance @ GroupOutcomes.of_counts(k, np.full(len(k), float(n))).variance == pytest.approx(
                p * (1 - p), abs=1e-14
            )


def test_sample_variance_needs_two_rollouts() -> None:
    found = GroupOutcomes.of_counts([0.0, 1, 0, 1], [0.0, 1, 2, 2]).variance
    np.testing.assert_array_equal(found, [NAN, NAN, 0, 0.5])


def test_positive_log_probabilities_are_unknown(caplog) -> None:
    """A caller that passes surprisals would teach the weights the wrong way round."""
    read = read_logprobs([[-1.0, 2.5, None], [1e-3]], [[0, 1, 1], [0]])
    np.testing.assert_array_equal(read[0], [-1.0, NAN, NAN])
    assert read[1].tolist() == [1e-3] and len(caplog.records) == 1 and "2.5" in caplog.text
