"""Replay: the protocol, and the scores against numbers worked out by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from viprl.allocation.budget import Budget
from viprl.allocation.guard import Guard
from viprl.allocation.rules import Rule
from viprl.analysis import replay as module
from viprl.analysis.pool import Pool, drawn, smoothed
from viprl.analysis.replay import SCORES, Protocol, Step, as_json, play, replay, summarise
from viprl.errors import InputError
from viprl.predictors.base import Batch, Prediction, Predictor
from viprl.predictors.oracle import Oracle
from viprl.reward_groups import RewardScale
from viprl.runs.engine_logs import read_history
from viprl.runs.history import PromptHistory
from viprl.strategies import Strategy, build_strategy

DATA = Path(__file__).parents[2] / "../shared/data/rlvr_trajectories.jsonl.gz"
TINY = Protocol(batch_size=8, min_rollouts=2, max_rollouts=20, visits=12, seeds=2)


def synthetic(prompts=21, visits=12, rollouts=8, seed=0):
    """Prompts of constant success probability; those beyond the twentieth have one visit too few."""
    rng = np.random.default_rng(seed)
    p = rng.beta(0.4, 0.4, prompts)
    lengths = [visits if i < 20 else visits - 1 for i in range(prompts)]
    return [
        PromptHistory(str(i), f"prompt {i}", np.full(t, float(rollouts)), rng.binomial(rollouts, p[i], t).astype(float))
        for i, t in enumerate(lengths)
    ]


class Spy(Oracle):
    """An oracle that remembers what it observed."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def observe(self, batch, successes, rollouts):
        self.seen.append((batch.keys, successes, rollouts))


@pytest.fixture
def spy():
    return Strategy(Spy(), name="spy")


class LastVisit(Predictor):
    """Believes the outcomes of the last visit. Defined here, outside the package."""

    def __init__(self):
        self.rates = {}

    def predict(self, batch):
        return Prediction.of_points(np.array([self.rates.get(key, 0.5) for key in batch.keys]))

    def observe(self, batch, successes, rollouts):
        self.rates |= dict(zip(batch.keys, (successes + 1) / (rollouts + 2), strict=True))

    def state_dict(self):
        return {"rates": dict(self.rates)}

    def load_state_dict(self, state):
        self.rates = dict(state["rates"])


def mean(results, name, visits, score="capture"):
    return next(phase for phase in results[name] if phase.visits == visits).scores[score].mean


def without_time(results):
    text = json.dumps(as_json(results), allow_nan=False)
    found = json.loads(text)["strategies"]
    return {n: [{k: v for k, v in p.items() if "milli" not in k} for p in s["phases"]] for n, s in found.items()}


@pytest.mark.parametrize("closed", [False, True])
def test_oracle_captures_all_and_uniform_nothing(closed):
    results = replay(synthetic(), ["oracle", "uniform"], replace(TINY, closed=closed))
    for phase in ("1", "2", "3", "4-5", "6-10", "11+"):
        assert mean(results, "oracle", phase) == pytest.approx(1, abs=1e-9)
        assert mean(results, "uniform", phase) == pytest.approx(0, abs=1e-9)
        assert mean(results, "oracle", phase, "variance_ratio") < mean(results, "uniform", phase, "variance_ratio") == 1


def test_strategies_may_be_names_or_objects():
    mine = Strategy(LastVisit(), name="mine")
    results = replay(synthetic(), [mine, "uniform"], TINY)
    assert list(results) == ["mine", "uniform"] and mine.predictor.rates == {}  # the object was copied
    assert mean(results, "mine", "1", "log_loss") == pytest.approx(np.log(2))  # 0.5 for new prompts
    assert mean(results, "mine", "11+") > 0.3
    with pytest.raises(InputError, match="'mine'"):
        replay(synthetic(), [mine, Strategy(LastVisit(), name="mine")], TINY)


def proposal_for(strategy, believed, budget, mixture=None):
    """A strategy whose oracle believes `believed`, and its proposal for one batch."""
    strategy.predictor.tell({str(i): p for i, p in enumerate(believed)})
    if mixture is not None:
        difference = np.where(np.arange(5) == mixture, 0.0, 1.0)
        strategy.guard.load_state_dict({"difference": difference, "squares": np.zeros(5)})
    keys = tuple(str(i) for i in range(budget.min_rollouts.size))
    return strategy, strategy.propose(Batch(keys, None), np.arange(len(keys)), budget, 3)


