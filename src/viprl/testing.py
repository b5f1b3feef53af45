"""Contract tests for predictors and rules written outside this package.

Inherit from a contract in a test file and say how to build the object; pytest collects the tests.

Example:
    from viprl.testing import PredictorContract

    class TestMyPredictor(PredictorContract):
        def build(self):
            return MyPredictor()
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from viprl.allocation.budget import Budget
from viprl.allocation.rules import Rule
from viprl.predictors.base import Batch, Prediction, Predictor
from viprl.utils import state_file

PROMPTS = 40
_FEATURES = np.random.default_rng(0).normal(size=(PROMPTS, 4))
_SUCCESS = 1 / (1 + np.exp(-2 * _FEATURES[:, 0]))


class PredictorContract(ABC):
    """What every predictor must keep."""

    @abstractmethod
    def build(self) -> Predictor:
        """A new predictor."""

    def test_predictions_are_probabilities(self) -> None:
        for prediction in (self._predict(self.build()), self._predict(self._trained(self.build(), steps=6))):
            p, variance = prediction.success_probability, prediction.reward_variance
            assert p.shape == variance.shape == (PROMPTS,)
            assert ((p >= 0) & (p <= 1)).all()
            assert ((variance >= 0) & (variance <= 0.25 + 1e-12)).all()
            assert variance.sum() > 0

    def test_prompts_are_alike_before_any_outcome(self) -> None:
        prediction = self._predict(self.build())
        np.testing.assert_allclose(prediction.success_probability, prediction.success_probability[0], rtol=1e-12)
        np.testing.assert_allclose(prediction.reward_variance, prediction.reward_variance[0], rtol=1e-12)

    def test_predict_changes_nothing(self) -> None:
        one, other = self.build(), self.build()
        for step in range(4):
            self._predict(one)
            one.predict(self._batch([3, 1]))
            self._observe([one, other], np.random.default_rng(step))
        self._assert_equal(one, other)

    def test_a_prediction_does_not_depend_on_the_rest_of_the_batch(self) -> None:
        predictor = self._trained(self.build(), steps=3)
        whole, part = self._predict(predictor), predictor.predict(self._batch([7, 2]))
        np.testing.assert_allclose(part.success_probability, whole.success_probability[[7, 2]], rtol=1e-6)
        np.testing.assert_allclose(part.reward_variance, whole.reward_variance[[7, 2]], rtol=1e-6)

    def test_prompts_without_scorable_rollouts_are_ignored(self) -> None:
        one, other = self.build(), self.build()
        one.observe(self._batch([0, 1, 2]), np.array([1.0, 0, 5]), np.array([8.0, 0, 8]))
        one.observe(self._batch([0, 3]), np.zeros(2), np.zeros(2))
        other.observe(self._batch([0, 2]), np.array([1.0, 5]), np.array([8.0, 8]))
        self._assert_equal(one, other, rtol=1e-6)

    def test_extreme_outcomes_stay_finite(self) -> None:
        predictor = self.build()
        n = np.array([1.0, 1, 8, 8, 4096, 4096, 4096, 0])
        k = np.array([0.0, 1, 0, 8, 0, 4096, 2048, 0])
        for _ in range(30):
            predictor.observe(self._batch(range(8)), k, n)
            prediction = self._predict(predictor)
            assert np.isfinite(prediction.success_probability).all()
            assert np.isfinite(prediction.reward_variance).all()

    def test_a_loaded_state_continues_identically(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for steps in (0, 5):
                one, other, path = self._trained(self.build(), steps), self.build(), Path(folder) / str(steps)
                state_file.save(path, one.state_dict(), kind="predictor", version=1)
                other.load_state_dict(state_file.load(path, kind="predictor", version=1))
                for step in range(3):
                    self._assert_equal(one, other)
                    self._observe([one, other], np.random.default_rng(100 + step))
                self._assert_equal(one, other)

    def test_a_state_is_a_snapshot(self) -> None:
        predictor = self._trained(self.build(), steps=2)
        state, before, restored = predictor.state_dict(), self._predict(predictor), self.build()
        self._trained(predictor, steps=3)
        restored.load_state_dict(state)
        self._trained(restored, steps=1)
        again = self.build()
        again.load_state_dict(state)
        np.testing.assert_array_equal(self._predict(again).reward_variance, before.reward_variance)

    def test_passing_over_unknown_prompts_changes_nothing(self) -> None:
        one, other = self.build(), self.build()
        for predictor in (one, other):
            predictor.observe(self._batch(range(10)), np.resize([0.0, 4, 8], 10), np.full(10, 8.0))
        one.pass_over(self._batch(range(20, 30)))
        one.pass_over(self._batch([]))
        self._assert_equal(one, other)

    def test_prompts_that_are_passed_over_for_long_stay_predictable(self) -> None:
        predictor = self._trained(self.build(), steps=6)
        for _ in range(200):
            predictor.pass_over(self._batch(range(0, PROMPTS, 2)))
        prediction = self._predict(predictor)
        p, variance = prediction.success_probability, prediction.reward_variance
        assert ((p >= 0) & (p <= 1)).all()
        assert ((variance >= 0) & (variance <= 0.25 + 1e-12)).all()
        assert variance.sum() > 0

    def test_a_loaded_state_remembers_who_was_passed_over(self) -> None:
        one, other = self._trained(self.build(), steps=3), self.build()
        one.pass_over(self._batch(range(0, PROMPTS, 2)))
        with tempfile.TemporaryDirectory() as folder:
            state_file.save(Path(folder) / "state", one.state_dict(), kind="predictor", version=1)
            other.load_state_dict(state_file.load(Path(folder) / "state", kind="predictor", version=1))
        for step in range(3):
            self._assert_equal(one, other)
            for predictor in (one, other):
                predictor.pass_over(self._batch(range(step, PROMPTS, 3)))
            self._observe([one, other], np.random.default_rng(step))
        self._assert_equal(one, other)

    def _batch(self, prompts: Iterable[int]) -> Batch:
        rows = list(prompts)
        with_features = self.build().features is not None
        return Batch(tuple(f"prompt {row}" for row in rows), _FEATURES[rows] if with_features else None)

    def _predict(self, predictor: Predictor) -> Prediction:
        return predictor.predict(self._batch(range(PROMPTS)))

    def _observe(self, predictors: list[Predictor], rng: np.random.Generator) -> None:
        rows = rng.choice(PROMPTS, 12, replace=False)
        n = rng.integers(0, 9, 12)
        k = rng.binomial(n, _SUCCESS[rows])
        for predictor in predictors:
            predictor.observe(self._batch(rows), k.astype(float), n.astype(float))

    def _trained(self, predictor: Predictor, steps: int) -> Predictor:
        for step in range(steps):
            self._observe([predictor], np.random.default_rng(step))
        return predictor

    def _assert_equal(self, one: Predictor, other: Predictor, rtol: float = 0.0) -> None:
        a, b = self._predict(one), self._predict(other)
        np.testing.assert_allclose(a.success_probability, b.success_probability, rtol=rtol)
        np.testing.assert_allclose(a.reward_variance, b.reward_variance, rtol=rtol)


class RuleContract(ABC):
    """What every rule must keep."""

    @abstractmethod
    def build(self) -> Rule:
        """A new rule."""

    def test_the_budget_is_spent_within_the_bounds(self) -> None:
        rng = np.random.default_rng(0)
        for case in range(200):
            prediction, budget = _case(rng)
            counts = self.build()(prediction, budget, np.random.default_rng(case))
            assert counts.dtype.kind == "i"
            assert counts.sum() == budget.total
            assert (counts >= budget.min_rollouts).all()
            assert (counts <= budget.max_rollouts).all()

    def test_the_generator_decides(self) -> None:
        rng = np.random.default_rng(1)
        for case in range(20):
            prediction, budget = _case(rng)
            first, second = (self.build()(prediction, budget, np.random.default_rng(case)) for _ in range(2))
            np.testing.assert_array_equal(first, second)

    def test_nothing_is_written_to(self) -> None:
        prediction, budget = _case(np.random.default_rng(2))
        before = [np.copy(x) for x in (prediction.success_probability, prediction.weight, budget.min_rollouts)]
        self.build()(prediction, budget, np.random.default_rng(0))
        after = (prediction.success_probability, prediction.weight, budget.min_rollouts)
        for x, y in zip(before, after, strict=True):
            np.testing.assert_array_equal(x, y)

    def test_variance_weights_are_what_the_counts_minimise(self) -> None:
        rng = np.random.default_rng(3)
        for _ in range(50):
            prediction, budget = _case(rng)
            weights = self.build().variance_weights(prediction)
            if weights is None:
                continue
            counts = self.build()(prediction, budget, np.random.default_rng(0))
            value = weights @ budget.model.factor(counts)
            for _ in range(20):  # no exchange of one rollout lowers the objective by more than rounding down may lose
                gives, takes = rng.integers(0, len(counts), 2)
                other = counts.copy()
                other[gives] -= 1
                other[takes] += 1
                if (other >= budget.min_rollouts).all() and (other <= budget.max_rollouts).all():
                    assert weights @ budget.model.factor(other) >= 0.97 * value - 1e-12


def _case(rng: np.random.Generator) -> tuple[Prediction, Budget]:
    """A random prediction, some of it certain, and a budget with bounds of every kind."""
    prompts = int(rng.integers(1, 11))
    p = np.where(rng.random(prompts) < 0.3, rng.choice([0.0, 0.5, 1.0], prompts), rng.random(prompts))
    variance = p * (1 - p) * rng.choice([0.5, 1.0], prompts)
    low = rng.integers(3, 7, prompts)
    high = low + rng.integers(0, 15, prompts)
    estimator = str(rng.choice(["rloo", "dr_grpo"]))
    return Prediction(p, variance), Budget.of(
        prompts, int(rng.integers(low.sum(), high.sum() + 1)), low, high, estimator
    )
