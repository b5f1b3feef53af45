"""The guard: its arithmetic, and that it limits the harm of a bad predictor."""

from __future__ import annotations

import numpy as np
import pytest

from viprl.allocation.budget import Budget
from viprl.allocation.exact import exact_counts
from viprl.allocation.guard import SHARES, Guard, mixed
from viprl.allocation.rules import MinimumVariance
from viprl.allocation.variance_models import get_variance_model
from viprl.predictors.base import Batch, Prediction, Predictor
from viprl.reward_groups import GroupOutcomes
from viprl.strategies import Strategy, build_strategy


def batch(rows) -> Batch:
    return Batch(tuple(f"prompt {row}" for row in rows), None)


class TestGuard:
    MODEL = get_variance_model("rloo")
    BUDGET = Budget.of(32, 256, 2, 32, "rloo")

    def step(self, guard: Guard, claimed: np.ndarray, p: np.ndarray, rng: np.random.Generator) -> float:
        """One batch with the claimed weights. Returns the true variance relative to uniform."""
        candidates = guard.candidates(
            Prediction(p, claimed), lambda one: MinimumVariance()(one, self.BUDGET, np.random.default_rng(0))
        )
        played = candidates[guard.choice]
        k = rng.binomial(played, p).astype(float)
        guard.observe(candidates, GroupOutcomes.of_counts(k, played).variance, self.MODEL)
        return float((p * (1 - p)) @ self.MODEL.factor(played) / ((p * (1 - p)).sum() / 7))

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
                guard.observe([counts] * len(SHARES), rng.random(prompts) / 7, self.MODEL)
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
        one.observe(candidates, np.array([0.25, np.nan, 0.1]), self.MODEL)
        other.observe([c[[0, 2]] for c in candidates], np.array([0.25, 0.1]), self.MODEL)
        np.testing.assert_allclose(one.state_dict()["difference"], other.state_dict()["difference"])
        one.observe(candidates, np.full(3, np.nan), self.MODEL)
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
    """Predicts the opposite of the truth until `honest` is set."""

    def __init__(self, p: np.ndarray) -> None:
        self.p, self.honest = p, False

    def predict(self, batch: Batch) -> Prediction:
        return Prediction.of_points(self.p if self.honest else self.p[::-1].copy())

    def observe(self, batch, successes, rollouts) -> None:
        pass

    def state_dict(self):
        return {}

    def load_state_dict(self, state) -> None:
        pass


def step(strategy: Strategy, p: np.ndarray, budget: Budget, rng: np.random.Generator) -> float:
    """One step of a strategy on the whole pool. Returns the true variance of its counts relative to uniform."""
    prompts, model = batch(range(len(p))), budget.model
    proposal = strategy.propose(prompts, np.arange(len(p)), budget, seed=int(rng.integers(2**32)))
    counts = proposal.allocation.counts
    k = rng.binomial(counts, p).astype(float)
    strategy.review(proposal, GroupOutcomes.of_counts(k, counts))
    strategy.predictor.observe(prompts, k, counts.astype(float))
    return float((p * (1 - p)) @ model.factor(counts) / ((p * (1 - p)).sum() * model.factor(budget.total / len(p))))


def test_a_wrong_predictor_ends_at_uniform_and_a_right_one_returns() -> None:
    p, budget = np.array([0.5] * 20 + [0.005] * 20), Budget.of(40, 320, 2, 32, "rloo")
    liar, rng = Liar(p), np.random.default_rng(7)
    strategy = Strategy(liar, guard=Guard())
    lies = [step(strategy, p, budget, rng) for _ in range(40)]
    assert lies[0] > 1.5
    assert np.mean(lies[20:]) == pytest.approx(1, abs=0.02)
    liar.honest = True
    truths = [step(strategy, p, budget, rng) for _ in range(80)]
    assert np.mean(truths[-20:]) < 0.75


def test_prompts_that_flip_at_every_visit_do_no_lasting_harm() -> None:
    """The worst case for a history: what was certain is uncertain at the next visit, and the reverse."""
    strategy, rng = build_strategy("default"), np.random.default_rng(8)
    p, budget = np.array([0.5] * 32 + [0.005] * 32), Budget.of(64, 512, 2, 32, "rloo")
    ratios = []
    for _ in range(60):
        ratios.append(step(strategy, p, budget, rng))
        p = p[::-1].copy()
    assert np.mean(ratios[20:]) < 1.03


def test_stationary_prompts_lower_the_variance() -> None:
    strategy, rng = build_strategy("default"), np.random.default_rng(9)
    p, budget = np.array([0.5] * 16 + [0.005] * 48), Budget.of(64, 512, 2, 32, "rloo")
    ratios = [step(strategy, p, budget, rng) for _ in range(12)]
    assert ratios[0] == pytest.approx(1, abs=1e-9)
    assert np.mean(ratios[4:]) < 0.75
