"""The text regression against a plain one, its long-run stability, and the index of prompts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from viprl.predictors.base import Batch
from viprl.predictors.grid_filter import GridFilter
from viprl.predictors.table import RowIndex
from viprl.predictors.text_regression import TextMixture, TextRegression
from viprl.utils.threads import single_threaded


class Plain:
    """The same model, written as in a textbook: explicit sums and inverses, nothing shared or reused."""

    def __init__(self, columns: int) -> None:
        self.mean, self.precision = np.zeros(columns + 1), np.eye(columns + 1) / 4.0

    def predict(self, features: np.ndarray) -> np.ndarray:
        covariance = np.linalg.inv(self.precision)
        found = []
        for row in features:
            x = np.append(row, 1.0)
            found.append(expit(x @ self.mean / np.sqrt(1 + np.pi / 8 * (x @ covariance @ x))))
        return np.clip(found, 1e-3, 1 - 1e-3)

    def observe(self, features: np.ndarray, k: np.ndarray, n: np.ndarray, pseudocounts: float) -> None:
        prior = 0.99 * self.precision + 0.01 * np.eye(len(self.mean)) / 4.0
        start = self.mean
        rows = [np.append(row, 1.0) for row in features]
        weights = [m * (pseudocounts + 1) / (pseudocounts + m) for m in n]
        mean = start
        for _ in range(50):
            gradient, precision = prior @ (mean - start), prior.copy()
            for x, wins, m, w in zip(rows, k, n, weights, strict=True):
                p = expit(x @ mean)
                gradient = gradient + w * (p - wins / m) * x
                precision += w * p * (1 - p) * np.outer(x, x)
            mean = mean - np.linalg.solve(precision, gradient)
        self.mean, self.precision = mean, precision


def stream(steps: int, columns: int, rng: np.random.Generator):
    direction = rng.normal(size=columns)
    for _ in range(steps):
        features = rng.normal(size=(10, columns))
        n = rng.integers(1, 12, 10).astype(float)
        yield features, rng.binomial(n.astype(int), expit(features @ direction)).astype(float), n


def test_equals_a_plain_implementation():
    """The Newton steps stop when they gain less than 1e-6, which leaves the mode known to about 1e-3."""
    ours, plain = TextRegression(), Plain(5)
    for features, k, n in stream(30, 5, np.random.default_rng(0)):
        x = ours.design(features)
        np.testing.assert_allclose(ours.expected(x)[1:], plain.predict(features)[1:], atol=2e-3)
        ours.learn(x, k, n, prior_pseudocounts=1.0)
        plain.observe(features, k, n, pseudocounts=1.0)
    assert ours._mean is not None
    np.testing.assert_allclose(ours._mean, plain.mean, atol=5e-3)
    np.testing.assert_allclose(ours._precision, plain.precision, rtol=5e-3, atol=5e-2)


def said_before(member: TextRegression, features, k, n) -> np.ndarray:
    """What the member predicts of a batch before it learns from it."""
    x = member.design(features)
    before = member.expected(x)
    member.learn(x, k, n, prior_pseudocounts=1.0)
    return before


def test_mixture_is_the_members_weighted_by_what_they_predicted():
    mixture = TextMixture(forgetting_factor=0.9)
    members = [TextRegression(prior_variance=0.25), TextRegression(prior_variance=64)]
    scores = np.zeros(2)
    for features, k, n in stream(20, 5, np.random.default_rng(3)):
        said = np.array([said_before(member, features, k, n) for member in members])
        share = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose(mixture.predict(features), share @ said, rtol=1e-12)
        np.testing.assert_allclose(mixture.observe(features, k, n, prior_pseudocounts=1.0), share @ said, rtol=1e-12)
        count = 2 / (1 + n)  # of independent rollouts, a rollout
        scores = 0.9 * scores + (count * (k * np.log(said) + (n - k) * np.log(1 - said))).sum(axis=1)


def test_mixture_observes_what_it_was_not_asked_about_last():
    """What was said of the features asked about last is kept; it must not be taken for others, nor outlive learning."""
    asked, silent = TextMixture(), TextMixture()
    for features, k, n in stream(6, 5, np.random.default_rng(6)):
        asked.predict(features)
        asked.predict(features[::-1])
        for _ in range(2):
            once = silent.observe(features, k, n, prior_pseudocounts=1.0)
            np.testing.assert_array_equal(asked.observe(features, k, n, prior_pseudocounts=1.0), once)
            np.testing.assert_array_equal(asked.predict(features), silent.predict(features))


@pytest.mark.parametrize(("slope", "winner"), [(0.0, 0), (4.0, 1)])
def test_mixture_finds_out_how_much_a_text_tells(slope, winner):
    rng, mixture = np.random.default_rng(4), TextMixture()
    direction = slope * rng.normal(size=20)
    for _ in range(10):
        features, n = rng.normal(size=(20, 20)), np.full(20, 8.0)
        mixture.observe(features, rng.binomial(8, expit(features @ direction)).astype(float), n, prior_pseudocounts=1.0)
    assert mixture._log_weights[winner] == 0 > mixture._log_weights[1 - winner] + 1


def test_a_mixture_of_projected_features_continues_from_its_state():
    mixture, resumed = TextMixture(), TextMixture()
    steps = list(stream(4, 200, np.random.default_rng(5)))
    for features, k, n in steps[:2]:
        mixture.observe(features, k, n, prior_pseudocounts=1.0)
    resumed.load_state_dict(mixture.state_dict())
    for features, k, n in steps[2:]:
        once = mixture.observe(features, k, n, prior_pseudocounts=1.0)
        np.testing.assert_array_equal(resumed.observe(features, k, n, prior_pseudocounts=1.0), once)


def test_two_thousand_steps_leave_everything_in_its_bounds():
    """Symmetric, positive definite, normalised, and what is kept up by differences equal to a fresh sum."""
    rng = np.random.default_rng(3)
    features = rng.normal(size=(60, 6))
    p = rng.beta(0.3, 0.4, 60)
    predictor = GridFilter()
    for _ in range(2000):
        rows = rng.choice(60, 8, replace=False)
        batch = Batch(tuple(map(str, rows)), features[rows])
        prediction = predictor.predict(batch)
        assert ((prediction.reward_variance > 0) & (prediction.reward_variance <= 0.25)).all()
        assert ((prediction.success_probability > 0) & (prediction.success_probability < 1)).all()
        predictor.observe(batch, rng.binomial(8, p[rows]).astype(float), np.full(8, 8.0))
    for member in predictor.text.members:
        assert member._precision is not None
        np.testing.assert_array_equal(member._precision, member._precision.T)
        assert np.linalg.eigvalsh(member._precision)[0] > 0.99 / member.prior_variance
    assert predictor.text._log_weights.max() == 0
    belief = predictor.belief._belief[:60]
    np.testing.assert_allclose(belief.sum(axis=1), 1, rtol=1e-6)
    assert (belief >= 0).all()
    np.testing.assert_allclose(predictor.belief._histograms.sum(axis=0), belief.astype(float).sum(axis=0), atol=1e-9)
    assert np.isfinite(predictor.belief._log_weights).all() and predictor.belief._log_weights.max() == 0


class TestRowIndex:
    def test_rows_in_the_order_of_arrival(self):
        index = RowIndex()
        assert index.find(("a", "b")).tolist() == [-1, -1]
        assert index.add(("b", "a", "b")).tolist() == [0, 1, 0]
        assert index.add(("a", "c", "b")).tolist() == [1, 2, 0]
        assert index.add(("c", "a")).tolist() == [2, 1]
        assert index.keys == ["b", "a", "c"] and len(index) == 3
        assert RowIndex(index.keys).find(("c", "x")).tolist() == [2, -1]

    def test_no_keys(self):
        assert RowIndex().find(()).shape == RowIndex().add(()).shape == (0,)


def test_select_keeps_keys_and_features_together():
    batch = Batch(("a", "b", "c"), np.arange(6.0).reshape(3, 2))
    some = batch.select(np.array([True, False, True]))
    assert some.keys == ("a", "c")
    np.testing.assert_array_equal(some.features, [[0, 1], [4, 5]])
    assert batch.select(np.ones(3, dtype=bool)).keys == batch.keys
    assert Batch(("a", "b"), None).select(np.array([False, True])) == Batch(("b",), None)


def test_single_threaded_is_so_only_inside():
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def threads() -> set[int]:
        return {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"}

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        outside = threads()
        assert single_threaded(threads)() == {1}

        def fails() -> None:
            raise KeyError

        with pytest.raises(KeyError):
            single_threaded(fails)()
        assert threads() == outside
