"""The default predictor: its formulas, its calibration, what it learns, and that it and its guard do no harm."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from viprl.predictors.beta_mixture import DISCOUNTS, LEVELS, STRENGTHS, BetaMixture, TextRegression

from viprl.allocation.budget import Budget
from viprl.allocation.exact import exact_counts
from viprl.allocation.guard import SHARES, Guard, mixed
from viprl.allocation.rules import minimum_variance
from viprl.allocation.variance_models import get_variance_model
from viprl.outcomes import sample_variance
from viprl.predictors.base import Batch, Prediction, Predictor
from viprl.strategies import Strategy
from viprl.utils.state_file import load, save


def batch(rows, features: np.ndarray | None = None) -> Batch:
    return Batch(tuple(f"prompt {row}" for row in rows), None if features is None else features[list(rows)])


def only(predictor: BetaMixture, j: int, m: int, s: int) -> BetaMixture:
    """`predictor` with all weight on one member."""
    state = predictor.state_dict()
    state["log_weights"] = np.full_like(state["log_weights"], -1e9)
    state["log_weights"][j, m, s] = 0
    alone = BetaMixture(text=predictor.text is not None)
    alone.load_state_dict(state)
    return alone


def log_loss(p: np.ndarray, k: np.ndarray, n: np.ndarray) -> float:
    """Nats a rollout."""
    return float(-(k * np.log(p) + (n - k) * np.log1p(-p)).sum() / n.sum())


@pytest.mark.parametrize(("j", "m", "s"), [(0, 0, 0), (1, 3, 2), (2, 6, 5), (2, 1, 3)])
def test_a_member_is_a_beta_posterior_with_discounted_counts(j: int, m: int, s: int) -> None:
    visits = [(3.0, 8.0), (0.0, 4.0), (5.0, 5.0)]
    predictor = BetaMixture(text=False)
    for k, n in visits:
        predictor.observe(batch([7]), np.array([k]), np.array([n]))
    right = wrong = 0.0
    for k, n in visits:
        right, wrong = DISCOUNTS[j] * (right + k), DISCOUNTS[j] * (wrong + n - k)
    got = only(predictor, j, m, s).predict(batch([7, 8]))
    for row, (k, f) in enumerate([(right, wrong), (0.0, 0.0)]):
        a, b = STRENGTHS[s] * LEVELS[m] + k, STRENGTHS[s] * (1 - LEVELS[m]) + f
        assert got.success_probability[row] == pytest.approx(a / (a + b), rel=1e-12)
        assert got.reward_variance[row] == pytest.approx(a * b / ((a + b) * (a + b + 1)), rel=1e-12)
        if min(a, b) > 0.5:
            p = stats.beta(a, b)
            mean = quad(lambda x, p=p: x * p.pdf(x), 0, 1, points=[1e-3, 0.5, 0.999], limit=200)[0]
            variance = quad(lambda x, p=p: x * (1 - x) * p.pdf(x), 0, 1, limit=200)[0]
            assert got.success_probability[row] == pytest.approx(mean, rel=1e-5)
            assert got.reward_variance[row] == pytest.approx(variance, rel=1e-5)


@pytest.mark.parametrize("text", [True, False])
def test_with_nothing_known_all_prompts_are_alike(text: bool) -> None:
    x = np.random.default_rng(0).normal(size=(9, 4))
    prediction = BetaMixture(text=text).predict(batch(range(9), x if text else None))
    assert np.ptp(prediction.success_probability) < 1e-12
    assert np.ptp(prediction.reward_variance) < 1e-12
    np.testing.assert_allclose(prediction.success_probability, 0.5)


def test_doubt_flattens_the_weights() -> None:
    """E[p(1-p)] <= E[p](1-E[p]), with a gap that closes as rollouts come in."""
    predictor = BetaMixture(text=False)
    gaps = []
    for _ in range(6):
        prediction = predictor.predict(batch([0]))
        p = prediction.success_probability
        gaps.append(float((p * (1 - p) - prediction.reward_variance)[0]))
        predictor.observe(batch([0]), np.array([16.0]), np.array([32.0]))
    assert all(one > other > 0 for one, other in itertools.pairwise(gaps))


def stream(predictor: BetaMixture, p: np.ndarray, visits: int, size: int, n: int, rng, features=None, drift=0.0):
    """Epochs over a pool in random order; yields before each observation (visit, rows, prediction, k)."""
    logits = np.log(p / (1 - p))
    for visit in range(visits):
        for rows in np.array_split(rng.permutation(len(p)), len(p) // size):
            prediction = predictor.predict(batch(rows, features))
            k = rng.binomial(n, expit(logits[rows])).astype(float)
            yield visit, rows, prediction, k
            predictor.observe(batch(rows, features), k, np.full(len(rows), float(n)))
        logits = logits + drift * rng.normal(size=len(p))


def u_shaped(rng: np.random.Generator, prompts: int) -> np.ndarray:
    return np.clip(rng.beta(0.3, 0.6, prompts), 1e-6, 1 - 1e-6)


@pytest.mark.parametrize("text", [False, True], ids=["without text", "text is noise"])
def test_nearly_as_calibrated_as_the_ideal_bayesian(text: bool) -> None:
    """Fixed p from Beta(.3, .6): log loss of the next rollouts against the posterior with that prior and all counts."""
    rng, n = np.random.default_rng(1), 8
    p = u_shaped(rng, 512)
    x = rng.normal(size=(512, 6)) if text else None
    right, total = np.zeros(512), 0.0
    excess = {visit: [] for visit in range(6)}
    variance, truth = [], []
    for visit, rows, prediction, k in stream(BetaMixture(text=text), p, 6, 64, n, rng, x):
        ideal = (0.3 + right[rows]) / (0.9 + visit * n)
        trials = np.full(len(rows), float(n))
        excess[visit].append(log_loss(prediction.success_probability, k, trials) - log_loss(ideal, k, trials))
        if visit > 0:
            variance.append(prediction.reward_variance)
            truth.append((p * (1 - p))[rows])
        right[rows] += k
        total += n
    by_visit = [float(np.mean(excess[visit])) for visit in range(6)]
    assert by_visit[0] < 0.03
    assert max(by_visit[1:]) < 0.02
    assert np.mean(by_visit[1:]) < 0.012
    claimed, actual = np.concatenate(variance), np.concatenate(truth)
    assert claimed.mean() == pytest.approx(actual.mean(), rel=0.12)
    for low, high in ((0, 0.03), (0.03, 0.12), (0.12, 0.26)):  # calibrated in each part, not only on average
        part = (claimed >= low) & (claimed < high)
        assert part.sum() > 100
        assert actual[part].mean() == pytest.approx(claimed[part].mean(), rel=0.25, abs=0.008)


def share_of_discounts(predictor: BetaMixture) -> np.ndarray:
    log_weights = predictor.state_dict()["log_weights"]
    weights = np.exp(log_weights - log_weights.max()).sum((1, 2))
    return weights / weights.sum()


def test_learns_how_fast_to_forget() -> None:
    shares = {}
    for drift in (0.0, 1.5):
        rng, predictor = np.random.default_rng(2), BetaMixture(text=False)
        for _ in stream(predictor, u_shaped(rng, 192), 12, 64, 8, rng, drift=drift):
            pass
        shares[drift] = share_of_discounts(predictor)
    assert shares[0.0][2] > 0.9
    assert shares[1.5][0] > 0.9


def test_recent_outcomes_count_more() -> None:
    predictor = BetaMixture(text=False)
    for key, halves in (("rising", (0.0, 8.0)), ("falling", (8.0, 0.0))):
        for k in np.repeat(halves, 6):
            predictor.observe(Batch((key,), None), np.array([k]), np.array([8.0]))
    rising, falling = predictor.predict(Batch(("rising", "falling"), None)).success_probability
    assert rising > falling + 0.1


def first_visit_loss(text: bool, informative: bool) -> float:
    """Log loss of prompts at their first visit, in the second half of a stream of new prompts."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(1024, 8))
    p = expit(2.5 * x[:, 0] - 0.5 if informative else 2.5 * rng.normal(size=1024) - 0.5)
    losses = []
    predictor = BetaMixture(text=text)
    for _, rows, prediction, k in stream(predictor, p, 1, 64, 8, rng, x if text else None):
        losses.append(log_loss(prediction.success_probability, k, np.full(len(rows), 8.0)))
    return float(np.mean(losses[8:]))


