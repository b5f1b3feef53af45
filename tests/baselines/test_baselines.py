"""The baselines: each predictor and rule against steps worked out by hand, brute force or another library."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brute
from scipy.special import expit, logit
from scipy.stats import betabinom
from sklearn.linear_model import Ridge

from viprl import VIP
from viprl.allocation.budget import Budget
from viprl.allocation.published import continuous_counts, rounded_counts
from viprl.baselines.beta_counts import BetaCounts, moments
from viprl.baselines.bots import ImplicitEvidence
from viprl.baselines.duet import LEAST, CostedDeviation, DeviationMean
from viprl.baselines.dynamo import CountPriority
from viprl.baselines.greso import SkipAndRedistribute, ZeroVarianceRuns
from viprl.baselines.gvm import InverseRootSuccess
from viprl.baselines.knapsack import Knapsack, increase, value
from viprl.baselines.learned_beta import LearnedBeta, fit_prior
from viprl.baselines.moving_average import MovingAverage
from viprl.baselines.proportional import ProportionalToDeviation, ProportionalToVariance
from viprl.baselines.ridge import RidgeRegression
from viprl.errors import InputError, StateError
from viprl.predictors.base import Batch, Prediction, Predictor
from viprl.predictors.table import PromptTable
from viprl.strategies import STRATEGIES, build_strategy

X = np.random.default_rng(0).normal(size=(40, 4))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def batch(rows, x: np.ndarray = X) -> Batch:
    rows = list(rows)
    return Batch(tuple(f"prompt {row}" for row in rows), x[rows])


def seen(predictor: Predictor, rows, k, n) -> Prediction:
    """One step, and what is believed of the same prompts afterwards."""
    predictor.observe(batch(rows), np.array(k, dtype=float), np.array(n, dtype=float))
    return predictor.predict(batch(rows))


def budget(prompts: int, total: int, min_rollouts=2, max_rollouts=None) -> Budget:
    return Budget.of(prompts, total, min_rollouts, max_rollouts, "rloo")


class TestPromptTable:
    def test_unknown_prompts_read_the_default_and_known_ones_what_was_written(self) -> None:
        table = PromptTable([0.5, -1.0])
        assert not table.knows(("a",)).any()
        table.write(("a", "b", "c"), np.arange(6.0).reshape(3, 2), np.array([True, False, True]))
        np.testing.assert_array_equal(table.read(("c", "b", "a")), [[4, 5], [0.5, -1], [0, 1]])
        np.testing.assert_array_equal(table.knows(("c", "b", "a")), [True, False, True])
        assert len(table) == 2

    def test_growing_keeps_all_rows_and_reads_are_copies(self) -> None:
        table = PromptTable([0.0])
        for i in range(300):
            table.write((str(i),), np.array([[float(i)]]), np.array([True]))
        keys = tuple(map(str, range(300)))
        table.read(keys)[:] = -1
        np.testing.assert_array_equal(table.read(keys)[:, 0], np.arange(300))


class TestMovingAverage:
    def test_by_hand(self) -> None:
        """2/8 sets .25; then 6/8 moves it .3 of the way to .75: .4; then 4/4 to .58."""
        predictor = MovingAverage()
        for (k, n), expected in zip([(2, 8), (6, 8), (4, 4)], [0.25, 0.4, 0.58], strict=True):
            prediction = seen(predictor, [0], [k], [n])
            np.testing.assert_allclose(prediction.success_probability, expected)
            np.testing.assert_allclose(prediction.reward_variance, expected * (1 - expected))
        np.testing.assert_allclose(predictor.predict(batch([1])).success_probability, 0.5)

    def test_the_preset_gets_the_paper_s_allocation(self) -> None:
        strategy, spec = build_strategy("ema"), budget(3, 30)
        p = seen(strategy.predictor, range(3), [0, 1, 4], [8, 8, 8]).success_probability
        counts = strategy.propose(batch(range(3)), np.arange(3), spec, 0).allocation.counts
        a = p * (1 - p)
        np.testing.assert_array_equal(counts, rounded_counts(continuous_counts(a, spec), a, spec))
        assert counts[0] == 2  # weight 0: L and no more

    @pytest.mark.parametrize("rate", [0, -0.1, 1.1, float("nan")])
    def test_a_rate_out_of_range_is_refused(self, rate: float) -> None:
        with pytest.raises(InputError, match="rate"):
            MovingAverage(rate=rate)


class TestBetaCounts:
    @pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (0.3, 0.6), (3.0, 9.5), (40.0, 0.2)])
    def test_moments_are_integrals(self, a: float, b: float) -> None:
        prediction = moments(np.array([a]), np.array([b]))

        def expectation(f) -> float:
            ends = {"weight": "alg", "wvar": (a - 1, b - 1)}  # p^(a-1) (1-p)^(b-1), singular ends included
            return quad(f, 0, 1, **ends)[0] / quad(lambda p: 1.0, 0, 1, **ends)[0]

        np.testing.assert_allclose(prediction.success_probability, expectation(lambda p: p), rtol=1e-9)
        np.testing.assert_allclose(prediction.reward_variance, expectation(lambda p: p * (1 - p)), rtol=1e-9)

    def test_by_hand(self) -> None:
        """lam = .5, prior (1, 2): after 3 of 8 (4, 7); after 2 of 2 (.5 4 + .5 1 + 2, .5 7 + .5 2 + 0) = (4.5, 4.5)."""
        predictor = BetaCounts(forgetting_factor=0.5, prior=(1, 2))
        np.testing.assert_allclose(predictor.belief(batch([0])), [[1, 2]])
        prediction = seen(predictor, [0], [3], [8])
        np.testing.assert_allclose(predictor.belief(batch([0])), [[4, 7]])
        np.testing.assert_allclose(prediction.success_probability, 4 / 11)
        np.testing.assert_allclose(prediction.reward_variance, 28 / (11 * 12))
        seen(predictor, [0], [2], [2])
        np.testing.assert_allclose(predictor.belief(batch([0])), [[4.5, 4.5]])
        seen(predictor, [1], [1], [4])  # another prompt: counts do not age between a prompt's own visits
        np.testing.assert_allclose(predictor.belief(batch([0, 1])), [[4.5, 4.5], [2, 5]])

    def test_the_preset_forgets_nothing(self) -> None:
        predictor = build_strategy("beta").predictor
        for _ in range(5):
            seen(predictor, [0], [1], [8])
        np.testing.assert_allclose(predictor.belief(batch([0])), [[6, 36]])

    def test_bad_arguments_are_refused(self) -> None:
        with pytest.raises(InputError, match="forgetting_factor"):
            BetaCounts(forgetting_factor=1.5)
        for prior in [(0, 1), (1, -1), (1, 2, 3), (float("nan"), 1)]:
            with pytest.raises(InputError, match="prior"):
                BetaCounts(prior=prior)


class TestLearnedBeta:
    def test_the_fit_is_the_maximum_of_the_penalised_likelihood(self) -> None:
        """SciPy's beta-binomial law and a grid search refined by another method."""
        k, n, w = np.array([0, 0, 8, 3, 1, 4]), np.array([8, 4, 8, 8, 2, 4]), np.array([5, 2, 3, 1, 1, 0.5])

        def loss(log_prior) -> float:
            a, b = np.exp(log_prior)
            return -float(w @ betabinom.logpmf(k, n, a, b)) + (log_prior[0] ** 2 + log_prior[1] ** 2) / 2

        expected = np.exp(brute(loss, [(-4, 4), (-4, 4)], Ns=30))  # then Nelder-Mead
        for start in (np.array([1.0, 1.0]), np.array([9.0, 0.02])):
            np.testing.assert_allclose(fit_prior(k, n, w, start), expected, rtol=2e-3)

    def test_it_finds_the_population(self) -> None:
        random, predictor = rng(3), LearnedBeta()
        k = random.binomial(8, random.beta(0.3, 0.6, 1500)).astype(float)
        for part in np.array_split(np.arange(1500), 15):
            predictor.observe(batch(part, np.zeros((1500, 1))), k[part], np.full(len(part), 8.0))
        np.testing.assert_allclose(predictor.prior, [0.3, 0.6], rtol=0.2)

    def test_only_first_visits_teach_the_prior_and_new_prompts_age_them(self) -> None:
        predictor = LearnedBeta(prior_forgetting_factor=0.5)
        seen(predictor, [0, 1, 2], [0, 0, 5], [8, 8, 8])
        prior = predictor.prior.copy()
        np.testing.assert_allclose(prior, fit_prior(np.array([0, 5]), np.array([8, 8]), np.array([2, 1]), np.ones(2)))
        seen(predictor, [0, 1], [8, 8], [8, 8])
        np.testing.assert_array_equal(predictor.prior, prior)
        seen(predictor, [0, 3], [8, 4], [8, 4])
        k, n, w = np.array([0, 5, 4]), np.array([8, 8, 4]), np.array([1, 0.5, 1])
        np.testing.assert_allclose(predictor.prior, fit_prior(k, n, w, prior), rtol=1e-3)
        assert predictor.prior[0] > prior[0]

    def test_the_belief_is_the_learned_prior_and_discounted_counts(self) -> None:
        predictor = LearnedBeta()
        seen(predictor, [0], [2], [8])
        seen(predictor, [0], [1], [4])
        excess = np.array([0.9 * 2 + 1, 0.9 * 6 + 3])
        np.testing.assert_allclose(predictor.belief(batch([0])), [predictor.prior + excess])

    def test_a_first_batch_without_any_success_keeps_every_weight_positive(self) -> None:
        predictor = LearnedBeta()
        for _ in range(50):
            prediction = seen(predictor, range(40), np.zeros(40), np.full(40, 8))
        assert (predictor.prior > 1e-3).all()
        assert (prediction.reward_variance > 1e-8).all()