TRUTH = np.array([0.5, 0.1, 0.2, 0.9])
BUDGET = Budget.of(4, 32, 2, 16, "rloo")


def scores_of(name_or_strategy, believed, truth=TRUTH, mixture=None):
    return module.variance_scores(
        *proposal_for(build_strategy(name_or_strategy), believed, BUDGET, mixture), truth * (1 - truth), BUDGET
    )


def test_capture_of_one_batch_by_hand():
    # sqrt(a) = .5 .3 .4 .3, C - Q = 28: V_uniform = .59/7, V_oracle = 1.5^2/28. Believed sqrt(a) = .5 .5 .4 .3 gives
    # n - 1 = 28 (.5 .5 .4 .3)/1.7 and V = 1.7/28 (.25/.5 + .09/.5 + .16/.4 + .09/.3) = 2.346/28.
    scores = scores_of("oracle", [0.5, 0.5, 0.2, 0.9])
    assert scores["capture"] == pytest.approx((2.36 - 2.346) / (2.36 - 2.25), rel=1e-6)
    assert scores["variance_ratio"] == pytest.approx(2.346 / 2.36, rel=1e-6)


def test_rules_that_minimise_something_else_are_evaluated_with_their_counts():
    strategy, proposal = proposal_for(build_strategy("random"), [], BUDGET)
    value = float((TRUTH * (1 - TRUTH) / (proposal.allocation.counts - 1)).sum())
    scores = module.variance_scores(strategy, proposal, TRUTH * (1 - TRUTH), BUDGET)
    assert scores["capture"] == pytest.approx((2.36 / 28 - value) / ((2.36 - 2.25) / 28), rel=1e-6)
    assert scores["capture"] != pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("mixture", [0, 2, 4])
def test_capture_is_that_of_the_weights_that_the_guard_uses(mixture):
    # the weights .25 .25 .16 .09 mixed with their mean
    a = np.array([0.25, 0.25, 0.16, 0.09])
    root = np.sqrt((1 - mixture / 4) * a + mixture / 4 * a.mean())
    value = root.sum() * (TRUTH * (1 - TRUTH) / root).sum()  # times 28
    scores = scores_of(Strategy(Oracle(), guard=Guard()), [0.5, 0.5, 0.2, 0.9], mixture=mixture)
    assert scores["capture"] == pytest.approx((2.36 - value) / (2.36 - 2.25), abs=1e-6)


def test_without_a_possible_reduction_capture_is_undefined():
    scores = scores_of("uniform", [], truth=np.full(4, 0.3))
    assert np.isnan(scores["capture"]) and scores["variance_ratio"] == pytest.approx(1)
    scores = scores_of("uniform", [], truth=np.array([0.0, 1, 0, 1]))
    assert np.isnan(scores["capture"]) and np.isnan(scores["variance_ratio"])


def test_predictive_scores_by_hand():
    scores = module.predictive_scores(np.array([0.25, 0.5, 0.0]), np.array([0.5, 1.0, 0.0]))
    expected = -(np.log(0.25) / 2 + np.log(0.75) / 2 + np.log(0.5) + np.log(1 - 1e-4)) / 3
    assert scores["log_loss"] == pytest.approx(expected)
    assert scores["brier"] == pytest.approx((0.5 * 0.75**2 + 0.5 * 0.25**2 + 0.25 + 0) / 3)
    assert scores["mae"] == pytest.approx((0.25 + 0.5) / 3)
    assert scores["spearman"] == pytest.approx(1)
    assert module.predictive_scores(np.array([0.0, 1.0]), np.array([1.0, 0.0]))["log_loss"] == pytest.approx(
        -np.log(1e-4)
    )
    assert np.isnan(module.predictive_scores(np.full(3, 0.5), np.array([0.5, 1.0, 0.0]))["spearman"])


def test_truth_is_the_mean_of_nine_visits():
    rates = np.arange(12.0)
    assert smoothed(rates).tolist() == [2, 2.5, 3, 3.5, 4, 5, 6, 7, 7.5, 8, 8.5, 9]
    # the whole log counts, also beyond the visits replayed
    pool = Pool.of([PromptHistory("a", "a", np.full(12, 20.0), rates)], replace(TINY, batch_size=1, visits=3))
    assert pool.truth.tolist() == [[0.1, 0.125, 0.15]]


