"""Every predictor of the package keeps the contract; the contract catches predictors that break it."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from viprl.baselines.beta_counts import BetaCounts
from viprl.baselines.bots import ImplicitEvidence
from viprl.baselines.duet import DeviationMean
from viprl.baselines.dynamo import CountPriority
from viprl.baselines.greso import ZeroVarianceRuns
from viprl.baselines.learned_beta import LearnedBeta
from viprl.baselines.moving_average import MovingAverage
from viprl.baselines.ridge import RidgeRegression
from viprl.errors import StateError
from viprl.predictors.base import Batch, Prediction
from viprl.predictors.constant import SuccessRate
from viprl.predictors.gaussian_process import GaussianProcess
from viprl.predictors.grid_filter import GridFilter
from viprl.predictors.oracle import Oracle
from viprl.predictors.reward_filter import RewardFilter
from viprl.strategies import STRATEGIES
from viprl.testing import PredictorContract


class WithoutText(GridFilter):
    features = None


PREDICTORS = (
    RewardFilter, GridFilter, WithoutText, GaussianProcess, SuccessRate, Oracle, RidgeRegression, MovingAverage,
    BetaCounts, LearnedBeta, ImplicitEvidence, CountPriority, ZeroVarianceRuns,
    DeviationMean,
)  # fmt: skip


@pytest.mark.parametrize("predictor", PREDICTORS)
class TestPredictors(PredictorContract):
    @pytest.fixture(autouse=True)
    def _choose(self, predictor) -> None:
        self.predictor = predictor

    def build(self):
        return self.predictor()


def test_every_predictor_of_a_named_strategy_is_tested() -> None:
    assert {type(build().predictor) for _, build in STRATEGIES.values()} <= set(PREDICTORS)


class ChangesWhenAsked(MovingAverage):
    def predict(self, batch):
        self.rate = 0.9
        return super().predict(batch)


class ForgetsWhenSaved(MovingAverage):
    def state_dict(self):
        return {"keys": [], "values": np.empty((0, 1))}


class SharesItsState(MovingAverage):
    def state_dict(self):
        return {"keys": self._average._index.keys, "values": self._average._values}

    def load_state_dict(self, state) -> None:
        super().load_state_dict(state)
        self._average._values = state["values"]


class CountsTheUnscorable(MovingAverage):
    def observe(self, batch, successes, rollouts) -> None:
        super().observe(batch, successes, np.maximum(rollouts, 1))


class LooksAtItsNeighbours(MovingAverage):
    def predict(self, batch):
        p = super().predict(batch).success_probability
        return Prediction.of_points(p * 0.9 + p.mean() * 0.1)


class CountsThosePassedOver(MovingAverage):
    def pass_over(self, batch) -> None:
        self.observe(batch, np.zeros(len(batch)), np.ones(len(batch)))


class ForgetsWhoWasPassedOver(MovingAverage):
    passed = 0.0

    def pass_over(self, batch) -> None:
        self.passed += 0.01

    def predict(self, batch):
        return Prediction.of_points(np.maximum(super().predict(batch).success_probability - self.passed, 0.1))


FAULTY = (
    ChangesWhenAsked, ForgetsWhenSaved, SharesItsState, CountsTheUnscorable, LooksAtItsNeighbours,
    CountsThosePassedOver, ForgetsWhoWasPassedOver,
)  # fmt: skip


@pytest.mark.parametrize("faulty", FAULTY)
def test_the_contract_catches(faulty) -> None:
    class Checked(PredictorContract):
        def build(self):
            return faulty()

    failed = []
    for name, test in inspect.getmembers(Checked(), inspect.ismethod):
        if name.startswith("test_"):
            try:
                test()
            except (AssertionError, IndexError, StateError):
                failed.append(name)
    assert failed


def test_predictors_need_not_care_who_was_passed_over() -> None:
    predictor = MovingAverage()
    predictor.observe(Batch(("a", "b"), None), np.array([1.0, 4]), np.full(2, 4.0))
    before = predictor.state_dict()
    predictor.pass_over(Batch(("a", "b", "c"), None))
    assert predictor.state_dict()["keys"] == before["keys"]
    np.testing.assert_array_equal(predictor.state_dict()["values"], before["values"])
