"""Replay: the protocol, the scores against numbers worked out by hand, and what the command writes."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from viprl.allocation.budget import Budget
from viprl.allocation.rules import minimum_variance
from viprl.analysis import replay as module
from viprl.analysis.replay import PHASES, SCORES, Pool, Protocol, Step, as_json, play, replay, summarise
from viprl.cli import app
from viprl.predictors.base import Batch, Prediction
from viprl.predictors.oracle import Oracle
from viprl.runs.engine_logs import read_history
from viprl.runs.history import PromptHistory, save_history
from viprl.strategies import STRATEGIES, Preset, Strategy

DATA = Path(__file__).parents[2] / "../shared/data/rlvr_trajectories.jsonl.gz"
TINY = Protocol(batch_size=8, min_rollouts=2, max_rollouts=20, visits=12, seeds=2)


def synthetic(prompts=21, visits=12, rollouts=8, seed=0):
    """Prompts of constant success probability; those beyond the twentieth have a visit too few."""
    rng = np.random.default_rng(seed)
    p = rng.beta(0.4, 0.4, prompts)
    lengths = [visits if i < 20 else visits - 1 for i in range(prompts)]
    return [
        PromptHistory(str(i), f"prompt {i}", np.full(t, float(rollouts)), rng.binomial(rollouts, p[i], t).astype(float))
        for i, t in enumerate(lengths)
    ]


class Spy(Oracle):
    """An oracle that remembers what it was shown."""

    seen: list

    def observe(self, batch, successes, rollouts):
        self.seen.append((batch.keys, successes, rollouts))


@pytest.fixture
def spy(monkeypatch):
    """Register the strategy "spy"; the list of all its observations."""
    Spy.seen = []
    monkeypatch.setitem(STRATEGIES, "spy", Preset(lambda _: Spy(), minimum_variance, None, False, "test"))
    return Spy.seen


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


def proposal_for(name, believed, spec, guard=None):
    """A strategy whose oracle believes `believed`, and its proposal for one batch."""
    strategy = Strategy(name)
    if isinstance(strategy.predictor, Oracle):
        strategy.predictor.tell({str(i): p for i, p in enumerate(believed)})
    if guard is not None:
        strategy.guard._difference = np.where(np.arange(5) == guard, 0.0, 1.0)
    keys = tuple(str(i) for i in range(spec.low.size))
    return strategy, strategy.propose(Batch(keys, None), np.arange(len(keys)), spec, 3)


TRUTH = np.array([0.5, 0.1, 0.2, 0.9])
SPEC = Budget.of(4, 32, 2, 16, "rloo")


def test_capture_of_one_batch_by_hand():
    # sqrt(a) = .5 .3 .4 .3, C - Q = 28: V_uniform = .59/7, V_oracle = 1.5^2/28. Believed sqrt(a) = .5 .5 .4 .3 gives
    # n - 1 = 28 (.5 .5 .4 .3)/1.7 and V = 1.7/28 (.25/.5 + .09/.5 + .16/.4 + .09/.3) = 2.346/28.
    scores = module.variance_scores(*proposal_for("oracle", [0.5, 0.5, 0.2, 0.9], SPEC), TRUTH, SPEC)
    assert scores["capture"] == pytest.approx((2.36 - 2.346) / (2.36 - 2.25), rel=1e-6)
    assert scores["variance_ratio"] == pytest.approx(2.346 / 2.36, rel=1e-6)


def test_rules_without_a_relaxation_are_judged_by_their_counts():
    strategy, proposal = proposal_for("random", [], SPEC)
    value = float((TRUTH * (1 - TRUTH) / (proposal.allocation.counts - 1)).sum())
    scores = module.variance_scores(strategy, proposal, TRUTH, SPEC)
    assert scores["capture"] == pytest.approx((2.36 / 28 - value) / ((2.36 - 2.25) / 28), rel=1e-6)
    assert scores["capture"] != pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("mixture", [0, 2, 4])
def test_the_guard_counts(monkeypatch, mixture):
    # the weights .25 .25 .16 .09 mixed with their mean
    parts = Preset(lambda _: Oracle(), minimum_variance, None, True, "test")
    monkeypatch.setitem(STRATEGIES, "guarded", parts)
    strategy, proposal = proposal_for("guarded", [0.5, 0.5, 0.2, 0.9], SPEC, guard=mixture)
    a = np.array([0.25, 0.25, 0.16, 0.09])
    root = np.sqrt((1 - mixture / 4) * a + mixture / 4 * a.mean())
    value = root.sum() * (TRUTH * (1 - TRUTH) / root).sum()  # times 28
    scores = module.variance_scores(strategy, proposal, TRUTH, SPEC)
    assert scores["capture"] == pytest.approx((2.36 - value) / (2.36 - 2.25), abs=1e-6)


def test_nothing_to_capture_is_no_number():
    scores = module.variance_scores(*proposal_for("uniform", [], SPEC), np.full(4, 0.3), SPEC)
    assert np.isnan(scores["capture"]) and scores["variance_ratio"] == pytest.approx(1)
    scores = module.variance_scores(*proposal_for("uniform", [], SPEC), np.array([0.0, 1, 0, 1]), SPEC)
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
    assert module.smoothed(rates).tolist() == [2, 2.5, 3, 3.5, 4, 5, 6, 7, 7.5, 8, 8.5, 9]
    # the whole log counts, also beyond the visits replayed
    pool = Pool.of([PromptHistory("a", "a", np.full(12, 20.0), rates)], replace(TINY, batch_size=1, visits=3))
    assert pool.truth.tolist() == [[0.1, 0.125, 0.15]]


def test_calibration_goes_by_tenths():
    bins = module.binned(np.array([0.0, 0.05, 0.1, 1.0]), np.array([0.5, 0.0, 1.0, 1.0]))
    assert (
        bins[:, 0].tolist() == [2, 0.05, 0.5] and bins[:, 1].tolist() == [1, 0.1, 1] and bins[:, 9].tolist() == [1] * 3
    )
    assert bins.sum() == pytest.approx(4 + 1.15 + 2.5)


def test_open_loop_shows_all_that_was_logged(spy):
    trajectories = synthetic()
    steps = list(play("spy", Pool.of(trajectories, TINY), None, TINY, 0))
    assert [step.visit for step in steps] == [v for v in range(12) for _ in range(2)]  # 20 prompts: 4 left over
    logged = {t.id: t.successes for t in trajectories}
    for step, (keys, k, n) in zip(steps, spy, strict=True):
        assert k.tolist() == [logged[key][step.visit] for key in keys]
        assert (n == 8).all() and step.counts.sum() == 64 and len(set(step.counts)) > 1


def test_each_visit_is_a_permutation_without_its_rest(spy):
    pool = Pool.of(synthetic(), TINY)
    list(play("spy", pool, None, TINY, 0))
    visits = [spy[i][0] + spy[i + 1][0] for i in range(0, len(spy), 2)]
    assert all(len(set(keys)) == 16 and set(keys) <= set(pool.keys) for keys in visits)
    assert len(set(visits)) == 12
    assert set().union(*visits) == set(pool.keys)  # nobody is always left over
    first = list(spy)
    spy.clear()
    list(play("spy", pool, None, TINY, 1))
    assert spy[0][0] != first[0][0]


def test_closed_loop_shows_only_the_allocated_rollouts(spy):
    trajectories = [
        PromptHistory(str(i), "", np.full(12, 8.0), np.full(12, 8.0 * (i % 3) / 2)) for i in range(16)
    ]  # fmt: skip
    protocol = replace(TINY, closed=True)
    steps = list(play("spy", Pool.of(trajectories, protocol), None, protocol, 0))
    for step, (keys, k, n) in zip(steps, spy, strict=True):
        assert n.tolist() == step.counts.tolist() == step.observed.tolist() and n.sum() == 64 and (k <= n).all()
        sure = np.array([int(key) % 3 for key in keys])
        assert (k[sure == 0] == 0).all() and (k[sure == 2] == n[sure == 2]).all()
    mixed = np.array(
        [(k, n) for keys, ks, ns in spy for key, k, n in zip(keys, ks, ns, strict=True) if int(key) % 3 == 1]
    )
    assert abs(mixed[:, 0].sum() / mixed[:, 1].sum() - 0.5) < 0.05 and mixed[:, 1].mean() > 8


def test_draws_are_the_first_of_each_row():
    draws = np.array([[0.1, 0.6, 0.2, 0.3], [0.1, 0.6, 0.2, 0.3]])
    assert module.drawn(draws, np.array([0.5, 0.25]), np.array([3, 2])).tolist() == [2, 1]


def test_zero_advantage_rollouts_by_hand(monkeypatch):
    """Two settled prompts of four at counts that the rule fixes."""

    def fixed(prediction: Prediction, spec: Budget, rng: np.random.Generator):
        return np.array([2, 4, 10, 16])[np.argsort(np.argsort(prediction.success_probability))]

    monkeypatch.setitem(STRATEGIES, "fixed", Preset(lambda _: Oracle(), fixed, None, False, "test"))
    wins = [0.0, 2.0, 4.0, 8.0]
    trajectories = [PromptHistory(str(i), "", np.full(1, 8.0), np.full(1, k)) for i, k in enumerate(wins)]
    protocol = Protocol(batch_size=4, min_rollouts=2, max_rollouts=16, visits=1, seeds=1)
    results = replay(trajectories, ["fixed"], protocol)
    assert mean(results, "fixed", "1", "zero_advantage_rollouts") == pytest.approx((2 + 16) / 32)


def test_the_same_seeds_give_the_same_numbers():
    first = without_time(replay(synthetic(), ["default", "random"], TINY, features="none"))
    again = without_time(replay(synthetic(), ["random", "default"], TINY, features="none"))
    assert first == again  # company and order do not matter
    other = without_time(replay(synthetic(seed=1), ["default", "random"], TINY, features="none"))
    assert first["default"] != other["default"]


def test_history_beats_uniform_where_prompts_differ():
    results = replay(synthetic(), ["default"], TINY, features="none")
    assert mean(results, "default", "11+") > 0.5
    assert mean(results, "default", "11+", "log_loss") < mean(results, "default", "1", "log_loss") - 0.1


class Contrary(Oracle):
    """Sure of the opposite: settled prompts are said to be open, open ones settled."""

    def predict(self, batch):
        p = super().predict(batch).success_probability
        return Prediction.of_points(np.where(np.abs(p - 0.5) > 0.3, 0.5, 0.99))


def test_a_guard_that_is_told_the_outcomes_ends_the_harm(monkeypatch):
    for name, guarded in (("contrary", False), ("guarded", True)):
        monkeypatch.setitem(STRATEGIES, name, Preset(lambda _: Contrary(), minimum_variance, None, guarded, "test"))
    results = replay(synthetic(), ["contrary", "guarded"], TINY)
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
    assert PHASES[-1] == ("11+", 10, None)


def test_json_has_the_agreed_form():
    found = as_json({"one": summarise([steps_of(0.0)])})
    phase = json.loads(json.dumps(found, allow_nan=False))["strategies"]["one"]["phases"][0]
    assert phase["visits"] == "1" and phase["capture"] == 0 and phase["capture_sd"] is None
    assert phase["spearman"] is None and set(SCORES) < set(phase)


def test_too_few_prompts_say_what_would_do():
    with pytest.raises(ValueError, match=r"20 of 21 prompts have at least 12 visits.*21; --visits 11 would do"):
        replay(synthetic(), ["uniform"], replace(TINY, batch_size=21))
    with pytest.raises(ValueError, match=r"--batch-size 20 would do"):
        replay(synthetic(), ["uniform"], replace(TINY, batch_size=22))


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="budget cannot be met"):
        Protocol(max_rollouts=6)
    with pytest.raises(ValueError, match="seeds is 0"):
        Protocol(seeds=0)
    with pytest.raises(ValueError, match="expected one of default"):
        replay(synthetic(), ["nobody"], TINY)
    with pytest.raises(ValueError, match="predicts from prompt features"):
        replay(synthetic(), ["paper"], TINY, features="none")


def test_features_reach_those_who_read_them():
    calls = []

    def encode(texts):
        calls.append(list(texts))
        return np.array([[float(t.split()[1]), 1.0] for t in texts])

    replay(synthetic(), ["uniform", "paper", "default"], replace(TINY, visits=1), features=encode)
    assert calls == [[f"prompt {i}" for i in range(21)]]  # once for all, not for "uniform"


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.links = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href") and not (v or "").startswith("#")]


def test_the_command(tmp_path):
    pytest.importorskip("matplotlib")
    file = tmp_path / "t.jsonl.gz"
    save_history(file, synthetic())
    arguments = f"replay {file} --strategies oracle,default,uniform --seeds 2 --batch-size 8 --low 2 --high 20"
    more = f" --visits 12 --features none --loop closed --json {tmp_path}/out/r.json --report {tmp_path}/report"
    result = CliRunner().invoke(app, (arguments + more).split(), catch_exceptions=False)
    assert result.exit_code == 0
    assert "20 of 21 prompts" in result.output and "closed loop" in result.output
    assert all(name in result.output for name in ("oracle", "default", "uniform", "11+", "1.000"))
    found = json.loads((tmp_path / "out/r.json").read_text())
    assert list(found) == ["strategies"] and list(found["strategies"]) == ["oracle", "default", "uniform"]
    assert [p["visits"] for p in found["strategies"]["default"]["phases"]] == [label for label, *_ in PHASES]
    page = Page((tmp_path / "report/replay.html").read_text())
    assert page.tags.count("svg") == 3 and not page.links and "script" not in page.tags
    assert {f.name for f in (tmp_path / "report").glob("*.svg")} == {
        "replay_capture.svg", "replay_log_loss.svg", "replay_calibration.svg",
    }  # fmt: skip


def test_the_command_refuses_other_loops(tmp_path):
    result = CliRunner().invoke(app, ["replay", str(tmp_path), "--loop", "ajar"])
    assert isinstance(result.exception, ValueError) and "open or closed" in str(result.exception)


@pytest.mark.skipif(not DATA.is_file(), reason="the shared data folder is not beside the repository")
def test_a_real_run():
    results = replay(read_history(DATA), ["default"], Protocol(seeds=1), features="none")
    assert mean(results, "default", "2") > 0.5
    assert mean(results, "default", "11+") > 0.9