def test_calibration_goes_by_tenths():
    bins = module.binned(np.array([0.0, 0.05, 0.1, 1.0]), np.array([0.5, 0.0, 1.0, 1.0]))
    assert [bins[:, b].tolist() for b in (0, 1, 9)] == [[2, 0.05, 0.5], [1, 0.1, 1], [1, 1, 1]]
    assert bins.sum() == pytest.approx(4 + 1.15 + 2.5)


def test_in_the_open_loop_all_logged_outcomes_are_observed(spy):
    histories = synthetic()
    steps = list(play(spy, Pool.of(histories, TINY), None, TINY, 0))
    assert [step.visit for step in steps] == [v for v in range(12) for _ in range(2)]  # 20 prompts: 4 left over
    logged = {h.id: h.successes for h in histories}
    for step, (keys, k, n) in zip(steps, spy.predictor.seen, strict=True):
        assert k.tolist() == [logged[key][step.visit] for key in keys]
        assert (n == 8).all() and step.counts.sum() == 64 and len(set(step.counts)) > 1


def test_each_visit_is_a_permutation_without_a_short_last_batch(spy):
    pool, other = Pool.of(synthetic(), TINY), spy.fresh()
    list(play(spy, pool, None, TINY, 0))
    seen = [keys for keys, _, _ in spy.predictor.seen]
    visits = [first + second for first, second in zip(seen[::2], seen[1::2], strict=True)]
    assert all(len(set(keys)) == 16 and set(keys) <= set(pool.keys) for keys in visits)
    assert len(set(visits)) == 12
    assert set().union(*visits) == set(pool.keys)  # no prompt is always left over
    list(play(other, pool, None, TINY, 1))
    assert other.predictor.seen[0][0] != seen[0]


def test_in_the_closed_loop_only_allocated_rollouts_are_observed(spy):
    histories = [PromptHistory(str(i), "", np.full(12, 8.0), np.full(12, 8.0 * (i % 3) / 2)) for i in range(16)]
    protocol = replace(TINY, closed=True)
    steps = list(play(spy, Pool.of(histories, protocol), None, protocol, 0))
    mixed = []
    for step, (keys, k, n) in zip(steps, spy.predictor.seen, strict=True):
        assert n.tolist() == step.counts.tolist() == step.observed.tolist() and n.sum() == 64 and (k <= n).all()
        kind = np.array([int(key) % 3 for key in keys])  # success probability 0, 1/2 or 1
        assert (k[kind == 0] == 0).all() and (k[kind == 2] == n[kind == 2]).all()
        mixed += zip(k[kind == 1], n[kind == 1], strict=True)
    successes, rollouts = np.sum(mixed, axis=0)
    assert abs(successes / rollouts - 0.5) < 0.05 and rollouts / len(mixed) > 8


def test_draws_are_the_first_of_each_row():
    draws = np.array([[0.1, 0.6, 0.2, 0.3], [0.1, 0.6, 0.2, 0.3]])
    assert drawn(draws, np.array([0.5, 0.25]), np.array([3, 2])).tolist() == [2, 1]


def test_zero_advantage_rollouts_by_hand():
    """Two prompts of four have equal outcomes, and the rule fixes the counts."""

    class Fixed(Rule):
        def __call__(self, prediction, budget, rng):
            return np.array([2, 4, 10, 16])[np.argsort(np.argsort(prediction.success_probability))]

    successes = [0.0, 2.0, 4.0, 8.0]
    histories = [PromptHistory(str(i), "", np.full(1, 8.0), np.full(1, k)) for i, k in enumerate(successes)]
    protocol = Protocol(batch_size=4, min_rollouts=2, max_rollouts=16, visits=1, seeds=1)
    results = replay(histories, [Strategy(Oracle(), Fixed(), name="fixed")], protocol)
    assert mean(results, "fixed", "1", "zero_advantage_rollouts") == pytest.approx((2 + 16) / 32)


