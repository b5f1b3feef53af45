"""Predictors and rules whose numbers cannot be used, and the option `on_bad_prediction`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import viprl
from vip_steps import PROMPTS, C, sampled, step, vip
from viprl import metrics as names
from viprl.errors import InputError, PredictionError
from viprl.predictors.base import Batch, Prediction, Predictor


def point(p: np.ndarray, **parts: Any) -> Prediction:
    return Prediction(**{"success_probability": p, "reward_variance": p * (1 - p)} | parts)


def with_first(p: np.ndarray, value: float) -> np.ndarray:
    return np.array([value, *p[1:]])


def raising(error: Exception) -> Callable[[np.ndarray], Prediction]:
    def predict(_: np.ndarray) -> Prediction:
        raise error

    return predict


BAD_NUMBERS: dict[str, Callable[[np.ndarray], Prediction]] = {
    "nan": lambda p: Prediction.of_points(with_first(p, np.nan)),
    "infinite": lambda p: Prediction.of_points(with_first(p, np.inf)),
    "beyond one": lambda p: Prediction.of_points(with_first(p, 2.0)),
    "negative variance": lambda p: point(p, reward_variance=with_first(p, -1.0)),
    "infinite variance": lambda p: point(p, reward_variance=with_first(p, np.inf)),
    "overflowing variance": lambda p: point(p, reward_variance=with_first(p, 1e300)),
    "nan pseudocounts": lambda p: point(p, pseudocounts=with_first(p, np.nan)),
    "nan learned weight": lambda p: point(p, learned_weight=with_first(p, np.nan)),
    "linear algebra": raising(np.linalg.LinAlgError("3-th leading minor not positive definite")),
    "floating point": raising(FloatingPointError("divide by zero")),
    "overflow": raising(OverflowError("math range error")),
    "division": raising(ZeroDivisionError("division by zero")),
}
WRONG_SHAPES: dict[str, Callable[[np.ndarray], Prediction]] = {
    "short": lambda p: Prediction.of_points(p[1:]),
    "long": lambda p: Prediction.of_points(np.append(p, 0.5)),
    "column": lambda p: Prediction.of_points(p[:, None]),
    "scalar": lambda p: Prediction.of_points(p[0]),
    "list": lambda p: point(p, success_probability=p.tolist()),
}
FAULTS = BAD_NUMBERS | WRONG_SHAPES


class Faulty(Predictor):
    """Believes that every second prompt is hopeless, and goes bad when it is told to."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.seen = 0.0

    def predict(self, batch: Batch) -> Prediction:
        if self.fault == "predict raises":
            raise ArithmeticError
        p = np.array([0.5 if int(key.split()[-1]) % 2 else 0.01 for key in batch.keys])
        return FAULTS[self.fault](p) if self.fault in FAULTS else point(p, pseudocounts=np.ones(len(p)))

    def observe(self, batch: Batch, successes: np.ndarray, rollouts: np.ndarray) -> None:
        self.seen += rollouts.sum()
        if self.fault == "observe raises":
            raise ArithmeticError
        if self.fault == "observe fails":
            raise np.linalg.LinAlgError("singular matrix")

    def success_belief(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        chance = np.tile([0.5, 0.5], (len(batch), 1))
        return np.array([0.0, 0.5]), chance * (np.nan if self.fault == "nan belief" else 1.0)

    def pass_over(self, batch: Batch) -> None:
        if self.fault == "pass over fails":
            raise FloatingPointError

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = float(state["seen"])


def as_ids(prompts: list[str]) -> list[dict[str, str]]:
    return [{"prompt": prompt, "id": prompt} for prompt in prompts]


OFFERED = as_ids(PROMPTS)


def mine(fault: str = "", **options: Any) -> viprl.VIP:
    """With a predictor that goes bad after one good step."""
    strategy = viprl.Strategy(Faulty(), guard=viprl.Guard(), name="mine")
    agent = vip(strategy=strategy, **options)
    learn(agent, agent.allocate(OFFERED, C))
    agent.strategies["mine"].predictor.fault = fault
    return agent


def learn(agent: viprl.VIP, plan: viprl.Allocation, prompts: list[Any] = OFFERED) -> dict[str, float]:
    rewards = sampled([prompt["prompt"] for prompt in prompts], plan.counts, np.random.default_rng(0))
    agent.observe(prompts, rewards, lengths=[[10.0 * (q + 1)] * n for q, n in enumerate(plan.counts)])
    return agent.metrics()


def uniform(**options: Any) -> viprl.VIP:
    agent = vip(strategy="uniform", **options)
    learn(agent, agent.allocate(OFFERED, C))
    return agent


# --- on_bad_prediction="stop" -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", ["predict", "allocate", "select", "propose"])
def test_predictions_that_cannot_be_used_name_the_predictor_and_change_nothing(fault: str, call: str) -> None:
    agent = mine(fault, on_bad_prediction="stop")
    before = repr(agent.state_dict())
    arguments = {"predict": (), "allocate": (C,), "select": (C // 2, 3), "propose": (C,)}[call]
    with pytest.raises(InputError, match=r"Faulty.*'mine'") as error:
        getattr(agent, call)(OFFERED, *arguments)
    assert isinstance(error.value, PredictionError) == (fault in BAD_NUMBERS)
    assert repr(agent.state_dict()) == before


def test_a_run_that_stopped_can_be_saved_and_resumed(tmp_path) -> None:
    agent, resumed = mine("nan", on_bad_prediction="stop"), mine(on_bad_prediction="stop")
    with pytest.raises(PredictionError):
        agent.allocate(OFFERED, C)
    agent.save(tmp_path / "state")
    resumed.load(tmp_path / "state")
    agent.strategies["mine"].predictor.fault = ""
    np.testing.assert_array_equal(resumed.allocate(OFFERED, C).counts, agent.allocate(OFFERED, C).counts)


def test_a_failed_observe_stops_too() -> None:
    agent = mine("observe fails", on_bad_prediction="stop")
    with pytest.raises(PredictionError, match=r"Faulty\.observe.*'mine'"):
        learn(agent, agent.allocate(OFFERED, C))


# --- on_bad_prediction="uniform" --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", BAD_NUMBERS)
@pytest.mark.parametrize(
    "options", [{}, {"spend": "match"}, {"cost": "tokens"}, {"spend": "match", "cost": "tokens"}], ids=str
)
def test_the_batch_gets_what_uniform_gets(fault: str, options: dict[str, Any]) -> None:
    agent, even = mine(fault, **options), uniform(**options)
    plan, expected = agent.allocate(OFFERED, C), even.allocate(OFFERED, C)
    assert sorted(plan.counts) == sorted(expected.counts)  # who gets one more is a matter of chance
    assert plan.variance_ratio == pytest.approx(1)
    assert agent.metrics()[names.BAD_PREDICTIONS] == 0
    metrics = learn(agent, plan)
    assert metrics[names.BAD_PREDICTIONS] == 1
    assert np.isnan(metrics[names.BRIER]) and np.isnan(metrics[names.LOG_LOSS])


def test_the_run_learns_on_and_the_next_good_prediction_is_used() -> None:
    agent, well = mine("nan"), mine()
    learn(agent, agent.allocate(OFFERED, C))
    learn(well, well.allocate(OFFERED, C))
    predictor = agent.strategies["mine"].predictor
    assert predictor.seen == well.strategies["mine"].predictor.seen == 2 * C
    predictor.fault = ""
    plan = agent.allocate(OFFERED, C)
    np.testing.assert_array_equal(plan.counts > C // 6, [False, True] * 3)
    assert learn(agent, plan)[names.BAD_PREDICTIONS] == 0


def test_guards_learn_nothing_from_it() -> None:
    agent = mine(spend="match")
    for fault in ("", "nan"):
        agent.strategies["mine"].predictor.fault = fault
        selection = agent.select(OFFERED, C // 2, 3)
        before = agent.state_dict()
        mixed = [[1.0, *[0.0] * (n - 1)] for n in selection.allocation.counts]
        agent.observe([OFFERED[i] for i in selection.positions], mixed)
        after = agent.state_dict()
        parts = [(state["strategies"]["mine"]["guard"], state["selection"]) for state in (before, after)]
        targets = [state["spending"]["target"] for state in (before, after)]
        assert (repr(parts[0]) == repr(parts[1])) == (fault == "nan")
        assert (repr(targets[0]) == repr(targets[1])) == (fault == "nan")


def test_chance_alone_selects() -> None:
    agent, well = mine("nan"), mine()
    selection = agent.select(OFFERED, C // 2, 3)
    np.testing.assert_allclose(selection.inclusion, 0.5)
    np.testing.assert_allclose(selection.weights, 1.0)
    assert np.ptp(selection.allocation.counts) <= 1
    assert np.ptp(well.select(OFFERED, C // 2, 3).inclusion) > 0.1


def test_a_selection_with_one_bad_candidate_is_uniform_whoever_is_chosen() -> None:
    agent = mine()
    good = agent.strategies["mine"].predictor.predict

    def predict(batch: Batch) -> Prediction:
        p = good(batch).success_probability
        return Prediction.of_points(np.where([key.endswith(PROMPTS[0]) for key in batch.keys], np.nan, p))

    agent.strategies["mine"].predictor.predict = predict  # type: ignore[method-assign]
    for _ in range(8):
        selection = agent.select(OFFERED, C // 2, 3)
        assert np.ptp(selection.allocation.counts) <= 1


@pytest.mark.parametrize("fault", ["nan", "nan belief"])
def test_baselines_are_those_of_the_group_and_there_is_one_wave(fault: str, caplog) -> None:
    agent, well = mine(fault, baseline="expected"), mine(baseline="expected")
    planned = {"waves": 2}
    assert well.allocate(OFFERED, C, **planned).prior is not None
    with caplog.at_level(logging.WARNING, logger="viprl"):
        plan = agent.allocate(OFFERED, C, **planned)
    assert len(caplog.records) == 1  # nothing about the waves
    assert plan.prior is None and plan.waves is None and np.ptp(plan.counts) <= 1
    assert not agent.next(plan, [[0.0] * n for n in plan.counts]).counts.any()
    metrics = learn(agent, plan)
    assert metrics[names.BAD_PREDICTIONS] == 1 and metrics[names.LOOKS] == 0


def test_an_average_is_met() -> None:
    agent = mine("nan")
    plan = agent.allocate(OFFERED, average=7.0)
    assert plan.counts.sum() == 42 and np.ptp(plan.counts) == 0


def test_it_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    agent = mine("nan")
    with caplog.at_level(logging.WARNING, logger="viprl"):
        for _ in range(3):
            learn(agent, agent.allocate(OFFERED, C))
    (record,) = caplog.records
    assert all(part in record.getMessage() for part in ("Faulty", "'mine'", PROMPTS[0], "nan"))


def test_a_state_that_is_saved_meanwhile_plans_the_same() -> None:
    agent, other = mine("nan"), mine()
    learn(agent, agent.allocate(OFFERED, C))
    other.load_state_dict(agent.state_dict())
    other.strategies["mine"].predictor.fault = "nan"
    np.testing.assert_array_equal(other.allocate(OFFERED, C).counts, agent.allocate(OFFERED, C).counts)


def test_learned_weights_learn_nothing_from_bad_numbers() -> None:
    """The default strategy: its weights would become NaN for ever."""
    agent, rng = vip(), np.random.default_rng(0)
    step(agent, rng, select=False, waves=1)
    strategy = agent.strategies["default"]
    before, good = strategy.weights.state_dict(), strategy.predictor.predict
    strategy.predictor.predict = lambda batch: FAULTS["nan"](np.full(len(batch), 0.5))
    done = step(agent, rng, select=False, waves=1)
    assert np.ptp(done["first"]) == 0 and repr(strategy.weights.state_dict()) == repr(before)
    strategy.predictor.predict = good
    assert np.ptp(step(agent, rng, select=False, waves=1)["first"]) > 0
    assert repr(strategy.weights.state_dict()) != repr(before)


@pytest.mark.parametrize("fault", ["observe fails", "pass over fails"])
def test_a_strategy_that_failed_while_learning_starts_again_without_history(fault: str, caplog) -> None:
    agent = mine(fault)
    with caplog.at_level(logging.WARNING, logger="viprl"):
        selection = agent.select(OFFERED, C // 2, 3)
        learn(agent, selection.allocation, [OFFERED[i] for i in selection.positions])
    assert "mine" in caplog.text
    predictor = agent.strategies["mine"].predictor
    assert predictor.fault == "" and predictor.seen == {"observe fails": 0, "pass over fails": C // 2}[fault]
    np.testing.assert_array_equal(agent.allocate(OFFERED, C).counts > C // 6, [False, True] * 3)


def test_it_starts_again_without_history_each_time() -> None:
    agent = mine()
    for _ in range(2):
        learn(agent, agent.allocate(OFFERED, C))
        assert agent.strategies["mine"].predictor.seen > 0
        agent.strategies["mine"].predictor.fault = "observe fails"
        learn(agent, agent.allocate(OFFERED, C))
        assert agent.strategies["mine"].predictor.seen == 0 and agent.strategies["mine"].predictor.fault == ""


@pytest.mark.parametrize("fault", WRONG_SHAPES)
def test_arrays_of_another_shape_always_stop(fault: str) -> None:
    agent = mine(fault)
    with pytest.raises(InputError, match=r"Faulty.*'mine'"):
        agent.allocate(OFFERED, C)


@pytest.mark.parametrize(("fault", "method"), [("predict raises", "predict"), ("observe raises", "observe")])
def test_other_exceptions_always_stop_and_name_the_predictor(fault: str, method: str) -> None:
    agent = mine(fault)
    with pytest.raises(ArithmeticError) as error:
        learn(agent, agent.allocate(OFFERED, C))
    assert f"Faulty.{method}" in error.value.__notes__[0] and "'mine'" in error.value.__notes__[0]


# --- shadows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["uniform", "stop"])
@pytest.mark.parametrize("fault", BAD_NUMBERS)
def test_a_shadow_never_stops_a_run(policy: str, fault: str, caplog: pytest.LogCaptureFixture) -> None:
    shadow = viprl.Strategy(Faulty(fault), guard=viprl.Guard(), name="mine")
    agent, alone = vip(shadow=[shadow], on_bad_prediction=policy), vip()
    with caplog.at_level(logging.WARNING, logger="viprl"):
        for _ in range(2):
            plan, expected = agent.allocate(OFFERED, C), alone.allocate(OFFERED, C)
            np.testing.assert_array_equal(plan.counts, expected.counts)
            metrics = learn(agent, plan)
            assert {k: v for k, v in metrics.items() if k != names.OVERHEAD} == pytest.approx(
                {k: v for k, v in learn(alone, expected).items() if k != names.OVERHEAD}, nan_ok=True
            )
    assert metrics[names.BAD_PREDICTIONS] == 0 and names.shadow_ratio("mine") not in metrics
    assert [record.levelname for record in caplog.records] == ["WARNING"] and "'mine'" in caplog.text
    assert agent.propose(OFFERED, C).keys() == {"default"}
    agent.strategies["mine"].predictor.fault = ""
    assert names.shadow_ratio("mine") in learn(agent, agent.allocate(OFFERED, C))


@pytest.mark.parametrize("policy", ["uniform", "stop"])
def test_a_shadow_that_failed_while_learning_starts_again(policy: str) -> None:
    agent = vip(shadow=[viprl.Strategy(Faulty(), name="mine")], on_bad_prediction=policy)
    learn(agent, agent.allocate(OFFERED, C))
    agent.strategies["mine"].predictor.fault = "observe fails"
    learn(agent, agent.allocate(OFFERED, C))
    assert agent.strategies["mine"].predictor.seen == 0 and list(agent.strategies) == ["default", "mine"]
    assert names.shadow_ratio("mine") in learn(agent, agent.allocate(OFFERED, C))


# --- numbers that are possible, and wrong -----------------------------------------------------------------------------


def test_an_absurdly_large_variance_gets_the_most_rollouts_until_the_guard_sees() -> None:
    class Absurd(Faulty):
        def predict(self, batch: Batch) -> Prediction:
            p = np.full(len(batch), 0.5)
            return point(p, reward_variance=np.where([key.endswith(PROMPTS[1]) for key in batch.keys], 1e29, 0.25))

    agent = vip(strategy=viprl.Strategy(Absurd(), guard=viprl.Guard(), name="mine"), max_rollouts=12)
    first = agent.allocate(OFFERED, C)
    assert first.counts[1] == 12 and first.counts.sum() == C
    rng, plan = np.random.default_rng(0), first
    for _ in range(30):  # all others are mixed, this one never is
        rewards = [(rng.random(n) < 0.5 * (q != 1)).astype(float).tolist() for q, n in enumerate(plan.counts)]
        agent.observe(OFFERED, rewards)
        plan = agent.allocate(OFFERED, C)
    assert agent.metrics()[names.TRUST] == 0 and np.ptp(plan.counts) <= 1


# --- rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [lambda n: n + 1, lambda n: -n, lambda n: n + 0.5, lambda n: n[:-1], list, lambda n: np.diff(n, prepend=C)],
)
def test_counts_that_do_not_spend_the_budget_name_the_rule(change: Callable[[np.ndarray], Any]) -> None:
    class Careless(viprl.Rule):
        def __call__(self, prediction, budget, rng):
            return change(viprl.STRATEGIES["uniform"][1]().rule(prediction, budget, rng))

    agent = vip(strategy=viprl.Strategy(Faulty(), Careless(), name="mine"))
    with pytest.raises(InputError, match=r"Careless.*'mine'"):
        agent.allocate(OFFERED, C)
