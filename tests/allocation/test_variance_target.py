"""The feedback that keeps the realised variance at that of uniform counts."""

from __future__ import annotations

import numpy as np
import pytest

from viprl.allocation.variance_target import CLEAR, FAST, RANGE, VarianceTarget
from viprl.errors import StateError

KEEP, CAUTION, PRIOR = 0.97, 0.25, 0.05


def error(keep, s2=PRIOR**2):
    return np.sqrt(s2 * (1 - keep) / (1 + keep))


def after(steps: int, realised: float, noise: float = 0.0, scale: float = 1.0, target: float = 1.0) -> float:
    """The aim after steps with this realised variance relative to the predicted one, noise included."""
    feedback, rng = VarianceTarget(), np.random.default_rng(0)
    for _ in range(steps):
        aim = feedback.aim(target)
        feedback.observe(scale * (aim * realised + noise * rng.normal()), scale, aim)
    return feedback.aim(target)


def test_at_first_the_prediction_is_trusted_but_for_its_error() -> None:
    assert 0.99 < VarianceTarget().aim(1.0) < 1.0
    assert 1.99 < VarianceTarget().aim(2.0) < 2.0


def test_two_steps_by_hand() -> None:
    target = VarianceTarget()
    assert target.aim(1.0) == pytest.approx(1 - CAUTION * error(KEEP))
    target.observe(2.0, 2.0, 0.9)  # e = .1, relative to a mean of 2
    sudden = 0.2 * 0.1 - 0.03 * 0.1 - CLEAR * error(FAST)
    assert sudden < 0
    assert target.aim(1.0) == pytest.approx(1 - 0.003 - CAUTION * error(KEEP))
    target.observe(3.0, 3.0, 0.0)  # the mean is .97 2 + .03 3
    e = 3 / 2.03
    slow, fast = 0.97 * 0.003 + 0.03 * e, 0.8 * 0.02 + 0.2 * e
    s2 = 0.97 * PRIOR**2 + 0.03 * (e - 0.1) ** 2 / 2
    expected = 1 - slow - max(0, fast - slow - CLEAR * error(FAST, s2)) - CAUTION * error(KEEP, s2)
    assert target.aim(1.0) == pytest.approx(expected)


def test_a_sudden_change_is_answered_within_a_few_steps() -> None:
    target, rng = VarianceTarget(), np.random.default_rng(0)
    for _ in range(100):
        target.observe(1 + 0.06 * rng.normal(), 1.0, 1.0 - 1e-6)
    before = target.aim(1.0)
    for _ in range(4):
        target.observe(2.0 + 0.06 * rng.normal(), 1.0, 1.0 - 1e-6)
    assert before > 0.96 and target.aim(1.0) < 0.75
    for _ in range(100):
        target.observe(5.0, 1.0, 0.5)
    assert target.aim(1.0) == RANGE[0]


def test_predictions_that_are_too_low_are_paid_for() -> None:
    assert after(150, 1.3) * 1.3 == pytest.approx(1.0, abs=0.03)
    assert after(10, 1.3) < after(0, 1.3) - 0.05


def test_predictions_that_are_too_high_save_more() -> None:
    assert after(150, 0.9) * 0.9 == pytest.approx(1.0, abs=0.03)
    assert after(150, 0.9) > 1.05


def test_noise_keeps_a_distance() -> None:
    assert 1 - after(300, 1.0, 0.0) < 0.005
    feedback = VarianceTarget()
    for step in range(400):
        feedback.observe(feedback.aim(1.0) + 0.5 * (-1) ** step, 1.0, feedback.aim(1.0))
    assert 0.005 < 1 - feedback.aim(1.0) < 0.05


def test_the_unit_of_the_variance_does_not_matter() -> None:
    assert after(30, 1.2, 0.2, scale=1e-6) == pytest.approx(after(30, 1.2, 0.2), rel=1e-9)


def test_it_stays_within_a_range() -> None:
    assert after(500, 200.0) == RANGE[0]
    assert after(500, 0.2) == RANGE[1]


@pytest.mark.parametrize("step", [(0.0, 0.0, 1.0), (0.7, 0.7, 1.0)], ids=["nothing measured", "uniform counts"])
def test_steps_that_say_nothing(step) -> None:
    feedback = VarianceTarget()
    feedback.observe(*step)
    assert feedback.aim(1.0) == VarianceTarget().aim(1.0)


def test_state() -> None:
    one, other = VarianceTarget(), VarianceTarget()
    for value in (1.2, 0.7, 1.4):
        one.observe(value, 1.0, 0.9)
    other.load_state_dict(one.state_dict())
    one.observe(0.8, 1.0, 0.9)
    other.observe(0.8, 1.0, 0.9)
    assert one.aim(1.0) == other.aim(1.0)
    with pytest.raises(StateError):
        other.load_state_dict({"means": np.zeros(2)})
