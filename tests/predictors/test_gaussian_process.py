"""The published Gaussian process against scikit-learn's conditional and against the paper's recursion written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist
from scipy.special import expit, logit
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF

from viprl.errors import InputError
from viprl.predictors.base import Batch
from viprl.predictors.gaussian_process import GaussianProcess
from viprl.utils.state_file import load, save

EPS, JITTER = 0.05, 1e-4


def features(n: int, seed: int = 0, d: int = 5) -> np.ndarray:
    """Exact in float32, which is what the predictor keeps."""
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32).astype(float)


def batch(x: np.ndarray, rows) -> Batch:
    return Batch(tuple(f"prompt {row}" for row in rows), x[list(rows)])


def latent(gp: GaussianProcess, x: np.ndarray, rows) -> np.ndarray:
    return logit(gp.predict(batch(x, rows)).success_probability)


def clipped_logit(k, n) -> np.ndarray:
    return logit(np.clip(np.asarray(k) / np.asarray(n), EPS, 1 - EPS))


class Recursion:
    """Section 5.1, literally: means of a pool known in advance, the full kernel, no coefficients."""

    def __init__(self, x: np.ndarray, h: float, prior_mean: float = 0.0) -> None:
        self.kernel = np.exp(-(cdist(x, x) ** 2) / (2 * h * h))
        self.mean = np.full(len(x), prior_mean)

    def step(self, rows, k, n) -> None:
        rows, observed = list(rows), clipped_logit(k, n)
        gram = self.kernel[np.ix_(rows, rows)] + JITTER * np.eye(len(rows))
        self.mean = self.mean + self.kernel[:, rows] @ np.linalg.inv(gram) @ (observed - self.mean[rows])
        self.mean[rows] = observed


def steps(count: int, pool: int, size: int, seed: int = 1):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        rows = rng.choice(pool, size, replace=False)
        n = rng.integers(2, 17, size).astype(float)
        yield rows, rng.binomial(n.astype(int), rng.random(size)).astype(float), n


def test_before_any_outcome_everything_is_at_the_prior() -> None:
    x = features(6)
    np.testing.assert_allclose(GaussianProcess().predict(batch(x, range(6))).success_probability, 0.5)
    np.testing.assert_allclose(latent(GaussianProcess(prior_mean=-1.0), x, range(6)), -1)


@pytest.mark.parametrize("prior_mean", [0.0, -1.5])
@pytest.mark.parametrize("h", [0.7, 3.0])
def test_one_step_is_scikit_learn_s_conditional(prior_mean: float, h: float) -> None:
    x = features(30)
    k, n = np.array([0, 8, 3, 5, 1, 7.0]), np.array([8, 8, 4, 16, 8, 8.0])
    gp = GaussianProcess(prior_mean=prior_mean, bandwidth=h)
    gp.observe(batch(x, range(6)), k, n)
    reference = GaussianProcessRegressor(RBF(h, "fixed"), alpha=JITTER, optimizer=None)
    reference.fit(x[:6], clipped_logit(k, n) - prior_mean)
    expected = prior_mean + reference.predict(x[6:])
    np.testing.assert_allclose(latent(gp, x, range(6, 30)), expected, atol=1e-9)
    np.testing.assert_allclose(latent(gp, x, range(6)), clipped_logit(k, n), atol=1e-12)


def test_many_steps_are_nested_conditionals_for_prompts_seen_and_unseen() -> None:
    """Each step: scikit-learn's conditional with the previous mean as its prior mean and a fresh covariance."""
    x, h = features(40), 1.5
    gp, mean = GaussianProcess(bandwidth=h), np.zeros(40)
    for rows, k, n in steps(12, 30, 7):  # prompts 30 to 39 are never seen
        gp.observe(batch(x, rows), k, n)
        reference = GaussianProcessRegressor(RBF(h, "fixed"), alpha=JITTER, optimizer=None)
        reference.fit(x[rows], clipped_logit(k, n) - mean[rows])
        mean = mean + reference.predict(x)
        mean[rows] = clipped_logit(k, n)
        np.testing.assert_allclose(latent(gp, x, range(40)), mean, atol=1e-6)


