"""The feedback that keeps the realised variance at that of uniform counts."""

from __future__ import annotations

import numpy as np
import pytest

from viprl.allocation.variance_target import RANGE, VarianceTarget
from viprl.errors import StateError


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


def test_the_arithmetic() -> None:
    feedback = VarianceTarget(forgetting_factor=0.5, caution=1.0, prior_error=0.1)
    feedback.observe(3.0, 2.0, 0.9)  # e = (3 - 1.8)/2 = .6
    assert feedback.aim(1.0) == pytest.approx(1 - 0.3 - ((0.005 + 0.18) / 3) ** 0.5)
    feedback.observe(2.0, 4.0, 1.0)  # mean u = 3, e = -2/3
    square = (0.005 + 0.18) / 2 + (2 / 3) ** 2 / 2
    assert feedback.aim(1.0) == pytest.approx(1 - (0.15 - 1 / 3) - (square / 3) ** 0.5)


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