def test_the_same_seeds_give_the_same_numbers():
    results = replay(synthetic(), ["default", "random"], TINY, features="none")
    assert mean(results, "default", "11+") > 0.5
    assert mean(results, "default", "11+", "log_loss") < mean(results, "default", "1", "log_loss") - 0.1
    first = without_time(results)
    again = without_time(replay(synthetic(), ["random", "default"], TINY, features="none"))
    assert first == again  # neither the other strategies nor their order matter
    assert first["default"] != without_time(replay(synthetic(seed=1), ["default"], TINY, features="none"))["default"]


class Contrary(Oracle):
    """Predicts the opposite: 1/2 for prompts with equal outcomes, nearly 1 for the others."""

    def predict(self, batch):
        p = super().predict(batch).success_probability
        return Prediction.of_points(np.where(np.abs(p - 0.5) > 0.3, 0.5, 0.99))


def test_a_guard_that_observes_the_outcomes_ends_the_harm():
    strategies = [Strategy(Contrary(), name="contrary"), Strategy(Contrary(), guard=Guard(), name="guarded")]
    results = replay(synthetic(), strategies, TINY)
    assert mean(results, "contrary", "11+") < -0.3
    assert mean(results, "guarded", "11+") == pytest.approx(0, abs=1e-9)


def steps_of(offset, visits=12):
    bins = np.zeros((3, 10))
    bins[:, 0] = 1, 0.05, 0.5
    return [
        Step(v, np.ones(1, int), np.ones(1), dict.fromkeys(SCORES, v + offset + b) | {"spearman": np.nan}, bins)
        for v in range(visits)
        for b in (-1, 1)
    ]


def test_phases_average_over_batches_then_seeds():
    phases = summarise([steps_of(0.0), steps_of(2.0)])
    assert [phase.visits for phase in phases] == ["1", "2", "3", "4-5", "6-10", "11+"]
    estimates = [phase.scores["capture"] for phase in phases]
    assert [e.mean for e in estimates] == [1, 2, 3, 4.5, 8, 11.5]
    assert estimates[0].sd == pytest.approx(np.sqrt(2)) and phases[0].scores["spearman"] is None
    assert phases[3].calibration == [{"predicted": pytest.approx(0.05), "observed": 0.5, "count": 8}]
    assert [phase.visits for phase in summarise([steps_of(0.0, visits=4)])] == ["1", "2", "3", "4-5"]
    phase = json.loads(json.dumps(as_json({"one": phases[:1]}), allow_nan=False))["strategies"]["one"]["phases"][0]
    assert (phase["visits"], phase["capture"], phase["spearman"]) == ("1", 1, None) and set(SCORES) < set(phase)
    assert phase["capture_sd"] == pytest.approx(np.sqrt(2)) and phase["spearman_sd"] is None


@pytest.mark.parametrize(
    ("strategy", "change", "named"),
    [
        ("uniform", {"batch_size": 21}, "visits to 11"),  # what would work
        ("uniform", {"batch_size": 22}, "batch_size to 20"),
        ("uniform", {"max_rollouts": 6}, "max_rollouts"),
        ("uniform", {"seeds": 0}, "seeds"),
        ("nobody", {}, "'nobody'"),
        ("paper", {}, "'paper'"),  # it needs features
    ],
)
def test_bad_arguments(strategy, change, named):
    with pytest.raises(InputError, match=named):
        replay(synthetic(), [strategy], replace(TINY, **change), features="none")


def test_features_reach_only_the_strategies_that_read_them():
    calls = []

    def encode(texts):
        calls.append(list(texts))
        return np.array([[float(t.split()[1]), 1.0] for t in texts])

    replay(synthetic(), ["uniform", "paper", "default"], replace(TINY, visits=1), features=encode)
    assert calls == [[f"prompt {i}" for i in range(21)]]  # once for both


@pytest.mark.skipif(not DATA.is_file(), reason="the shared data folder is not beside the repository")
def test_a_real_run():
    results = replay(read_history(DATA), ["default"], Protocol(seeds=1), features="none")
    assert mean(results, "default", "2") > 0.5
    assert mean(results, "default", "11+") > 0.9


# --- rewards with more than two values --------------------------------------------------------------------------------


