"""What a prediction says, prompt by prompt."""

from __future__ import annotations

import numpy as np

from viprl.predictors.base import Prediction

FULL = Prediction(
    np.array([0.1, 0.5, 0.0]), np.array([0.08, 0.2, 0.0]), np.array([-1.0, 0, 1]), np.array([0.1, 0.4, 0.0]),
    np.array([0.12, 0.2, 0.0]), np.array([3.0, 9, 50]),
)  # fmt: skip


def test_a_part_has_all_numbers_of_its_prompts() -> None:
    part = FULL.at(np.array([1, 0, 1]))
    for name in FULL.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(part, name), getattr(FULL, name)[[1, 0, 1]])
    points = Prediction.of_points(np.array([0.5, 0.25])).at(np.array([1]))
    assert points.variance_rms is points.pseudocounts is points.text_score is points.learned_weight is None
    assert points.weight.tolist() == [0.1875]


def test_the_root_of_the_second_moment_has_the_unit_of_the_weight() -> None:
    np.testing.assert_allclose(FULL.rms_weight, [0.15, 0.4, 0])
    points = Prediction.of_points(np.array([0.5, 0.25]))
    np.testing.assert_array_equal(points.rms_weight, points.weight)


def test_factors_multiply_the_weights_alone() -> None:
    weighted = FULL.weighted(np.array([4.0, 1, 0.25]))
    np.testing.assert_allclose(weighted.weight, [0.4, 0.4, 0])
    np.testing.assert_array_equal(weighted.reward_variance, FULL.reward_variance)
    np.testing.assert_allclose(Prediction.of_points(np.array([0.5])).weighted(np.array([2.0])).weight, [0.5])
