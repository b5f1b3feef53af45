"""The rules: what each does with a prediction, and what every rule must keep."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from viprl.allocation.continuous import continuous_counts

from viprl.allocation.budget import Budget
from viprl.allocation.optimum import allocate_weights
from viprl.allocation.published import rounded_counts
from viprl.allocation.rules import minimum_variance, published, uniform
from viprl.baselines.proportional import inverse_accuracy, inverse_variance, proportional, random
from viprl.predictors.base import Prediction
from viprl.strategies import STRATEGIES

RULES = {preset.rule.__name__: preset.rule for preset in STRATEGIES.values()}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def budget(prompts: int, total: int, min_rollouts=2, max_rollouts=None, estimator="rloo") -> Budget:
    return Budget.of(prompts, total, low, high, estimator)


def test_the_table_names_every_rule() -> None:
    assert set(RULES) == {
        "minimum_variance", "published", "uniform", "random", "inverse_accuracy", "inverse_variance",
        "neyman", "gradient_norm", "knapsack", "proportional_to_variance", "skip_and_redistribute",
    }  # fmt: skip


@st.composite
def cases(draw):
    p = np.array(
        draw(st.lists(st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(1e-9, 1)), min_size=1, max_size=10))
    )
    estimator = draw(st.sampled_from(["rloo", "dr_grpo"]))
    low = np.array([draw(st.integers(3, 6)) for _ in p])
    high = low + np.array([draw(st.integers(0, 14)) for _ in p])
    spec = budget(len(p), draw(st.integers(int(low.sum()), int(high.sum()))), low, high, estimator)
    return Prediction.of_points(p), spec


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=60, deadline=None)
@given(case=cases(), seed=st.integers(0, 2**32 - 1))
def test_every_rule_spends_the_budget_within_the_bounds(name: str, case, seed: int) -> None:
    prediction, spec = case
    counts = RULES[name](prediction, spec, rng(seed))
    assert counts.dtype.kind == "i"
    assert counts.sum() == spec.total
    assert (counts >= spec.low).all()
    assert (counts <= spec.high).all()
    np.testing.assert_array_equal(counts, RULES[name](prediction, spec, rng(seed)))


class TestProportional:
    def test_proportional_where_nothing_is_clipped(self) -> None:
        np.testing.assert_array_equal(proportional(np.array([1.0, 2, 3, 4]), budget(4, 100), rng()), [10, 20, 30, 40])

    def test_scale_does_not_matter(self) -> None:
        w = np.array([0.3, 1.7, 2.2])
        for scale in (1e-9, 1.0, 1e9):
            np.testing.assert_array_equal(
                proportional(w * scale, budget(3, 61), rng()), proportional(w, budget(3, 61), rng())
            )

    def test_largest_remainders(self) -> None:
        """Shares 5.4, 5.8, 8.8: floors 5, 5, 8 and the two that are left to the largest remainders."""
        np.testing.assert_array_equal(proportional(np.array([5.4, 5.8, 8.8]), budget(3, 20), rng()), [5, 6, 9])

    def test_the_clipped_part_goes_to_the_others_in_proportion(self) -> None:
        counts = proportional(np.array([100.0, 1.0, 2.0, 0.001]), budget(4, 10 + 30 + 2, 2, [10, 99, 99, 99]), rng())
        np.testing.assert_array_equal(counts, [10, 10, 20, 2])

    def test_ties_of_remainders_are_drawn(self) -> None:
        seen = {int(np.argmax(proportional(np.ones(5), budget(5, 41), rng(seed)))) for seed in range(80)}
        assert seen == set(range(5))

    def test_low_equals_high(self) -> None:
        np.testing.assert_array_equal(proportional(np.array([1.0, 9.0]), budget(2, 8, 4, 4), rng()), [4, 4])


def test_uniform_is_even_and_its_remainder_is_drawn() -> None:
    prediction = Prediction.of_points(np.array([0.5, 0.0, 0.9, 0.1]))
    np.testing.assert_array_equal(uniform(prediction, budget(4, 32), rng()), 8)
    extra = np.mean([uniform(prediction, budget(4, 33), rng(seed)) == 9 for seed in range(200)], axis=0)
    assert (np.abs(extra - 0.25) < 0.12).all()
    np.testing.assert_array_equal(uniform(prediction, budget(4, 21, 2, [3, 9, 9, 9]), rng()), [3, 6, 6, 6])


def test_random_is_another_split_at_each_seed() -> None:
    prediction = Prediction.of_points(np.full(16, 0.5))
    splits = np.array([random(prediction, budget(16, 128, 2, 64), rng(seed)) for seed in range(50)])
    assert len({tuple(split) for split in splits}) == 50
    assert (splits.sum(1) == 128).all()
    assert splits.std(0).min() > 2
    np.testing.assert_allclose(splits.mean(0), 8, atol=4)


def test_random_does_not_look_at_the_prediction() -> None:
    one, other = (Prediction.of_points(np.array(p)) for p in ([0.5, 0.1, 0.9], [0.0, 1.0, 0.3]))
    np.testing.assert_array_equal(random(one, budget(3, 30), rng(3)), random(other, budget(3, 30), rng(3)))


def test_inverse_accuracy_by_hand() -> None:
    """1/p = 2, 4, 10: of 32 rollouts 4, 8, 20."""
    prediction = Prediction.of_points(np.array([0.5, 0.25, 0.1]))
    np.testing.assert_array_equal(inverse_accuracy(prediction, budget(3, 32), rng()), [4, 8, 20])


def test_inverse_variance_by_hand() -> None:
    """1/(p(1-p)) = 4, 6.25, 6.25: of 33 rollouts 8, 12.5, 12.5."""
    prediction = Prediction.of_points(np.array([0.5, 0.2, 0.8]))
    counts = inverse_variance(prediction, budget(3, 33), rng())
    assert counts[0] == 8
    assert sorted(counts[1:]) == [12, 13]


def test_ablations_survive_certainty() -> None:
    prediction = Prediction.of_points(np.array([0.0, 1.0, 0.5]))
    np.testing.assert_array_equal(inverse_accuracy(prediction, budget(3, 30, 2, 20), rng()), [20, 3, 7])
    counts = inverse_variance(prediction, budget(3, 30, 2, 20), rng())
    np.testing.assert_array_equal(counts, [14, 14, 2])


def test_published_and_exact_differ_where_rounding_breaks() -> None:
    p = np.array([0.5, *[0.009] * 5, 0.055])
    spec = budget(7, 29, 2, 13)
    prediction = Prediction.of_points(p)
    np.testing.assert_array_equal(published(prediction, spec, rng()), [10, 3, 3, 3, 3, 2, 5])
    np.testing.assert_array_equal(minimum_variance(prediction, spec, rng()), [9, 3, 3, 3, 3, 3, 5])


def test_published_plugs_in_the_probability_and_ignores_doubt() -> None:
    p, spec = np.array([0.5, 0.1, 0.02]), budget(3, 30)
    sure, unsure = Prediction.of_points(p), Prediction(p, np.array([0.15, 0.15, 0.15]))
    expected = rounded_counts(continuous_counts(p * (1 - p), spec), p * (1 - p), spec)
    np.testing.assert_array_equal(published(sure, spec, rng()), expected)
    np.testing.assert_array_equal(published(unsure, spec, rng()), expected)


def test_minimum_variance_uses_the_expected_variance_not_the_probability() -> None:
    prediction = Prediction(np.array([0.5, 0.5, 0.5]), np.array([0.2, 0.05, 0.0]))
    expected = allocate_weights(prediction.reward_variance, budget=30).counts
    np.testing.assert_array_equal(minimum_variance(prediction, budget(3, 30), rng()), expected)
    assert expected[0] > expected[1] > expected[2]