def test_text_helps_new_prompts_where_it_tells_something() -> None:
    assert first_visit_loss(True, informative=True) < first_visit_loss(False, informative=True) - 0.15


def test_text_does_no_harm_where_it_is_noise() -> None:
    assert first_visit_loss(True, informative=False) < first_visit_loss(False, informative=False) + 0.02


def test_text_regression_is_a_laplace_approximation() -> None:
    """One step: the penalised logistic fit of scikit-learn on weighted outcomes, and the probit approximation."""
    rng = np.random.default_rng(10)
    x, new, strength = rng.normal(size=(40, 3)), 3 * rng.normal(size=(10, 3)), 1.5
    n = rng.integers(1, 20, 40).astype(float)
    k = rng.binomial(n.astype(int), expit(2 * x[:, 0] - 1)).astype(float)
    text = TextRegression(prior_variance=4.0, memory=1.0)
    text.observe(x, k, n, strength)

    design, effective = np.column_stack([x, np.ones(40)]), n * (strength + 1) / (strength + n)
    fit = LogisticRegression(C=4.0, fit_intercept=False, tol=1e-10, max_iter=1000)
    rate = k / n
    fit.fit(
        np.vstack([design, design]), np.repeat([1, 0], 40), np.concatenate([effective * rate, effective * (1 - rate)])
    )
    p = expit(design @ fit.coef_[0])
    covariance = np.linalg.inv(np.eye(4) / 4 + (design.T * effective * p * (1 - p)) @ design)
    at = np.column_stack([new, np.ones(10)])
    spread = np.einsum("qd,de,qe->q", at, covariance, at)
    expected = expit(at @ fit.coef_[0] / np.sqrt(1 + np.pi / 8 * spread))
    np.testing.assert_allclose(text.predict(new, 10), np.clip(expected, 1e-3, 1 - 1e-3), atol=2e-3)