def test_many_steps_are_not_one_refit() -> None:
    """The covariance is K again at every step; a joint conditional on both steps gives another mean."""
    x, h = features(10), 3.0
    gp = GaussianProcess(bandwidth=h)
    k, n = np.array([1, 7, 4.0]), np.full(3, 8.0)
    gp.observe(batch(x, [0, 1, 2]), k, n)
    gp.observe(batch(x, [3, 4, 5]), k, n)
    joint = GaussianProcessRegressor(RBF(h, "fixed"), alpha=JITTER, optimizer=None)
    joint.fit(x[:6], np.tile(clipped_logit(k, n), 2))
    assert np.abs(joint.predict(x[6:]) - latent(gp, x, range(6, 10))).max() > 1e-2


@pytest.mark.parametrize("known_in_advance", [True, False])
def test_pool_known_in_advance_or_growing(known_in_advance: bool) -> None:
    x, h = features(50, d=3), 2.0
    gp, reference = GaussianProcess(bandwidth=h), Recursion(x, h)
    if known_in_advance:
        gp.register(batch(x, range(50)))
    for rows, k, n in steps(15, 45, 6):
        gp.observe(batch(x, rows), k, n)
        reference.step(rows, k, n)
        np.testing.assert_allclose(latent(gp, x, range(50)), reference.mean, atol=1e-6)


def test_a_prompt_of_a_pool_without_outcomes_predicts_the_same_as_one_that_arrives_late() -> None:
    x = features(30)
    early, late = GaussianProcess(bandwidth=1.0), GaussianProcess(bandwidth=1.0)
    early.register(batch(x, range(30)))
    for rows, k, n in steps(5, 20, 5):
        early.observe(batch(x, rows), k, n)
        late.observe(batch(x, rows), k, n)
    np.testing.assert_allclose(latent(early, x, range(20, 30)), latent(late, x, range(20, 30)), atol=1e-9)


def test_median_heuristic_of_a_pool() -> None:
    x = features(40)
    gp = GaussianProcess()
    gp.register(batch(x, range(40)))
    assert gp.bandwidth == pytest.approx(np.median(pdist(x)), rel=1e-12)
    for rows, k, n in steps(2, 40, 5):
        gp.observe(batch(x, rows), k, n)
    assert gp.bandwidth == pytest.approx(np.median(pdist(x)), rel=1e-12)


def test_median_heuristic_of_a_growing_pool_follows_the_prompts_seen() -> None:
    x, gp = features(40), GaussianProcess()
    for end in (10, 25, 40):
        rows = range(end - 10, end)
        gp.observe(batch(x, rows), np.full(10, 2.0), np.full(10, 4.0))
        seen = [*range(0, 10), *(range(15, 25) if end > 10 else ()), *(range(30, 40) if end > 25 else ())]
        assert gp.bandwidth == pytest.approx(np.median(pdist(x[seen])), rel=1e-12)


def test_median_of_a_sample_is_close() -> None:
    x = features(600)
    gp = GaussianProcess(median_of=200)
    gp.register(batch(x, range(600)))
    assert gp.bandwidth == pytest.approx(np.median(pdist(x)), rel=0.05)


def test_bandwidth_of_one_prompt_or_equal_prompts_is_finite() -> None:
    same = np.ones((4, 3))
    for rows in ([0], range(4)):
        gp = GaussianProcess()
        gp.observe(batch(same, rows), np.ones(len(rows)), np.full(len(rows), 4.0))
        assert gp.bandwidth == 1
        assert np.isfinite(gp.predict(batch(same, range(4))).success_probability).all()


def test_clip_of_all_right_and_all_wrong() -> None:
    x = features(3)
    gp = GaussianProcess(bandwidth=1.0)
    gp.observe(batch(x, range(3)), np.array([0, 8, 1.0]), np.array([8, 8, 100.0]))
    np.testing.assert_allclose(gp.predict(batch(x, range(3))).success_probability, [0.05, 0.95, 0.05])
    gentle = GaussianProcess(bandwidth=1.0, clip=0.2)
    gentle.observe(batch(x, range(3)), np.array([0, 8, 4.0]), np.full(3, 8.0))
    np.testing.assert_allclose(gentle.predict(batch(x, range(3))).success_probability, [0.2, 0.8, 0.5])


def test_weights_are_plug_in() -> None:
    x, gp = features(5), GaussianProcess(bandwidth=1.0)
    gp.observe(batch(x, range(3)), np.array([1, 2, 3.0]), np.full(3, 8.0))
    prediction = gp.predict(batch(x, range(5)))
    p = prediction.success_probability
    np.testing.assert_allclose(prediction.reward_variance, p * (1 - p))
    np.testing.assert_allclose(p, expit(latent(gp, x, range(5))))


