"""The rules: what each does with a prediction. `tests/contracts/test_rule_contract.py` tests what all of them keep."""

from __future__ import annotations

import numpy as np

from viprl.allocation.budget import Budget
from viprl.allocation.optimum import allocate_weights
from viprl.allocation.published import continuous_counts, rounded_counts
from viprl.allocation.rules import MinimumVariance, Published, Uniform
from viprl.baselines.proportional import InverseAccuracy, InverseVariance, Random, proportional_counts
from viprl.predictors.base import Prediction


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def budget(prompts: int, total: int, min_rollouts=2, max_rollouts=None) -> Budget:
    return Budget.of(prompts, total, min_rollouts, max_rollouts, "rloo")


class TestProportional:
    def test_proportional_where_nothing_is_clipped(self) -> None:
        np.testing.assert_array_equal(proportional_counts(np.arange(1.0, 5), budget(4, 100), rng()), [10, 20, 30, 40])

    def test_scale_does_not_matter(self) -> None:
        w = np.array([0.3, 1.7, 2.2])
        for scale in (1e-9, 1.0, 1e9):
            np.testing.assert_array_equal(
                proportional_counts(w * scale, budget(3, 61), rng()), proportional_counts(w, budget(3, 61), rng())
            )

    def test_largest_remainders(self) -> None:
        """Shares 5.4, 5.8, 8.8: floors 5, 5, 8 and the two that are left to the largest remainders."""
        np.testing.assert_array_equal(proportional_counts(np.array([5.4, 5.8, 8.8]), budget(3, 20), rng()), [5, 6, 9])

    def test_the_clipped_part_goes_to_the_others_in_proportion(self) -> None:
        limits = budget(4, 10 + 30 + 2, 2, [10, 99, 99, 99])
        counts = proportional_counts(np.array([100.0, 1.0, 2.0, 0.001]), limits, rng())
        np.testing.assert_array_equal(counts, [10, 10, 20, 2])

    def test_ties_of_remainders_are_drawn(self) -> None:
        seen = {int(np.argmax(proportional_counts(np.ones(5), budget(5, 41), rng(seed)))) for seed in range(80)}
        assert seen == set(range(5))

    def test_low_equals_high(self) -> None:
        np.testing.assert_array_equal(proportional_counts(np.array([1.0, 9.0]), budget(2, 8, 4, 4), rng()), [4, 4])


def test_uniform_is_even_and_its_remainder_is_drawn() -> None:
    prediction = Prediction.of_points(np.array([0.5, 0.0, 0.9, 0.1]))
    np.testing.assert_array_equal(Uniform()(prediction, budget(4, 32), rng()), 8)
    extra = np.mean([Uniform()(prediction, budget(4, 33), rng(seed)) == 9 for seed in range(200)], axis=0)
    assert (np.abs(extra - 0.25) < 0.12).all()
    np.testing.assert_array_equal(Uniform()(prediction, budget(4, 21, 2, [3, 9, 9, 9]), rng()), [3, 6, 6, 6])


def test_random_is_another_split_at_each_seed() -> None:
    prediction = Prediction.of_points(np.full(16, 0.5))
    splits = np.array([Random()(prediction, budget(16, 128, 2, 64), rng(seed)) for seed in range(50)])
    assert len({tuple(split) for split in splits}) == 50
    assert (splits.sum(1) == 128).all()
    assert splits.std(0).min() > 2
    np.testing.assert_allclose(splits.mean(0), 8, atol=4)


def test_random_does_not_look_at_the_prediction() -> None:
    one, other = (Prediction.of_points(np.array(p)) for p in ([0.5, 0.1, 0.9], [0.0, 1.0, 0.3]))
    np.testing.assert_array_equal(Random()(one, budget(3, 30), rng(3)), Random()(other, budget(3, 30), rng(3)))


def test_inverse_accuracy_by_hand() -> None:
    """1/p = 2, 4, 10: of 32 rollouts 4, 8, 20."""
    prediction = Prediction.of_points(np.array([0.5, 0.25, 0.1]))
    np.testing.assert_array_equal(InverseAccuracy()(prediction, budget(3, 32), rng()), [4, 8, 20])


def test_inverse_variance_by_hand() -> None:
    """1/(p(1-p)) = 4, 6.25, 6.25: of 33 rollouts 8, 12.5, 12.5."""
    prediction = Prediction.of_points(np.array([0.5, 0.2, 0.8]))
    counts = InverseVariance()(prediction, budget(3, 33), rng())
    assert counts[0] == 8
    assert sorted(counts[1:]) == [12, 13]


def test_ablations_survive_certainty() -> None:
    prediction = Prediction.of_points(np.array([0.0, 1.0, 0.5]))
    np.testing.assert_array_equal(InverseAccuracy()(prediction, budget(3, 30, 2, 20), rng()), [20, 3, 7])
    counts = InverseVariance()(prediction, budget(3, 30, 2, 20), rng())
    np.testing.assert_array_equal(counts, [14, 14, 2])


def test_published_and_exact_differ_where_rounding_breaks() -> None:
    p = np.array([0.5, *[0.009] * 5, 0.055])
    spec = budget(7, 29, 2, 13)
    prediction = Prediction.of_points(p)
    np.testing.assert_array_equal(Published()(prediction, spec, rng()), [10, 3, 3, 3, 3, 2, 5])
    np.testing.assert_array_equal(MinimumVariance()(prediction, spec, rng()), [9, 3, 3, 3, 3, 3, 5])


def test_published_plugs_in_the_probability_and_ignores_doubt() -> None:
    p, spec = np.array([0.5, 0.1, 0.02]), budget(3, 30)
    sure, unsure = Prediction.of_points(p), Prediction(p, np.array([0.15, 0.15, 0.15]))
    expected = rounded_counts(continuous_counts(p * (1 - p), spec), p * (1 - p), spec)
    np.testing.assert_array_equal(Published()(sure, spec, rng()), expected)
    np.testing.assert_array_equal(Published()(unsure, spec, rng()), expected)


def test_minimum_variance_uses_the_expected_variance_not_the_probability() -> None:
    prediction = Prediction(np.array([0.5, 0.5, 0.5]), np.array([0.2, 0.05, 0.0]))
    expected = allocate_weights(prediction.reward_variance, budget=30).counts
    np.testing.assert_array_equal(MinimumVariance()(prediction, budget(3, 30), rng()), expected)
    assert expected[0] > expected[1] > expected[2]