class TestBots:
    def test_by_hand(self) -> None:
        """Beliefs .5; rates 1 and .25, so the surprise is .125 and p~ = .625: k~ = 5 of 8 and 2.5 of 4.

        a = 1 + .8 8 + .2 5 = 8.4, b = 1 + .8 0 + .2 3 = 1.6;  a = 1 + .8 1 + .2 2.5 = 2.3, b = 1 + .8 3 + .2 1.5 = 3.7.
        """
        predictor = ImplicitEvidence()
        prediction = seen(predictor, [0, 1], [8, 1], [8, 4])
        np.testing.assert_allclose(predictor.belief(batch([0, 1])), [[8.4, 1.6], [2.3, 3.7]])
        np.testing.assert_allclose(prediction.success_probability, [0.84, 2.3 / 6])
        np.testing.assert_allclose(prediction.reward_variance, [8.4 * 1.6 / 110, 2.3 * 3.7 / 42])

    def test_the_second_step_forgets_and_clips(self) -> None:
        """One prompt at (8.4, 1.6), rate 1: surprise .16, p~ = 1. a = .8 8.4 + .2 + .8 8 + .2 8 = 14.92, b = 1.48."""
        predictor = ImplicitEvidence()
        seen(predictor, [0, 1], [8, 1], [8, 4])
        seen(predictor, [0], [8], [8])
        np.testing.assert_allclose(predictor.belief(batch([0])), [[14.92, 1.48]])
        seen(predictor, [0, 1], [8, 4], [8, 4])  # surprises .0902 and .6167, mean .3535: .9098 + .3535 is clipped
        np.testing.assert_allclose(predictor.belief(batch([0]))[0], [0.8 * 14.92 + 0.2 + 8, 0.8 * 1.48 + 0.2])

    def test_without_forgetting_and_implicit_evidence_it_is_beta_counts(self) -> None:
        one, other = ImplicitEvidence(forgetting_factor=1, implicit=0), BetaCounts()
        for k in ([1, 5, 0], [2, 8, 0], [0, 0, 3]):
            a, b = seen(one, range(3), k, [8] * 3), seen(other, range(3), k, [8] * 3)
            np.testing.assert_allclose(a.reward_variance, b.reward_variance)

    def test_bad_arguments_are_refused(self) -> None:
        with pytest.raises(InputError, match="implicit"):
            ImplicitEvidence(implicit=-0.1)
        with pytest.raises(InputError, match="forgetting_factor"):
            ImplicitEvidence(forgetting_factor=1.5)


