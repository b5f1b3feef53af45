"""Statistics of groups of rewards, and the scale that a run's rewards have."""

from __future__ import annotations

import numpy as np
import pytest

from viprl.reward_groups import MOST_LEVELS, GroupOutcomes, RewardGroups, RewardScale

NAN = np.nan


def scale_of(*batches) -> RewardScale:
    scale = RewardScale()
    for batch in batches:
        scale.observe(RewardGroups.of_rewards([np.asarray(batch, dtype=float)]))
    return scale


def random_groups(rng: np.random.Generator) -> list[np.ndarray]:
    groups = [rng.normal(size=n) for n in (0, 1, 2, 5, 9)]
    groups[3][2] = NAN
    return groups


class TestRewardGroups:
    def test_statistics_are_those_of_each_group_alone(self):
        groups = random_groups(np.random.default_rng(0))
        found = RewardGroups.of_rewards(groups)
        known = [group[~np.isnan(group)] for group in groups]
        assert found.rollouts.tolist() == [0, 1, 2, 4, 9]
        expected = [group.var(ddof=1) if len(group) > 1 else NAN for group in known]
        np.testing.assert_allclose(found.variance, expected, rtol=1e-12)
        assert found.above(0.3).tolist() == [(group > 0.3).sum() for group in known]

    def test_equal_rewards_have_no_variance_at_all(self):
        assert RewardGroups.of_rewards([np.full(7, 0.1), np.full(3, 1e20)]).variance.tolist() == [0.0, 0.0]

    def test_the_variance_is_unbiased(self):
        """Over all outcomes of three rollouts with three values."""
        values, law = np.array([0.0, 0.1, 1.0]), np.array([0.5, 0.3, 0.2])
        total = 0.0
        for a in range(3):
            for b in range(3):
                for c in range(3):
                    groups = RewardGroups.of_rewards([values[[a, b, c]]])
                    total += law[a] * law[b] * law[c] * groups.variance[0]
        assert total == pytest.approx(law @ values**2 - (law @ values) ** 2, abs=1e-15)

    def test_merged_groups_are_the_joined_ones(self):
        a, b, c = (np.random.default_rng(i).normal(size=4) for i in range(3))
        merged = RewardGroups.of_rewards([a, b, c]).merged(np.array([0, 1, 0]), 2)
        joined = RewardGroups.of_rewards([np.concatenate([a, c]), b])
        np.testing.assert_allclose(merged.variance, joined.variance, rtol=1e-12)
        assert merged.rollouts.tolist() == [8, 4]


class TestRewardScale:
    @pytest.mark.parametrize(
        ("rewards", "binary", "bounds"),
        [
            ([0, 0], True, (0, 1)),
            ([1, 1], True, (0, 1)),
            ([-1], True, (-1, 0)),
            ([0, 1, 0], True, (0, 1)),
            ([-1, 1], True, (-1, 1)),
            ([3, 13], True, (3, 13)),
            ([0, 0.1, 1], False, (0, 1)),
            ([0.7], True, (0.7, 1.7)),
            (np.arange(50), False, (0, 49)),
        ],
    )
    def test_range(self, rewards, binary, bounds):
        scale = scale_of(rewards)
        assert scale.binary is binary
        assert scale.range == bounds
        if binary:
            assert scale.unit_variance == (bounds[1] - bounds[0]) ** 2

    @pytest.mark.parametrize(
        ("rewards", "named"),
        [
            ([0, 1], True),
            ([-1, 1], True),
            ([1], True),
            ([-1], True),
            ([0.7], False),
            ([-1, 0, 1], False),
            ([2, 3], False),
        ],
    )
    def test_only_some_rewards_say_what_success_is(self, rewards, named):
        assert scale_of(rewards).names_success is named

    def test_levels_are_the_distinct_values(self):
        assert scale_of([0, 1], [0.1, 1]).levels == (0, 0.1, 1)
        assert scale_of([0.1 + 0.2, 0.3]).levels == (0.3,) and scale_of([0.1 + 0.2, 0.3]).range == (0.3, 1.3)
        assert scale_of([0.1 + 0.2, 0.3, 1.0]).levels == (0.3, 1.0)
        assert scale_of([1e6, 1e6 + 0.1, 1e6 + 1]).levels == (1e6, 1e6 + 0.1, 1e6 + 1)
        assert scale_of([1e-9, 1e-10, 0]).levels == (0, 1e-10, 1e-9)
        assert scale_of(np.arange(MOST_LEVELS)).levels == tuple(range(MOST_LEVELS))
        assert scale_of(np.arange(MOST_LEVELS + 1)).levels is None
        assert scale_of(np.arange(MOST_LEVELS + 1), [1.0]).levels is None

    def test_nothing_observed_is_binary(self):
        scale = scale_of([NAN])
        assert scale.binary and scale.range == (0, 1)
        assert scale.position(np.array([0.0, 1.0])).tolist() == [0, 1]

    def test_position_and_half(self):
        scale = scale_of([10, 20, 13])
        np.testing.assert_allclose(scale.position(np.array([10, 15, 20, 30])), [0, 0.5, 1, 1])
        first, none, last = scale.halves([np.array([10, 16, NAN]), np.empty(0), np.array([16.0])])
        np.testing.assert_array_equal(first, [0, 1, NAN])
        assert len(none) == 0 and last.tolist() == [1]
        assert scale.halves([]) == []

    def test_a_loaded_scale_continues(self):
        one, other = scale_of([0, 0.1, 1, 0]), RewardScale()
        other.load_state_dict(one.state_dict())
        for scale in (one, other):
            scale.observe(RewardGroups.of_rewards([np.array([0.5, 2.0])]))
        assert (
            one.levels == other.levels
            and one.binary == other.binary
            and one.range == other.range
            and one.unit_variance == other.unit_variance
        )


class TestGroupOutcomes:
    def test_binary_rewards_are_counts(self):
        rewards = [np.array([1.0, 0, 0, 1, 1]), np.array([0.0, 0]), np.array([1.0]), np.array([NAN])]
        for low, high in ((0.0, 1.0), (-1.0, 1.0)):
            given = [np.where(group == 1, high, np.where(group == 0, low, NAN)) for group in rewards]
            groups, scale = RewardGroups.of_rewards(given), RewardScale()
            scale.observe(groups)
            found, expected = GroupOutcomes.of(groups, scale), GroupOutcomes.of_counts([3, 0, 1, 0], [5, 2, 1, 0])
            for name in ("rollouts", "successes", "upper_rollouts", "upper_squares", "lower_squares", "variance"):
                np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-15)
            assert found.constant.tolist() == expected.constant.tolist() == [False, True, True, False]

    def test_nothing_depends_on_the_unit_of_the_rewards(self):
        rng = np.random.default_rng(0)
        groups = [rng.choice([0, 0.1, 0.4, 1.0], size=6) for _ in range(20)]
        found = []
        for factor, shift in ((1, 0), (1000, 0), (1, 100), (0.001, -3), (1, 1e6)):
            given, scale = RewardGroups.of_rewards([factor * group + shift for group in groups]), RewardScale()
            scale.observe(given)
            outcomes = GroupOutcomes.of(given, scale)
            found.append(np.array([outcomes.successes, outcomes.variance, outcomes.upper_squares]))
        for other in found[1:]:
            np.testing.assert_allclose(other, found[0], rtol=1e-8, atol=1e-9)