def test_text_regression_in_steps_is_close_to_one_fit() -> None:
    rng = np.random.default_rng(11)
    x = rng.normal(size=(320, 3))
    n = np.full(320, 8.0)
    k = rng.binomial(8, expit(x[:, 0] - 0.5)).astype(float)
    once, steps = TextRegression(memory=1.0), TextRegression(memory=1.0)
    once.observe(x, k, n, 2.0)
    for rows in np.array_split(np.arange(320), 10):
        steps.observe(x[rows], k[rows], n[rows], 2.0)
    np.testing.assert_allclose(steps.predict(x, 320), once.predict(x, 320), atol=0.05)


def test_history_beats_misleading_text() -> None:
    """The features say the opposite of what two prompts then show, again and again."""
    x = np.vstack([np.full((30, 2), 3.0), np.full((30, 2), -3.0), [[3.0, 3.0], [-3.0, -3.0]]])
    predictor = BetaMixture()
    k = np.where(np.arange(62) < 30, 8.0, 0.0)
    k[60], k[61] = 0.0, 8.0
    for _ in range(4):
        predictor.observe(batch(range(62), x), k, np.full(62, 8.0))
    p = predictor.predict(batch([60, 61], x)).success_probability
    assert p[0] < 0.1
    assert p[1] > 0.9


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_extreme_outcomes_never_give_nan(text: bool, scale: float) -> None:
    x = scale * np.random.default_rng(4).normal(size=(8, 3)) if text else None
    predictor = BetaMixture(text=text)
    n = np.array([1, 1, 8, 8, 1e9, 1e9, 1e9, 0])
    k = np.array([0, 1, 0, 8, 0, 1e9, 5e8, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(60):
            predictor.observe(batch(range(8), x), k, n)
            prediction = predictor.predict(batch(range(8), x))
            p, variance = prediction.success_probability, prediction.reward_variance
            assert np.isfinite(p).all()
            assert ((p > 0) & (p < 1)).all()
            assert ((variance >= 0) & (variance <= 0.25)).all()
            assert np.isfinite(variance).all()


def test_one_sided_streams_keep_every_weight_positive() -> None:
    """Nothing but failures for long: still no prompt has weight 0, or it could never come back."""
    predictor = BetaMixture(text=False)
    for _ in range(200):
        predictor.observe(batch(range(16)), np.zeros(16), np.full(16, 8.0))
    assert (predictor.predict(batch(range(20))).reward_variance > 1e-8).all()


def test_order_inside_a_batch_and_unscorable_prompts_do_not_matter() -> None:
    one, other = BetaMixture(text=False), BetaMixture(text=False)
    one.observe(batch([0, 1, 2]), np.array([1, 5, 0.0]), np.array([8, 8, 0.0]))
    other.observe(batch([1, 0]), np.array([5, 1.0]), np.array([8, 8.0]))
    one.observe(batch([0, 1]), np.zeros(2), np.zeros(2))
    np.testing.assert_allclose(
        one.predict(batch(range(4))).reward_variance, other.predict(batch(range(4))).reward_variance, rtol=1e-12
    )


@pytest.mark.parametrize("text", [True, False])
def test_state_round_trip_then_identical_for_ever(text: bool, tmp_path) -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(80, 4)) if text else None
    one, other = BetaMixture(text=text), BetaMixture(text=text)
    p = u_shaped(rng, 80)
    for _ in stream(one, p, 2, 20, 8, rng, x):
        pass
    save(tmp_path / "state", one.state_dict(), kind="p", version=1)
    other.load_state_dict(load(tmp_path / "state", kind="p", version=1))
    for _ in range(3):
        k = rng.binomial(8, p).astype(float)
        for predictor in (one, other):
            predictor.observe(batch(range(80), x), k, np.full(80, 8.0))
        one_, other_ = one.predict(batch(range(80), x)), other.predict(batch(range(80), x))
        np.testing.assert_array_equal(one_.reward_variance, other_.reward_variance)
        np.testing.assert_array_equal(one_.success_probability, other_.success_probability)


def test_a_state_is_a_snapshot() -> None:
    predictor = BetaMixture(text=False)
    predictor.observe(batch(range(4)), np.arange(4.0), np.full(4, 8.0))
    state, before = predictor.state_dict(), predictor.predict(batch(range(4))).reward_variance
    for _ in range(2):
        predictor.observe(batch(range(4)), np.full(4, 8.0), np.full(4, 8.0))
        other = BetaMixture(text=False)
        other.load_state_dict(state)
        np.testing.assert_array_equal(other.predict(batch(range(4))).reward_variance, before)
        other.observe(batch(range(4)), np.full(4, 8.0), np.full(4, 8.0))


def test_a_state_with_features_is_refused_without() -> None:
    with pytest.raises(ValueError, match="features"):
        BetaMixture(text=False).load_state_dict(BetaMixture(text=True).state_dict())


def test_a_state_of_other_features_is_refused() -> None:
    rng, predictor, other = np.random.default_rng(6), BetaMixture(), BetaMixture()
    predictor.observe(batch(range(4), rng.normal(size=(4, 3))), np.ones(4), np.full(4, 8.0))
    other.load_state_dict(predictor.state_dict())
    with pytest.raises(ValueError, match="features"):
        other.predict(batch(range(4), rng.normal(size=(4, 5))))


class TestGuard:
    LAW = get_variance_model("rloo")
    SPEC = Budget.of(32, 256, 2, 32, "rloo")

    def step(self, guard: Guard, claimed: np.ndarray, p: np.ndarray, rng: np.random.Generator) -> float:
        """One batch with the claimed weights; the true variance of what was played, against uniform."""
        candidates = guard.candidates(
            Prediction(p, claimed), lambda one: minimum_variance(one, self.SPEC, np.random.default_rng(0))
        )
        played = candidates[guard.mixture]
        k = rng.binomial(played, p).astype(float)
        guard.observe(candidates, sample_variance(k, played.astype(float)), self.LAW)
        return float((p * (1 - p)) @ self.LAW.factor(played) / ((p * (1 - p)).sum() / 7))

    def test_mixtures_go_from_the_prediction_to_uniform(self) -> None:
        prediction = Prediction(np.full(4, 0.5), np.array([0.0, 0.1, 0.2, 0.1]))
        np.testing.assert_allclose(mixed(prediction, 0.0).weight, prediction.reward_variance)
        np.testing.assert_allclose(mixed(prediction, 0.5).weight, [0.05, 0.1, 0.15, 0.1])
        np.testing.assert_allclose(mixed(prediction, 1.0).weight, 0.1)
        np.testing.assert_array_equal(exact_counts(mixed(prediction, 1.0).weight, Budget.of(
            4, 32, 2, 16, "rloo"), np.random.default_rng(0)), 8)  # fmt: skip
        assert SHARES[0] == 0
        assert SHARES[-1] == 1

    def test_equal_candidates_are_no_evidence(self) -> None:
        """Five times the same counts: a product of matrices may round each row in its own way."""
        rng = np.random.default_rng(3)
        for prompts in (31, 200, 257):
            guard, counts = Guard(), rng.integers(2, 20, prompts)
            for _ in range(20):
                guard.observe([counts] * len(SHARES), rng.random(prompts) / 7, self.LAW)
            assert guard.trust == 1

    def test_starts_with_the_prediction_and_keeps_a_good_one(self) -> None:
        guard, rng = Guard(), np.random.default_rng(0)
        p = np.array([0.5] * 16 + [0.01] * 16)
        assert guard.trust == 1
        for _ in range(30):
            self.step(guard, p * (1 - p), p, rng)
        assert guard.trust >= 0.75

    def test_moves_to_uniform_and_comes_back(self) -> None:
        """The prediction is turned round: what is certain is called uncertain, for a while."""
        guard, rng = Guard(), np.random.default_rng(1)
        p = np.array([0.5] * 16 + [0.01] * 16)
        good = p * (1 - p)
        bad = good[::-1].copy()
        first = self.step(guard, bad, p, rng)
        assert first > 1.5
        ratios = [self.step(guard, bad, p, rng) for _ in range(40)]
        assert guard.trust == 0
        assert np.mean(ratios[10:]) == pytest.approx(1, abs=0.02)
        back = [self.step(guard, good, p, rng) for _ in range(80)]
        assert guard.trust >= 0.75
        assert np.mean(back[-10:]) < 0.75

    def test_groups_without_two_scorable_rollouts_are_left_out(self) -> None:
        one, other = Guard(), Guard()
        candidates = [np.array([4, 12, 8]), *[np.array([8, 8, 8])] * 4]
        one.observe(candidates, np.array([0.25, np.nan, 0.1]), self.LAW)
        other.observe([c[[0, 2]] for c in candidates], np.array([0.25, 0.1]), self.LAW)
        np.testing.assert_allclose(one.state_dict()["difference"], other.state_dict()["difference"])
        one.observe(candidates, np.full(3, np.nan), self.LAW)
        assert np.isfinite(one.state_dict()["difference"]).all()

    def test_state_round_trip(self) -> None:
        guard, rng, p = Guard(), np.random.default_rng(2), np.array([0.5] * 16 + [0.01] * 16)
        fresh = Guard()
        fresh.load_state_dict(guard.state_dict())
        assert fresh.trust == 1
        for _ in range(20):
            self.step(guard, (p * (1 - p))[::-1].copy(), p, rng)
        fresh.load_state_dict(guard.state_dict())
        assert fresh.trust == guard.trust == 0


class Liar(Predictor):
    """Says the opposite of the truth until told to be honest."""

    uses_features = False

    def __init__(self, p: np.ndarray) -> None:
        self.p, self.honest = p, False

    def predict(self, batch: Batch) -> Prediction:
        return Prediction.of_points(self.p if self.honest else self.p[::-1].copy())

    def observe(self, batch, successes, rollouts) -> None:
        pass


def play(strategy: Strategy, p: np.ndarray, spec: Budget, rng: np.random.Generator) -> float:
    """One step of a strategy on the whole pool; the true variance of its counts against uniform."""
    view, law = batch(range(len(p))), spec.estimator
    proposal = strategy.propose(view, np.arange(len(p)), spec, rng)
    counts = proposal.allocation.counts
    k = rng.binomial(counts, p).astype(float)
    strategy.review(proposal, k, counts.astype(float), law)
    strategy.predictor.observe(view, k, counts.astype(float))
    return float((p * (1 - p)) @ law.factor(counts) / ((p * (1 - p)).sum() * law.factor(spec.total / len(p))))


def test_a_lying_predictor_ends_at_uniform_and_an_honest_one_returns() -> None:
    strategy, rng = Strategy("default", features=False), np.random.default_rng(7)
    p, spec = np.array([0.5] * 20 + [0.005] * 20), Budget.of(40, 320, 2, 32, "rloo")
    liar = Liar(p)
    strategy.predictor = liar
    lies = [play(strategy, p, spec, rng) for _ in range(40)]
    assert lies[0] > 1.5
    assert np.mean(lies[20:]) == pytest.approx(1, abs=0.02)
    liar.honest = True
    truths = [play(strategy, p, spec, rng) for _ in range(80)]
    assert np.mean(truths[-20:]) < 0.75


def test_prompts_that_flip_at_every_visit_do_no_lasting_harm() -> None:
    """The worst case for a history: what was certain is uncertain at the next visit, and the other way round."""
    strategy, rng = Strategy("default", features=False), np.random.default_rng(8)
    p, spec = np.array([0.5] * 32 + [0.005] * 32), Budget.of(64, 512, 2, 32, "rloo")
    ratios = []
    for _ in range(60):
        ratios.append(play(strategy, p, spec, rng))
        p = p[::-1].copy()
    assert np.mean(ratios[20:]) < 1.03


def test_stationary_prompts_are_exploited() -> None:
    strategy, rng = Strategy("default", features=False), np.random.default_rng(9)
    p, spec = np.array([0.5] * 16 + [0.005] * 48), Budget.of(64, 512, 2, 32, "rloo")
    ratios = [play(strategy, p, spec, rng) for _ in range(12)]
    assert ratios[0] == pytest.approx(1, abs=1e-9)
    assert np.mean(ratios[4:]) < 0.55