class TestGreso:
    def test_runs_by_hand(self) -> None:
        """p_easy and p_hard after each step, and keep = p^z of the prompts: all right, all wrong, mixed."""
        predictor = ZeroVarianceRuns()
        np.testing.assert_allclose(4 * predictor.predict(batch(range(3))).reward_variance, 1)
        prediction = seen(predictor, range(3), [8, 0, 4], [8, 8, 8])  # shares 1/3, 1/3: both above target
        np.testing.assert_allclose(predictor.explore, [0.49, 0.49])
        np.testing.assert_allclose(4 * prediction.reward_variance, [0.49, 0.49, 1])
        np.testing.assert_allclose(prediction.success_probability, [8.5 / 9, 0.5 / 9, 0.5])
        prediction = seen(predictor, range(3), [8, 0, 8], [8, 8, 8])
        np.testing.assert_allclose(predictor.explore, [0.48, 0.48])
        np.testing.assert_allclose(4 * prediction.reward_variance, [0.48**2, 0.48**2, 0.48])
        prediction = seen(predictor, [0, 1], [7, 8], [8, 8])  # mixed ends the run; all wrong, then right goes on
        np.testing.assert_allclose(predictor.explore, [0.47, 0.49])
        np.testing.assert_allclose(4 * prediction.reward_variance, [1, 0.47**3])

    def test_the_share_is_that_of_the_prompts_expected_to_be_kept(self) -> None:
        """Of 12 prompts 2 were all wrong twice: keep .49^2 .. now 2 p of 10 + 2 p are hard, below 1/6."""
        predictor, k = ZeroVarianceRuns(), [0, 0] + [4] * 10
        seen(predictor, range(12), k, [8] * 12)  # 2 of 12 reach the target
        np.testing.assert_allclose(predictor.explore, [0.51, 0.49])
        seen(predictor, range(12), k, [8] * 12)  # .98 of 10.98 do not
        np.testing.assert_allclose(predictor.explore, [0.52, 0.5])

    def test_limits(self) -> None:
        predictor = ZeroVarianceRuns()
        for _ in range(100):
            prediction = seen(predictor, range(3), [0, 0, 0], [8, 8, 8])
        np.testing.assert_allclose(predictor.explore, [0.95, 0.05])
        np.testing.assert_allclose(4 * prediction.reward_variance, 0.01)

    def test_rule_draws_who_is_skipped(self) -> None:
        keep = np.array([1.0, 0.3, 0.01, 1.0])
        prediction, spec = Prediction(np.full(4, 0.5), keep / 4), budget(4, 32)
        kept = np.zeros(4)
        for seed in range(400):
            counts = SkipAndRedistribute()(prediction, spec, rng(seed))
            active = counts > 2
            assert np.ptp(counts[active]) <= 1
            kept += active
        np.testing.assert_allclose(kept / 400, keep, atol=0.08)

    def test_what_the_kept_cannot_take_goes_to_the_skipped(self) -> None:
        prediction = Prediction(np.full(4, 0.5), np.array([0.25, 0, 0, 0]))
        np.testing.assert_array_equal(SkipAndRedistribute()(prediction, budget(4, 34, 2, 16), rng()), [16, 6, 6, 6])
        np.testing.assert_array_equal(SkipAndRedistribute()(prediction, budget(4, 20, 2, 16), rng()), [14, 2, 2, 2])
        nobody = Prediction(np.full(4, 0.5), np.zeros(4))
        np.testing.assert_array_equal(SkipAndRedistribute()(nobody, budget(4, 32), rng()), 8)


