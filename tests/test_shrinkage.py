"""Shrunk baselines: the formula against loops, exact expectation and variance, and the guard."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits import Policy
from viprl.advantages import RewardPrior, group_advantages
from viprl.errors import InputError, StateError
from viprl.predictors.base import Prediction
from viprl.reward_groups import RewardGroups, RewardScale
from viprl.shrinkage import SHARES, Shrinkage, reward_prior
from viprl.vip import VIP


def by_loops(groups, mean, rollouts) -> list[float]:
    """r_i - (kappa mu + sum of the others)/(kappa + others)."""
    out = []
    for group, mu, kappa in zip(groups, mean, rollouts, strict=True):
        for i, r in enumerate(group):
            others = [x for j, x in enumerate(group) if j != i and not math.isnan(x)]
            if math.isnan(r) or kappa + len(others) == 0:
                out.append(0.0)
            else:
                out.append(r - (kappa * mu + sum(others)) / (kappa + len(others)))
    return out


def prior(mean, rollouts) -> RewardPrior:
    return RewardPrior(np.asarray(mean, dtype=float), np.asarray(rollouts, dtype=float))


class TestAdvantages:
    @pytest.mark.parametrize("missing", [0.0, 0.4, 1.0])
    def test_against_loops(self, missing: float) -> None:
        rng = np.random.default_rng(0)
        for _ in range(30):
            counts = rng.integers(1, 7, 8)
            rewards = rng.normal(size=counts.sum())
            rewards[rng.random(len(rewards)) < missing] = math.nan
            mean, rollouts = rng.normal(size=8), rng.exponential(size=8) * (rng.random(8) < 0.8)
            groups = [group.tolist() for group in np.split(rewards, np.cumsum(counts)[:-1])]
            found = group_advantages(rewards, counts, prior=prior(mean, rollouts))
            np.testing.assert_allclose(found, by_loops(groups, mean, rollouts), atol=1e-12)

    def test_by_hand(self) -> None:
        found = group_advantages([1.0, 0, 1, 0.5, math.nan], [2, 1, 2], prior=prior([0.5, 0.25, 2], [1, 3, 0]))
        np.testing.assert_allclose(found, [0.75, -0.75, 0.75, 0, 0])

    def test_an_expectation_worth_nothing_is_leave_one_out(self) -> None:
        rewards, counts = np.random.default_rng(1).normal(size=12), [1, 2, 4, 5]
        nothing, everything = prior([9.0] * 4, [0] * 4), prior([9.0] * 4, [1e12] * 4)
        np.testing.assert_allclose(group_advantages(rewards, counts, prior=nothing), group_advantages(rewards, counts))
        np.testing.assert_allclose(group_advantages(rewards, counts, prior=everything), rewards - 9)

    @settings(deadline=None)
    @given(
        st.lists(st.lists(st.sampled_from([0.0, 1.0, 0.5, math.nan]), min_size=1, max_size=4), min_size=1, max_size=4),
        st.floats(0, 1), st.floats(0, 1e6), st.sampled_from([1e-6, 1.0, 1000.0]), st.sampled_from([0.0, 100.0, -7.0]),
    )  # fmt: skip
    def test_the_unit_of_the_rewards_does_not_matter(self, groups, mu, kappa, scale: float, shift: float) -> None:
        rewards, counts = np.concatenate(groups), [len(group) for group in groups]
        mean, rollouts = np.full(len(groups), mu), np.full(len(groups), kappa)
        expected = scale * group_advantages(rewards, counts, prior=prior(mean, rollouts))
        found = group_advantages(shift + scale * rewards, counts, prior=prior(shift + scale * mean, rollouts))
        np.testing.assert_allclose(found, expected, atol=1e-9 * max(scale, abs(shift)))

    def test_a_group_s_mean_cannot_be_shrunk(self) -> None:
        with pytest.raises(InputError, match="prior"):
            group_advantages([1.0, 0], [2], "mean", prior=prior([0.5], [1]))

    @pytest.mark.parametrize("wrong", [0.5, "half", [0.5, 0.5], prior([0.5], [1]), prior([0.5] * 3, [1] * 3),
                                       prior([0.5] * 2, [1])])  # fmt: skip
    def test_other_priors_are_refused(self, wrong) -> None:
        with pytest.raises(InputError):
            group_advantages([1.0, 0, 1], [2, 1], prior=wrong)


class TestExpectation:
    """Exactly, over all outcomes of a group."""

    @pytest.mark.parametrize("n", [1, 2, 3, 5])
    @pytest.mark.parametrize("mean", [-3.0, 0.2, 0.5, 40.0])
    @pytest.mark.parametrize("rollouts", [0.3, 4.0, 1e6])
    def test_any_expectation_leaves_the_gradient_unbiased(self, n: int, mean: float, rollouts: float) -> None:
        policy = Policy(4, 2, 3, 5)
        policy.reward[1] = [2.5, -1, 0.5]  # more than two values
        for q, gradient in enumerate(policy.gradient()):
            chance, values = policy.estimates(q, n, prior=(mean, rollouts))
            np.testing.assert_allclose(chance @ values, gradient, atol=1e-11)

    def test_a_baseline_that_contains_the_rollout_itself_is_biased(self) -> None:
        """So that the test above says something: (kappa mu + sum of all)/(kappa + n) shrinks the gradient."""
        policy, n, mean, rollouts = Policy(4, 1, 3, 5), 3, 0.5, 2.0
        chance, values = policy.estimates(0, n, prior=(mean, rollouts))
        own = (rollouts + n - 1) / (rollouts + n)  # r - b' = own (r - b)
        np.testing.assert_allclose(chance @ (own * values), own * policy.gradient()[0], atol=1e-13)
        assert np.abs(chance @ (own * values) - policy.gradient()[0]).max() > 0.01

    @pytest.mark.parametrize("n", [1, 2, 4])
    def test_the_optimal_expectation_has_the_variance_of_the_model(self, n: int) -> None:
        """p = .1 or .7 evenly; reward and score independent; score -1 or 1: Var = a (1/n) (1 + 1/(kappa + n - 1))."""
        p = np.array([0.1, 0.7])
        a, mu = (p * (1 - p)).mean(), p.mean()
        kappa = a / p.var()

        def variance(kappa: float) -> float:
            total = 0.0
            for chance in p:
                policy = Policy(0, 1, 4, 1)
                policy.pi = np.array([[chance / 2, chance / 2, (1 - chance) / 2, (1 - chance) / 2]])
                policy.score, policy.reward = np.array([[[1.0], [-1], [1], [-1]]]), np.array([[1.0, 1, 0, 0]])
                outcomes, values = policy.estimates(0, n, prior=(mu, kappa))
                total += float(outcomes @ values[:, 0] ** 2) / 2
            return total

        assert variance(kappa) == pytest.approx(a / n * (1 + 1 / (kappa + n - 1)))
        if n > 1:  # one rollout alone has the expectation as its baseline, whatever it is worth
            assert all(variance(other * kappa) > variance(kappa) for other in (0.5, 0.9, 1.1, 2))


def test_what_a_prediction_says_about_rewards() -> None:
    scale, certain = RewardScale(), Prediction(np.array([0.0, 0.25]), np.ones(2), pseudocounts=np.array([2.0, 3]))
    assert reward_prior(certain, scale) is None  # no reward was seen
    scale.observe(RewardGroups.of_rewards([np.array([-1.0, 3.0])]))
    found = reward_prior(certain, scale)
    assert found.mean.tolist() == [-1, 0] and found.rollouts.tolist() == [2, 3]
    assert found.shrunk(0.5).rollouts.tolist() == [1, 1.5] and found.shrunk(0.5).mean.tolist() == [-1, 0]
    assert reward_prior(Prediction.of_points(np.array([0.5])), scale) is None


class TestGuard:
    @staticmethod
    def observed(mean, rollouts: float, steps: int = 40, factors: float = 1.0, scale: float = 1.0) -> Shrinkage:
        guard, rng, p = Shrinkage(), np.random.default_rng(0), np.resize([0.1, 0.5, 0.9], 24)
        for _ in range(steps):
            groups = [scale * (rng.random(3) < chance) for chance in p]
            guard.observe(prior(scale * mean(p), np.full(24, rollouts)), groups, np.full(24, factors), scale**2)
        return guard

    def test_right_expectations_are_trusted(self) -> None:
        assert Shrinkage().share == 1
        assert self.observed(lambda p: p, 20.0).share == 1

    def test_wrong_expectations_that_are_certain_are_not(self) -> None:
        assert self.observed(lambda p: 1 - p, 50.0).share == 0

    def test_half_right_ones_are_trusted_a_little(self) -> None:
        assert 0 < self.observed(lambda p: p + np.resize([0.25, -0.25], 24), 20.0).share < 1

    def test_weights_and_the_unit_of_rewards_do_not_change_the_choice(self) -> None:
        for scale in (1e-3, 1.0, 1e3):
            right, wrong = (
                self.observed(lambda p: p, 20.0, scale=scale),
                self.observed(lambda p: 1 - p, 50, 40, 9, scale),
            )
            assert (right.share, wrong.share) == (1, 0)

    def test_the_losses_against_loops(self) -> None:
        groups = [np.array([1.0, 0, math.nan]), np.array([1.0]), np.array([0.0, 1, 1]), np.array([math.nan] * 2)]
        mean, rollouts, factors, unit = (
            np.array([0.3, 0.9, 0.4, 0.1]),
            np.array([2.0, 1, 5, 3]),
            np.array([4, 1, 0.25, 1]),
            0.5,
        )
        guard, losses = Shrinkage(), []
        guard.observe(prior(mean, rollouts), groups, factors, unit)
        for share in SHARES:
            first = by_loops([[1.0, 0]], mean[:1], share * rollouts[:1])
            third = by_loops([[0.0, 1, 1]], mean[2:3], share * rollouts[2:3])
            squares = [sum(x**2 for x in first) / 4 * 4, sum(x**2 for x in third) / 9 * 0.25]
            losses.append(sum(squares) / unit)
        np.testing.assert_allclose(guard.state_dict()["difference"], np.subtract(losses, losses[0]), atol=1e-12)

    def test_groups_of_one_say_nothing(self) -> None:
        guard = Shrinkage()
        guard.observe(prior([5.0] * 3, [9.0] * 3), [np.array([1.0])] * 3, np.ones(3), 1.0)
        np.testing.assert_array_equal(guard.state_dict()["difference"], 0)

    def test_the_state(self) -> None:
        one, other = self.observed(lambda p: 1 - p, 50.0), Shrinkage()
        other.load_state_dict(one.state_dict())
        assert other.share == one.share == 0
        with pytest.raises(StateError):
            other.load_state_dict({"difference": np.zeros(2), "squares": np.zeros(2)})
        assert other.share == 0


class TestOfVIP:
    PROMPTS = tuple(f"question {i}" for i in range(12))

    def trained(self, values=(0.0, 1.0), scale: float = 1.0, shift: float = 0.0, **options) -> VIP:
        agent, rng = VIP(features=None, cache=None, baseline="expected", **options), np.random.default_rng(0)
        level = np.linspace(0.1, 0.9, 12)
        for _ in range(6):
            counts = agent.allocate(self.PROMPTS, 60).counts
            drawn = [rng.binomial(len(values) - 1, p, n) for p, n in zip(level, counts, strict=True)]
            agent.observe(self.PROMPTS, [(shift + scale * np.array(values)[i]).tolist() for i in drawn])
        return agent

    def test_nothing_is_expected_before_any_reward(self) -> None:
        assert VIP(features=None, cache=None, baseline="expected").allocate(self.PROMPTS, 60).prior is None

    def test_strategies_without_uncertainty_expect_nothing(self) -> None:
        assert self.trained(strategy="ema").allocate(self.PROMPTS, 60).prior is None
        assert "shrinkage" not in self.trained(strategy="ema").metrics()

    @pytest.mark.parametrize("values", [(0.0, 1.0), (0.0, 0.5, 1.0), tuple(np.linspace(0, 1, 12))], ids=len)
    @pytest.mark.parametrize(("scale", "shift"), [(1000.0, 100.0), (1e-6, 0.0), (2.0, -1.0)])
    def test_the_unit_of_the_rewards_does_not_matter(self, values, scale: float, shift: float) -> None:
        plain, other = self.trained(values), self.trained(values, scale, shift)
        one, same = plain.allocate(self.PROMPTS, 60), other.allocate(self.PROMPTS, 60)
        np.testing.assert_array_equal(same.counts, one.counts)
        np.testing.assert_allclose(same.prior.mean, shift + scale * one.prior.mean, rtol=1e-6)
        np.testing.assert_allclose(same.prior.rollouts, one.prior.rollouts, rtol=1e-4)
        rewards = np.random.default_rng(1).choice(values, 60)
        expected = group_advantages(rewards, one, prior=one.prior)
        found = group_advantages(shift + scale * rewards, same, prior=same.prior)
        np.testing.assert_allclose(found, scale * expected, atol=1e-4 * scale)

    @pytest.mark.parametrize("values", [(0.0, 1.0), (0.0, 0.5, 1.0), tuple(np.linspace(0, 1, 12))], ids=len)
    def test_expectations_follow_the_prompts_and_lower_the_squares(self, values) -> None:
        agent = self.trained(values)
        expected = agent.allocate(self.PROMPTS, 60).prior
        level = np.linspace(0.1, 0.9, 12)
        assert np.corrcoef(expected.mean, level)[0, 1] > 0.9
        assert (expected.rollouts > 0).all() and agent.metrics()["shrinkage"] > 0
        rng, sums = np.random.default_rng(2), np.zeros(2)
        for _ in range(200):
            rewards = np.concatenate([np.array(values)[rng.binomial(len(values) - 1, p, 2)] for p in level])
            shrunk = group_advantages(rewards, [2] * 12, prior=expected)
            sums += (shrunk**2).sum(), (group_advantages(rewards, [2] * 12) ** 2).sum()
        assert sums[0] < 0.95 * sums[1]
