"""The default predictor: exact where it can be checked by hand, calibrated, learning drift, prior and text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, xlogy

from viprl.errors import StateError
from viprl.predictors.base import Batch
from viprl.predictors.grid_belief import SCORES, walk
from viprl.predictors.grid_filter import LEARNING, STEADY, GridFilter, success_grid
from viprl.predictors.grid_filter import Z as GRID
from viprl.predictors.text_regression import TextRegression

P = expit(GRID)


def batch(rows, features=None) -> Batch:
    return Batch(tuple(map(str, rows)), None if features is None else np.asarray(features)[list(rows)])


def still(predictor: GridFilter) -> GridFilter:
    """Nothing moves between visits: every candidate is the identity."""
    predictor.belief.grid = replace(success_grid(), walks=np.eye(len(GRID))[None])
    predictor.belief._log_weights = np.zeros(1)
    return predictor


def bernoulli_loss(p: np.ndarray, k: np.ndarray, n: float) -> float:
    return float(-(xlogy(k / n, p) + xlogy(1 - k / n, 1 - p)).mean())


def stream(predictor, p_of_visit, visits, n, rng, features=None, size=64):
    """Visits of all prompts in shuffled batches; yields (visit, rows, prediction, successes)."""
    prompts = len(p_of_visit(0))
    for visit in range(visits):
        order = rng.permutation(prompts)
        for rows in np.split(order, range(size, prompts, size)):
            prediction = predictor.predict(batch(rows, features))
            k = rng.binomial(n, p_of_visit(visit)[rows]).astype(float)
            yield visit, rows, prediction, k
            predictor.observe(batch(rows, features), k, np.full(len(rows), float(n)))


class TestWalks:
    @pytest.mark.parametrize(("variance", "trend"), STEADY)
    def test_steady_walks_have_their_mean_and_variance(self, variance, trend):
        """Where the variance is too small to carry the trend, nobody steps back and half of the trend remains."""
        moves = walk(GRID, variance, trend, np.ones(len(GRID)))
        middle, gap = len(GRID) // 2, GRID[1] - GRID[0]
        move = GRID - GRID[middle]
        np.testing.assert_allclose(moves.sum(axis=1), 1)
        assert (moves >= -1e-15).all()
        carried = variance / gap >= abs(trend)
        expected = trend if carried else np.sign(trend) * (abs(trend) + variance / gap) / 2
        assert moves[middle] @ move == pytest.approx(expected, rel=1e-6, abs=1e-12)
        if variance >= 0.1:
            spread = moves[middle] @ move**2 - (moves[middle] @ move) ** 2
            assert spread == pytest.approx(variance, rel=0.15)

    @pytest.mark.parametrize(("variance", "trend"), LEARNING)
    def test_learning_walks_leave_the_ends_alone(self, variance, trend):
        moves = walk(GRID, variance, trend, 4 * P * (1 - P))
        assert moves[0, 0] > 0.995 and moves[-1, -1] > 0.995
        assert moves[len(GRID) // 2, len(GRID) // 2] < moves[0, 0]


class TestByHand:
    def test_one_visit_is_bayes_on_the_prior(self):
        predictor = still(GridFilter())
        prior = predictor.belief.prior(np.zeros(1))[0]
        predictor.observe(batch([0]), np.array([3.0]), np.array([8.0]))
        posterior = [w * p**3 * (1 - p) ** 5 for w, p in zip(prior, P, strict=True)]
        total = sum(posterior)
        mean = sum(w * p for w, p in zip(posterior, P, strict=True)) / total
        variance = sum(w * p * (1 - p) for w, p in zip(posterior, P, strict=True)) / total
        prediction = predictor.predict(batch([0]))
        assert prediction.success_probability[0] == pytest.approx(mean, rel=1e-5)
        assert prediction.reward_variance[0] == pytest.approx(variance, rel=1e-5)

    def test_visits_add_up_when_nothing_moves(self):
        once, twice = still(GridFilter()), still(GridFilter())
        once.observe(batch([0]), np.array([5.0]), np.array([12.0]))
        twice.observe(batch([0]), np.array([2.0]), np.array([4.0]))
        twice.observe(batch([0]), np.array([3.0]), np.array([8.0]))
        a, b = once.predict(batch([0])), twice.predict(batch([0]))
        np.testing.assert_allclose(a.success_probability, b.success_probability, rtol=1e-5)

    def test_the_candidates_weights_are_their_predictive_likelihoods(self):
        predictor = GridFilter(forgetting_factor=1.0)
        predictor.observe(batch([0]), np.array([1.0]), np.array([8.0]))
        before = predictor.belief._belief[0].astype(float)
        predictor.observe(batch([0]), np.array([7.0]), np.array([8.0]))
        likelihood = P**7 * (1 - P)
        expected = np.log([before @ walk @ likelihood for walk in predictor.belief.grid.walks])
        got = predictor.belief._log_weights
        np.testing.assert_allclose(got - got.max(), expected - expected.max(), rtol=1e-5, atol=1e-6)

    def test_the_histograms_are_the_sum_of_all_beliefs(self):
        """Kept up by differences; equal to a sum over all prompts after many visits."""
        rng = np.random.default_rng(0)
        predictor = GridFilter()
        features = rng.normal(size=(40, 5))
        p = rng.beta(0.4, 0.6, 40)
        for _ in stream(predictor, lambda _: p, 30, 8, rng, features, size=13):
            pass
        used = len(predictor.belief._index)
        assert used == 40
        np.testing.assert_allclose(
            predictor.belief._histograms.sum(axis=0), predictor.belief._belief[:used].sum(axis=0), atol=1e-3
        )
        assert predictor.belief._histograms.shape == (len(SCORES), len(GRID))


class TestLearning:
    def test_calibrated_on_u_shaped_success_rates(self):
        rng = np.random.default_rng(1)
        p = rng.beta(0.3, 0.5, 512)
        losses, ideal, variance = [], [], []
        wins = np.zeros(512)
        for visit, rows, prediction, k in stream(GridFilter(), lambda _: p, 8, 8, rng):
            if visit >= 1:
                best = (0.3 + wins[rows]) / (0.8 + 8 * visit)
                losses.append(bernoulli_loss(prediction.success_probability, k, 8))
                ideal.append(bernoulli_loss(best, k, 8))
                variance.append(prediction.reward_variance.mean() / (p[rows] * (1 - p[rows])).mean())
            wins[rows] += k
        assert np.mean(losses) < np.mean(ideal) + 0.01
        assert 0.9 < np.mean(variance) < 1.1

    def test_drift_is_learned(self):
        """Rising success prefers walks with a trend; resting success prefers walks that hardly move."""
        rng = np.random.default_rng(2)
        z = rng.normal(-1, 1.5, 256)
        trends = {}
        for name, rise in (("rising", 0.3), ("resting", 0.0)):
            predictor = GridFilter()
            for _ in stream(predictor, lambda visit, rise=rise: expit(z + rise * visit), 10, 8, rng):
                pass
            weights = np.exp(predictor.belief._log_weights)
            pairs = np.array(STEADY + LEARNING)
            trends[name] = (weights @ pairs / weights.sum()).tolist()
        assert trends["rising"][1] > 0.2 > trends["resting"][1] + 0.1
        assert trends["resting"][0] < 0.1

    def test_text_helps_new_prompts_and_noise_does_not_harm(self):
        rng = np.random.default_rng(3)
        kind = rng.integers(0, 6, 768)
        p = np.array([0.02, 0.1, 0.3, 0.6, 0.9, 0.98])[kind]
        informative = np.eye(6)[kind] + rng.normal(0, 0.05, (768, 6))
        loss = {}
        for name, features in (("none", None), ("text", informative), ("noise", rng.normal(size=(768, 6)))):
            predictor = GridFilter()
            rng_ = np.random.default_rng(4)
            values = [
                bernoulli_loss(prediction.success_probability, k, 8)
                for i, (_, _, prediction, k) in enumerate(stream(predictor, lambda _: p, 1, 8, rng_, features))
                if i >= 4
            ]
            loss[name] = np.mean(values)
        assert loss["text"] < loss["none"] - 0.15
        assert loss["noise"] < loss["none"] + 0.02

    def test_what_the_text_learns_later_reaches_prompts_seen_before(self):
        """A prompt seen once, 0 of 2; then its kind turns out to be easy: it is believed to be easier than before."""
        features = np.zeros((200, 2))
        features[::2, 0], features[1::2, 1] = 1.0, 1.0  # two kinds
        predictor = GridFilter()
        predictor.observe(batch([0], features), np.array([0.0]), np.array([2.0]))
        early = predictor.predict(batch([0], features)).success_probability[0]
        for start in range(2, 200, 18):
            rows = list(range(start, min(start + 18, 200)))
            k = np.array([8.0 if row % 2 == 0 else 0.0 for row in rows])
            predictor.observe(batch(rows, features), k, np.full(len(rows), 8.0))
        assert predictor.predict(batch([0], features)).success_probability[0] > early + 0.01


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 4096), (4096, 4096), (8, 16)])
def test_extremes_stay_finite(k, n):
    predictor = GridFilter()
    for _ in range(50):
        predictor.observe(batch([0, 1]), np.array([k, n - k], dtype=float), np.full(2, float(n)))
        prediction = predictor.predict(batch([0, 1, 2]))
        assert np.isfinite(prediction.success_probability).all()
        assert ((prediction.reward_variance >= 0) & (prediction.reward_variance <= 0.25)).all()
    np.testing.assert_allclose(predictor.belief._belief[:2].sum(axis=1), 1, rtol=1e-5)


def test_other_features_are_refused():
    predictor = GridFilter()
    predictor.observe(batch([0], np.ones((1, 3))), np.array([1.0]), np.array([8.0]))
    with pytest.raises(StateError, match="4 columns"):
        predictor.predict(batch([0], np.ones((1, 4))))


@pytest.mark.parametrize("many", [1_500.0, 4_096.0, 1e6])
def test_a_turn_that_seemed_impossible_is_survived(many):
    """One prompt in all of a large batch, always right, then always wrong, then half."""
    predictor, n = GridFilter(), np.array([many])
    for share in (1.0, 1.0, 0.0, 0.5):
        predictor.observe(batch([0]), share * n, n)
        assert predictor.belief._belief[0] @ P == pytest.approx(share, abs=0.01)
        assert np.isfinite(predictor.predict(batch([0, 1])).reward_variance).all()
    assert np.isfinite(predictor.belief._histograms).all()


def test_wide_features_are_projected_and_keep_their_inner_products():
    rng = np.random.default_rng(6)
    x = rng.normal(size=(30, 384))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    regression = TextRegression(columns=128)
    projected = regression.design(x)[:, :-1]
    assert projected.shape == (30, 128)
    assert np.abs(projected @ projected.T - x @ x.T).max() < 0.5
    assert np.mean((projected * projected).sum(axis=1)) == pytest.approx(1, abs=0.1)


class TestPassedOver:
    """Prompts that could have been sampled, and were not."""

    @staticmethod
    def seen(visits: int = 12) -> GridFilter:
        predictor, n = GridFilter(), np.full(3, 16.0)
        for _ in range(visits):
            predictor.observe(batch("abc"), np.array([0.0, 8, 16]), n)
        return predictor

    def test_the_belief_drifts_as_between_two_visits(self):
        predictor = self.seen()
        before, grid = predictor.belief.before(("a", "c"), np.zeros(2)), predictor.belief.grid
        weights = np.exp(predictor.belief._log_weights)
        drift = np.tensordot(weights / weights.sum(), grid.walks, axes=1)
        predictor.pass_over(batch("ac"))
        np.testing.assert_allclose(predictor.belief.before(("a", "c"), np.zeros(2)), before @ drift, atol=1e-6)

    def test_they_become_uncertain(self):
        predictor, last = self.seen(), None
        for _ in range(30):
            prediction = predictor.predict(batch("abc"))
            if last is not None:
                assert (prediction.pseudocounts < last.pseudocounts).all()
                assert (prediction.variance_rms[[0, 2]] > last.variance_rms[[0, 2]]).all()
            last = prediction
            predictor.pass_over(batch("abc"))

    def test_the_prior_counts_them_once(self):
        predictor = self.seen()
        for _ in range(50):
            predictor.pass_over(batch("abcd"))
        assert len(predictor.belief) == 3
        total = predictor.belief._belief[:3].sum(axis=0)
        np.testing.assert_allclose(predictor.belief._histograms.sum(axis=0), total, atol=1e-4)
        assert (predictor.belief._histograms >= 0).all()

    def test_moments_by_quadrature(self):
        predictor = self.seen(1)
        prediction, b = predictor.predict(batch("ab")), predictor.belief.before(("a", "b"), np.zeros(2))
        np.testing.assert_allclose(prediction.variance_rms**2, b @ (P * (1 - P)) ** 2, rtol=1e-9)
        mean = b @ P
        spread = np.einsum("qg,qg->q", b, (P - mean[:, None]) ** 2)
        np.testing.assert_allclose(prediction.pseudocounts, b @ (P * (1 - P)) / spread, rtol=1e-6)
        assert (prediction.variance_rms >= prediction.reward_variance).all()