class TestDynamo:
    def test_priorities_by_hand(self) -> None:
        """p = 1/8, 0, 7/8, 1/2 and unseen: .4375, floor, mastered, 1 and 1."""
        predictor = CountPriority()
        seen(predictor, range(4), [1, 0, 7, 4], [8, 8, 8, 8])
        np.testing.assert_allclose(
            4 * predictor.predict(batch(range(5))).reward_variance, [0.4375, 0.01, 0.01, 1, 1], rtol=1e-12
        )
        prediction = seen(predictor, [2], [1], [8])  # 8 of 16: no longer mastered
        np.testing.assert_allclose(prediction.success_probability, 0.5)
        np.testing.assert_allclose(prediction.reward_variance, 0.25)

    def test_rule_by_hand(self) -> None:
        """Priorities 1, 1, .4, .01 of 50 rollouts, at most 20, at least 2: 20, 20, 8, 2."""
        prediction = Prediction(np.full(4, 0.5), np.array([0.25, 0.25, 0.1, 0.0025]))
        np.testing.assert_array_equal(ProportionalToVariance()(prediction, budget(4, 50, 2, 20), rng()), [20, 20, 8, 2])


class TestKnapsack:
    @staticmethod
    def best(p: np.ndarray, spec: Budget) -> float:
        ranges = [range(low, high + 1) for low, high in zip(spec.min_rollouts, spec.max_rollouts, strict=True)]
        return max(float(value(p, np.array(n)).sum()) for n in itertools.product(*ranges) if sum(n) == spec.total)

    @settings(max_examples=80, deadline=None)
    @given(data=st.data())
    def test_against_brute_force(self, data) -> None:
        p = np.array(
            data.draw(st.lists(st.sampled_from([0, 0.01, 0.1, 0.3, 0.5, 0.8, 0.97, 1]), min_size=1, max_size=4))
        )
        low = np.array([data.draw(st.integers(2, 4)) for _ in p])
        high = low + np.array([data.draw(st.integers(0, 6)) for _ in p])
        spec = budget(len(p), data.draw(st.integers(int(low.sum()), int(high.sum()))), low, high)
        counts = Knapsack()(Prediction.of_points(p), spec, rng())
        assert value(p, counts).sum() == pytest.approx(self.best(p, spec), rel=1e-12, abs=1e-15)

    def test_gains_are_differences_and_fall(self) -> None:
        p, n = np.meshgrid(np.linspace(0, 1, 21), np.arange(1, 40))
        np.testing.assert_allclose(increase(p, n), value(p, n + 1) - value(p, n), atol=1e-15)
        assert (np.diff(increase(p, n), axis=0) <= 0).all()
        np.testing.assert_allclose(value(np.array([0.25]), np.array([2])), (1 - 1 / 16 - 9 / 16) * 0.25 * 0.5625)

    def test_prompts_without_gain_share_what_is_left_and_chance_decides_ties(self) -> None:
        certain = Prediction.of_points(np.array([0.0, 1.0, 0.5, 0.0]))
        np.testing.assert_array_equal(Knapsack()(certain, budget(4, 28, 2, 10), rng()), [6, 6, 10, 6])
        same = Prediction.of_points(np.full(4, 0.3))
        assert {int(np.argmax(Knapsack()(same, budget(4, 33), rng(seed)))) for seed in range(60)} == set(range(4))