def graded(values=(0.0, 0.1, 1.0), prompts=32, visits=12, seed=0, scale=1.0, shift=0.0):
    """Prompts that are right with constant probability, most of them nearly always or nearly never, else in format."""
    rng = np.random.default_rng(seed)
    found = []
    for i, p in enumerate(rng.beta(0.3, 0.3, prompts)):
        of = [(1 - p) / 4, 3 * (1 - p) / 4, p]
        rewards = tuple(scale * rng.choice(values, 8, p=of) + shift for _ in range(visits))
        found.append(PromptHistory(str(i), f"prompt {i}", np.full(visits, 8.0), np.full(visits, np.nan), None, rewards))
    return found


@pytest.mark.parametrize("closed", [False, True])
def test_with_rewards_the_oracle_knows_their_variances(closed):
    protocol = replace(TINY, closed=closed)
    results = replay(graded(), ["oracle", "default", "uniform"], protocol, features="none")
    for phase in ("1", "2", "3", "4-5", "6-10", "11+"):
        assert mean(results, "oracle", phase) == pytest.approx(1, abs=1e-9)
        assert mean(results, "uniform", phase) == pytest.approx(0, abs=1e-9)
    assert mean(results, "default", "11+") > 0.5
    found = results["default"][-1]
    undefined = {name for name, estimate in found.scores.items() if estimate is None}
    assert undefined == {"log_loss", "brier", "mae"} and not found.calibration


def test_the_unit_of_rewards_changes_nothing():
    one, other = (
        without_time(replay(graded(**unit), ["default", "oracle"], replace(TINY, seeds=1), features="none"))
        for unit in ({}, {"scale": 1024.0, "shift": 4096.0})
    )
    for name, phases in one.items():
        for phase, same in zip(phases, other[name], strict=True):
            assert phase["capture"] == pytest.approx(same["capture"], abs=1e-6)
            assert phase["zero_advantage_rollouts"] == same["zero_advantage_rollouts"]


def test_the_true_variance_of_rewards_by_hand():
    visits = (np.array([0.0, 1.0]), np.array([0.5]), np.array([0.0, 0.0, 3.0]))  # s2 = 1/2 and 3, n - 1 = 1 and 2
    history = PromptHistory("a", "a", np.array([2.0, 1, 3]), np.full(3, np.nan), None, visits)
    pool = Pool.of([history], replace(TINY, batch_size=1, visits=3))
    unit = 8 * (0.5 + 3) / 2
    assert pool.variance.tolist() == [pytest.approx([6.5 / 3 / unit] * 3)]
    assert pool.truth.tolist() == [pytest.approx([(0.5 + 0.5 + 1) / 9] * 3)]  # positions of the means, in a range of 3
    alone = PromptHistory("b", "b", np.ones(3), np.full(3, np.nan), None, tuple(np.array([r]) for r in (0.0, 2.0, 3.0)))
    assert (Pool.of([history, alone], replace(TINY, batch_size=1, visits=3)).variance[1] == pool.variance[0]).all()


@pytest.mark.parametrize("low", [0.5, 2.0])
def test_two_values_are_the_binary_case(low):
    counted = synthetic()
    named = [
        PromptHistory(h.id, h.prompt, h.rollouts, np.full(len(h.rollouts), np.nan), None, tuple(
            np.repeat([3.0, low], [int(k), int(n - k)]) for k, n in zip(h.successes, h.rollouts, strict=True)
        ))
        for h in counted
    ]  # fmt: skip
    one, other = (without_time(replay(found, ["default"], TINY, features="none")) for found in (counted, named))
    assert one == other


def test_the_closed_loop_draws_logged_rewards_of_nearby_visits():
    visits = tuple(np.array([t, t + 0.5]) for t in range(12))
    history = PromptHistory("a", "a", np.full(12, 2.0), np.full(12, np.nan), None, visits)
    pool, scale = Pool.of([history], replace(TINY, batch_size=1)), RewardScale()
    draws = np.array([[0.0, 0.999, 0.5, 0.1]])
    found = pool.drawn(np.array([0]), 6, scale, draws, np.array([3])).rewards.reward
    assert found.tolist() == [2.0, 10.5, 6.5] and scale.range == (2.0, 10.5)  # visits 2 to 10, 18 rewards
    assert pool.logged(np.array([0]), 6, scale).rewards.reward.tolist() == [6.0, 6.5]
