"""What counts as success, what happens to rewards that nobody can read, and the statistics of groups."""

from __future__ import annotations

import itertools
import logging
import math

import numpy as np
import pytest

from viprl.outcomes import RewardReader, sample_variance, tally

NAN = math.nan


def equal(got, expected) -> None:
    np.testing.assert_array_equal(np.asarray(got, float), np.asarray(expected, float))


def test_zero_and_one_or_minus_one_and_one() -> None:
    outcomes = RewardReader()
    equal(outcomes([0, 1, 1.0, 0.0, True, False]), [0, 1, 1, 0, 1, 0])
    equal(outcomes([-1, 1, -1.0]), [0, 1, 0])
    equal(outcomes(np.array([1, -1], dtype=np.float32)), [1, 0])
    assert outcomes.strange == 0


def test_missing_rewards_are_unscorable_and_not_strange() -> None:
    for outcomes in (RewardReader(), RewardReader(0.5), RewardReader(lambda reward: True)):
        equal(outcomes([None, NAN, np.float32("nan"), 1]), [NAN, NAN, NAN, 1])
        assert outcomes.strange == 0


def test_threshold_is_inclusive() -> None:
    outcomes = RewardReader(0.7)
    equal(outcomes([0.69, 0.7, 5, -3, math.inf, -math.inf]), [0, 1, 1, 0, 1, 0])
    equal(RewardReader(0)([0, -0.1]), [1, 0])
    assert outcomes.strange == 0


def test_callable_decides_and_may_refuse() -> None:
    outcomes = RewardReader(lambda reward: None if reward > 10 else reward < 0)
    equal(outcomes([-1, 2, 11]), [1, 0, NAN])
    assert outcomes.strange == 0


def test_callables_may_answer_in_numpy() -> None:
    equal(RewardReader(lambda reward: np.float64(reward) > 0.5)([0.2, 0.7]), [0, 1])


def test_a_raising_callable_is_counted_and_warned_about(caplog) -> None:
    def success(reward: float) -> bool:
        if reward == 2:
            raise RuntimeError("no idea")
        return reward > 0

    outcomes = RewardReader(success)
    with caplog.at_level(logging.WARNING, logger="viprl"):
        equal(outcomes([1, 2, -1]), [1, NAN, 0])
    assert outcomes.strange == 1
    assert "no idea" in caplog.text
    assert "RuntimeError" in caplog.text


def test_an_interrupt_is_not_swallowed() -> None:
    def success(reward: float) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RewardReader(success)([1])


@pytest.mark.parametrize("reward", [0.5, 2, "yes", [1, 2], {}, math.inf, 1e-12, object()])
def test_strange_values_are_unscorable_not_fatal(reward, caplog) -> None:
    outcomes = RewardReader()
    with caplog.at_level(logging.WARNING, logger="viprl"):
        equal(outcomes([1, reward, 0]), [1, NAN, 0])
    assert outcomes.strange == 1
    assert "tells the predictor nothing" in caplog.text
    if isinstance(reward, float):
        assert "threshold" in caplog.text  # the mend


def test_warnings_thin_out_while_the_count_goes_on(caplog) -> None:
    outcomes = RewardReader()
    with caplog.at_level(logging.WARNING, logger="viprl"):
        outcomes([0.5] * 100)
    assert outcomes.strange == 100
    assert len(caplog.records) == 7  # the 1st, 2nd, 4th ... 64th


@pytest.mark.parametrize("success", ["accuracy", [0.5], {}])
def test_what_cannot_decide_is_refused(success) -> None:
    with pytest.raises(ValueError, match="threshold or a callable"):
        RewardReader(success)


def test_a_threshold_that_is_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="nan"):
        RewardReader(NAN)


def test_numpy_thresholds() -> None:
    equal(RewardReader(np.float32(0.5))([0.25, 0.75]), [0, 1])  # type: ignore[arg-type]


def test_a_callable_s_nan_or_minus_one_is_no_success() -> None:
    got = RewardReader(lambda reward: reward - 1)([NAN, 1, 0])  # 0 for the right, -1 for the wrong answer
    assert not (got == 1).any()
    assert not (RewardReader(lambda reward: NAN)([1, 0]) == 1).any()  # type: ignore[arg-type, return-value]


def test_tally_counts_the_scorable() -> None:
    successes, rollouts = tally([np.array([1.0, 0, NAN]), np.array([NAN, NAN]), np.array([]), np.array([1.0, 1])])
    equal(successes, [1, 0, 0, 2])
    equal(rollouts, [2, 0, 0, 2])


def test_sample_variance_is_unbiased_whatever_the_size() -> None:
    """By enumeration of all outcomes."""
    for n in range(2, 8):
        for p in (0.0, 0.03, 0.5, 0.8, 1.0):
            outcomes = np.array(list(itertools.product([0.0, 1.0], repeat=n)))
            chance = np.where(outcomes == 1, p, 1 - p).prod(1)
            k = outcomes.sum(1)
            assert chance @ sample_variance(k, np.full(len(k), float(n))) == pytest.approx(p * (1 - p), abs=1e-14)


def test_sample_variance_is_the_usual_one() -> None:
    rewards = np.array([1.0, 0, 0, 1, 0])
    assert sample_variance(np.array([2.0]), np.array([5.0]))[0] == pytest.approx(rewards.var(ddof=1))


def test_sample_variance_needs_two() -> None:
    equal(sample_variance(np.array([0.0, 1, 0, 1]), np.array([0.0, 1, 2, 2])), [NAN, NAN, 0, 0.5])