class TestNeymanAndGvm:
    def test_neyman_by_hand(self) -> None:
        """Deviations .5, .4, .3: of 48 rollouts 20, 16, 12. Certain prompts get L."""
        prediction = Prediction.of_points(np.array([0.5, 0.2, 0.1]))
        np.testing.assert_array_equal(ProportionalToDeviation()(prediction, budget(3, 48), rng()), [20, 16, 12])
        certain = Prediction.of_points(np.array([0.5, 0.0, 1.0]))
        np.testing.assert_array_equal(ProportionalToDeviation()(certain, budget(3, 40), rng()), [36, 2, 2])
        doubt = Prediction(np.full(3, 0.5), np.array([0.25, 0.16, 0.09]))
        np.testing.assert_array_equal(ProportionalToDeviation()(doubt, budget(3, 48), rng()), [20, 16, 12])

    def test_neyman_minimises_the_sum_of_variances_over_counts(self) -> None:
        prediction = Prediction.of_points(np.array([0.5, 0.1, 0.03]))
        spec, a = budget(3, 40), prediction.reward_variance
        counts = ProportionalToDeviation()(prediction, spec, rng())
        best = min((a / np.array([i, j, 40 - i - j])).sum() for i in range(2, 37) for j in range(2, 39 - i))
        assert (a / counts).sum() == pytest.approx(best, rel=2e-3)

    def test_gvm_by_hand(self) -> None:
        """p + .001/p at 1/40, 1/10, 1: .065, .11, 1.001; weights 3.922, 3.015, .9995 of 79.4 in all."""
        prediction = Prediction.of_points(np.array([0.025, 0.1, 1.0]))
        np.testing.assert_array_equal(InverseRootSuccess()(prediction, budget(3, 79), rng()), [39, 30, 10])

    def test_gvm_is_largest_at_the_root_of_alpha_and_gives_the_hopeless_the_least(self) -> None:
        p = np.array([0.0, 1e-4, np.sqrt(1e-3), 0.3, 1.0])
        counts = InverseRootSuccess()(Prediction.of_points(p), budget(5, 100), rng())
        assert counts[0] == 2
        assert int(np.argmax(counts)) == 2
        assert counts[3] > counts[4] > counts[1] > counts[0]