def test_different_prompts_with_equal_features_do_not_break_the_step() -> None:
    x = np.repeat(features(3), 4, axis=0)
    gp, reference = GaussianProcess(bandwidth=1.0), Recursion(x, 1.0)
    k, n = np.tile([0, 2, 6, 8.0], 3), np.full(12, 8.0)
    gp.observe(batch(x, range(12)), k, n)
    reference.step(range(12), k, n)
    np.testing.assert_allclose(latent(gp, x, range(12)), reference.mean, atol=1e-6)


def test_prompts_without_scorable_rollouts_are_skipped() -> None:
    x, one, other = features(6), GaussianProcess(bandwidth=1.0), GaussianProcess(bandwidth=1.0)
    one.observe(batch(x, range(3)), np.array([1, 0, 3.0]), np.array([4, 0, 4.0]))
    other.observe(batch(x, [0, 2]), np.array([1, 3.0]), np.full(2, 4.0))
    np.testing.assert_allclose(latent(one, x, range(6)), latent(other, x, range(6)), atol=1e-9)
    one.observe(batch(x, range(3)), np.zeros(3), np.zeros(3))
    np.testing.assert_allclose(latent(one, x, range(6)), latent(other, x, range(6)), atol=1e-9)


def test_distance_cache_changes_nothing() -> None:
    x = features(60)
    cached, uncached, overflowing = (GaussianProcess(bandwidth=1.2, cached=limit) for limit in (4096, 0, 30))
    for rows, k, n in steps(15, 60, 7):
        for gp in (cached, uncached, overflowing):
            gp.observe(batch(x, rows), k, n)
        np.testing.assert_allclose(latent(uncached, x, range(60)), latent(cached, x, range(60)), atol=1e-7)
        np.testing.assert_allclose(latent(overflowing, x, range(60)), latent(cached, x, range(60)), atol=1e-7)


def test_predicting_changes_nothing() -> None:
    x, one, other = features(30), GaussianProcess(), GaussianProcess()
    for rows, k, n in steps(4, 20, 5):
        one.predict(batch(x, range(30)))
        one.observe(batch(x, rows), k, n)
        other.observe(batch(x, rows), k, n)
    np.testing.assert_array_equal(latent(one, x, range(30)), latent(other, x, range(30)))


@pytest.mark.parametrize("registered", [True, False])
def test_state_round_trip_then_identical_for_ever(registered: bool, tmp_path) -> None:
    x = np.random.default_rng(5).normal(size=(60, 5))  # not exact in float32
    one, other = GaussianProcess(), GaussianProcess()
    if registered:
        one.register(batch(x, range(50)))
    play = list(steps(8, 60, 7))
    for rows, k, n in play[:4]:
        one.observe(batch(x, rows), k, n)
    save(tmp_path / "gp", one.state_dict(), kind="gp", version=1)
    other.load_state_dict(load(tmp_path / "gp", kind="gp", version=1))
    np.testing.assert_array_equal(latent(other, x, range(60)), latent(one, x, range(60)))
    for rows, k, n in play[4:]:
        for gp in (one, other):
            gp.observe(batch(x, rows), k, n)
    assert other.bandwidth == one.bandwidth
    np.testing.assert_allclose(latent(other, x, range(60)), latent(one, x, range(60)), atol=1e-12)


def test_a_state_is_a_snapshot() -> None:
    x, gp = features(20), GaussianProcess(bandwidth=1.0)
    play = list(steps(3, 20, 5))
    gp.observe(batch(x, play[0][0]), *play[0][1:])
    state, before = gp.state_dict(), latent(gp, x, range(20))
    gp.observe(batch(x, play[1][0]), *play[1][1:])
    other = GaussianProcess()
    other.load_state_dict(state)
    np.testing.assert_array_equal(latent(other, x, range(20)), before)
    other.observe(batch(x, play[2][0]), *play[2][1:])
    again = GaussianProcess()
    again.load_state_dict(state)
    np.testing.assert_array_equal(latent(again, x, range(20)), before)


def test_empty_state_round_trip() -> None:
    x, gp, other = features(5), GaussianProcess(), GaussianProcess()
    other.load_state_dict(gp.state_dict())
    other.observe(batch(x, range(5)), np.full(5, 1.0), np.full(5, 4.0))
    np.testing.assert_allclose(other.predict(batch(x, range(5))).success_probability, 0.25)


def test_without_features_it_says_what_to_do() -> None:
    with pytest.raises(InputError, match="features"):
        GaussianProcess().observe(Batch(("a",), None), np.ones(1), np.full(1, 2.0))