class TestRidge:
    def test_against_scikit_learn(self) -> None:
        predictor, random, rows, targets = RidgeRegression(penalty=0.7), rng(2), [], []
        for _ in range(4):
            chosen = random.choice(40, 9, replace=False)
            n = random.integers(2, 9, 9)
            k = random.binomial(n, 0.5)
            seen(predictor, chosen, k, n)
            rows.extend(chosen)
            targets.extend(logit(np.clip(k / n, 0.05, 0.95)))
        design = np.column_stack([X, np.ones(40)])
        reference = Ridge(alpha=0.7, fit_intercept=False).fit(design[rows], targets)
        p = predictor.predict(batch(range(40)))
        np.testing.assert_allclose(p.success_probability, expit(reference.predict(design)), rtol=1e-9)
        np.testing.assert_allclose(p.reward_variance, p.success_probability * (1 - p.success_probability))

    def test_by_hand(self) -> None:
        """One prompt x = 2, 8 of 8: g = logit .95, gram [[4, 2], [2, 1]] + 1, so w = g/3 and c = g/6; at 2: 5/6 g."""
        predictor, x = RidgeRegression(), np.array([[2.0]])
        predictor.observe(batch([0], x), np.array([8.0]), np.array([8.0]))
        np.testing.assert_allclose(
            logit(predictor.predict(batch([0], x)).success_probability), 5 / 6 * logit(0.95), rtol=1e-12
        )

    def test_features_are_needed_and_must_stay_the_same(self) -> None:
        predictor = RidgeRegression()
        with pytest.raises(InputError, match="features"):
            predictor.predict(Batch(("a",), None))
        seen(predictor, [0], [1], [8])
        with pytest.raises(StateError, match="4"):
            predictor.predict(batch([0], X[:, :2]))
        with pytest.raises(InputError, match="ridge"):
            VIP(strategy="ridge", features=None, cache=None)


PROMPTS = [f"What is {i} + {i}?" for i in range(24)]


def embed(texts: list[str]) -> np.ndarray:
    """Cheap features that differ between prompts."""
    return np.array([[len(text), sum(map(ord, text)) % 7, text.count("1")] for text in texts], dtype=float)


def agent(name: str) -> VIP:
    return VIP(strategy=name, features=embed, cache=None, min_rollouts=2, max_rollouts=20, seed=1)


def step(vip: VIP, prompts: list[str], random: np.random.Generator) -> np.ndarray:
    plan = vip.allocate(prompts, 7 * len(prompts) + 3)
    p = np.resize([0.5, 0.0, 1.0, 0.1], len(prompts))
    vip.observe(prompts, [(random.random(n) < c).astype(float).tolist() for n, c in zip(plan.counts, p, strict=True)])
    return plan.counts


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_preset_in_the_loop_of_an_engine(name: str, tmp_path) -> None:
    """Five steps, repeated and new prompts included; saved and loaded after three, the rest is the same."""
    one, other, batches = agent(name), agent(name), [PROMPTS[:20], PROMPTS[:20], [*PROMPTS[:19], PROMPTS[0]], PROMPTS]
    batches.append(PROMPTS[::-1])
    for prompts in batches[:3]:
        counts = step(one, prompts, rng(7))
        assert counts.sum() == 7 * len(prompts) + 3
        assert ((counts >= 2) & (counts <= 20)).all()
    one.save(tmp_path / "state")
    other.load(tmp_path / "state")
    for prompts in batches[3:]:
        np.testing.assert_array_equal(step(one, prompts, rng(8)), step(other, prompts, rng(8)))
        np.testing.assert_array_equal(one.predict([*PROMPTS, "new"]), other.predict([*PROMPTS, "new"]))
    assert (one.predict(PROMPTS) >= 0).all()
    assert (one.predict(PROMPTS) <= 1).all()


@pytest.mark.parametrize("name", ["ema", "beta", "learned_beta", "bots", "dynamo", "neyman"])
def test_uncertain_prompts_get_more_than_settled_ones(name: str) -> None:
    vip, random = agent(name), rng(3)
    for _ in range(8):
        counts = step(vip, PROMPTS, random)
    kind = np.arange(24) % 4
    assert counts[kind == 0].mean() > 1.5 * counts[(kind == 1) | (kind == 2)].mean()


class TestDuet:
    def test_running_means_by_hand(self):
        predictor, batch = DeviationMean(), Batch(("a", "b", "c"), None)
        assert predictor.predict(batch).reward_variance.tolist() == [0.25] * 3
        predictor.observe(batch, np.array([2.0, 0, 0]), np.array([4.0, 4, 0]))
        predictor.observe(batch, np.array([1.0, 0, 0]), np.array([5.0, 4, 0]))
        s = (0.5 + 0.4) / 2  # sqrt(.5 .5) and sqrt(.2 .8)
        found = predictor.predict(batch)
        np.testing.assert_allclose(found.reward_variance, np.array([s, LEAST, 0.9 / 4]) ** 2)
        np.testing.assert_allclose(found.success_probability, [0.35, 0, 0.5])

    def test_a_limited_budget_by_hand(self):
        # s/sqrt(c) = .5, .25, .1: with scale 20 the counts 10, 5, 2 cost 10 + 20 + 8
        prediction = Prediction(np.full(3, 0.5), np.array([0.25, 0.25, 0.04]))
        limited = budget(3, 24, 2, 16).limited(38.0, np.array([1.0, 4.0, 4.0]))
        counts = CostedDeviation()(prediction, limited, rng())
        assert counts.tolist() == [10, 5, 2]

    def test_with_equal_costs_it_is_neymans(self):
        prediction = Prediction.of_points(np.array([0.5, 0.1, 0.9, 0.99]))
        duet, neyman = (rule()(prediction, budget(4, 28), rng()) for rule in (CostedDeviation, ProportionalToDeviation))
        assert (duet == neyman).all()
