"""What `viprl doctor` says about a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from report_data import training_rows
from typer.testing import CliRunner

from log_files import write_lines
from viprl import VIP
from viprl import metrics as names
from viprl.cli import app
from viprl.report.diagnosis import GOOD, NOTE, PROBLEM, diagnose
from viprl.runs.history import PromptHistory
from viprl.runs.reader import Run
from viprl.runs.visits import Visit

STEPS = 40


def diagnosed(strategy="default", steps=STEPS, history=(), **changed):
    """{name: finding} for a run with other metrics than a healthy one: numbers, or lists [steps]."""
    rng = np.random.default_rng(0)
    rows = [row for row in training_rows(rng, strategy, 0, steps) if "vip/counts/mean" in row]
    for name, values in changed.items():
        for row, value in zip(rows, np.broadcast_to(values, len(rows)).tolist(), strict=True):
            row[names.PREFIX + getattr(names, name)] = value
    run = Run("run", Path("run"), tuple(rows), {}, tuple(history), ())
    return {one.name: one for one in diagnose(run, strategy)}


def found(*given, **changed):
    """{name: (level, has a remedy)}."""
    return {name: (one.level, bool(one.remedy)) for name, one in diagnosed(*given, **changed).items()}


def noisy(mean, sd=0.1, seed=1):
    return np.random.default_rng(seed).normal(mean, sd, STEPS)


def test_a_healthy_run():
    assert found(REALISED_RATIO=noisy(0.7), PREDICTED_RATIO=0.7, ZERO_ADVANTAGE=0.3) == {"variance": (GOOD, False)}


@pytest.mark.parametrize(
    ("changed", "name", "level"),
    [
        ({"REALISED_RATIO": noisy(1.3)}, "variance", PROBLEM),
        ({"REALISED_RATIO": noisy(1.0)}, "variance", NOTE),
        ({"REALISED_RATIO": float("nan")}, "variance", PROBLEM),
        ({"REALISED_RATIO": noisy(1.0), "AIM": 1.0, "SAVED_ROLLOUTS": 0.2}, "variance", GOOD),
        ({"REALISED_RATIO": noisy(0.9), "PREDICTED_RATIO": 0.5}, "prediction", NOTE),
        ({"TRUST": 0.0}, "trust", PROBLEM),
        ({"TRUST": 0.75}, "trust", NOTE),
        ({"TRUST": [0.0] * 20 + [1.0] * 20}, "trust", None),
        ({"SELECTION_TRUST": 0.2}, "trust", NOTE),
        ({"BAD_PREDICTIONS": [0.0] * 39 + [0.5]}, "predictions", PROBLEM),
        ({"BAD_PREDICTIONS": 0.0}, "predictions", None),
        ({"UNSCORABLE": 0.3}, "rewards", PROBLEM),
        ({"UNSCORABLE": 0.05}, "rewards", NOTE),
        ({"ZERO_ADVANTAGE": 0.8}, "rollouts without gradient", NOTE),
        ({"ZERO_ADVANTAGE": 0.0, "UNINFORMATIVE": 0.8}, "rollouts without gradient", NOTE),  # KL in rewards
        ({"ZERO_ADVANTAGE": 0.0, "UNINFORMATIVE": 0.8, "SHRINKAGE": 1.0}, "rollouts without gradient", None),
        ({"COUNTS_MAX": 16}, "bounds", NOTE),
        ({"SQUARED_WEIGHTS": 3.0}, "candidates", NOTE),
        ({"SQUARED_WEIGHTS": 1.4, "NEGLECTED": 0.3}, "candidates", None),
        ({"NEGLECTED": 0.7}, "candidates", NOTE),
        ({"SQUARED_WEIGHTS": 1.2, "ZERO_ADVANTAGE": 0.8}, "rollouts without gradient", NOTE),
        ({"ROLLOUT_NOISE": 0.1}, "noise", NOTE),
        ({"ROLLOUT_NOISE": 0.6, "REALISED_RATIO": noisy(0.7)}, "second moment", GOOD),
        ({"ROLLOUT_NOISE": 0.6, "REALISED_RATIO": noisy(1.4)}, "second moment", NOTE),
        ({"ROLLOUT_NOISE": 0.6}, "noise", None),
        ({"AIM": 1.0, "SAVED_ROLLOUTS": 0.0}, "spending", NOTE),
        ({"AIM": 1.0, "SAVED_ROLLOUTS": 0.2}, "spending", GOOD),
        ({"LOOKS": 0.0, "WAVES_TRUST": 1.0}, "waves", NOTE),
        ({"LOOKS": 0.3, "WAVES_TRUST": 1.0}, "waves", None),
        ({"LOOKS": 0.3, "WAVES_TRUST": [1.0] * 30 + [0.0] * 10}, "waves", NOTE),
        ({"OVERHEAD": 2.0}, "overhead", None),
        ({"COUNTS_MIN": 8, "COUNTS_MAX": 8, "TRUST": 1.0}, "equal counts", NOTE),
    ],
)
def test_findings(changed, name, level):
    result = found(**changed).get(name, (None, None))
    assert result[0] == level
    if level in (NOTE, PROBLEM):
        assert result[1] or name == "variance"


def test_bad_predictions_are_counted():
    assert diagnosed(BAD_PREDICTIONS=[0.0] * (STEPS - 1) + [0.5])["predictions"].value == 1


def predicted(error, mean=0.5, outcomes=0.1, **more):
    """Metrics of predictions with this mean squared error [steps], of prompts with this variance of their rewards."""
    brier = outcomes + np.asarray(error)
    rates = {"PROMPT_REWARD": mean, "SUCCESS_RATE": mean, "REWARD_VARIANCE": outcomes}
    return rates | {"BRIER": np.random.default_rng(2).normal(brier, 0.002, STEPS)} | more


@pytest.mark.parametrize(
    ("changed", "level"),
    [
        (predicted(0.04), GOOD),  # one probability for all prompts: .5 x .5 - .1 = .15
        (predicted(0.15), NOTE),
        (predicted(0.3), NOTE),
        (predicted(0.15, SQUARED_WEIGHTS=1.2), GOOD),  # the rate is that of other prompts
        (predicted(0.15, LOOKS=0.5), None),  # sizes depend on rewards
        (predicted(0.15, COUNTS_MIN=1), None),  # groups of one have no variance
        (predicted(0.15) | {"PROMPT_REWARD": 0.7}, None),  # rewards are not successes
    ],
)
def test_calibration(changed, level):
    one = diagnosed(**changed).get("calibration")
    assert (one and one.level) == level
    if one is not None:
        expected = float(np.mean(changed["BRIER"][STEPS // 2 :])) - 0.1
        assert one.value == pytest.approx(expected**0.5, rel=0.01)


@pytest.mark.parametrize(
    ("error", "level"),
    [
        ([0.02] * 20 + [0.08] * 20, NOTE),
        ([0.08] * 20 + [0.02] * 20, None),
        ([0.02] * 20 + [0.0235] * 20, None),
        ([0.001] * 20 + [0.006] * 20, None),
    ],
)
def test_stale_predictions(error, level):
    one = diagnosed(**predicted(error)).get("stale predictions")
    assert (one and one.level) == level
    if one is not None:
        assert one.value == pytest.approx(4, rel=0.1)


def test_the_error_of_predictions_is_unbiased():
    """Against VIP itself, with prompts whose true probability is known and different numbers of rollouts."""
    rng, prompts = np.random.default_rng(0), [str(q) for q in range(400)]
    p = rng.beta(0.5, 0.5, 400)
    vip, rows, true = VIP(features=None, cache=None, min_rollouts=2), [], []
    for step in range(60):
        batch = rng.choice(400, 40, replace=False)
        asked = [prompts[q] for q in batch]
        guesses, plan = vip.predict(asked), vip.allocate(asked, 320)
        vip.observe(asked, [rng.binomial(1, p[q], n) for q, n in zip(batch, plan.counts, strict=True)])
        true.append(np.mean((guesses - p[batch]) ** 2))
        rows.append({"strategy": "default", "step": step} | names.logged(vip.metrics()))
    findings = {one.name: one for one in diagnose(Run("run", Path("run"), tuple(rows), {}, (), ()), "default")}
    assert findings["calibration"].value == pytest.approx(np.mean(true[30:]) ** 0.5, rel=0.15)


def test_the_second_moment():
    """Of 100 parts with uniform counts 60 come from rollouts; at a variance ratio of .5 30 of 70 are left."""
    one = diagnosed(ROLLOUT_NOISE=30 / 70, REALISED_RATIO=0.5)["second moment"]
    assert one.value == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("sizes", "level"), [([2, 2, 2, 48], NOTE), ([2, 2, 8, 48], None), ([2] * 20 + [48], None), ([], None)]
)
def test_groups_at_both_bounds(sizes, level):
    history = [PromptHistory.of(str(n), "p", [Visit(float(n), 1.0)] * 2) for n in sizes]
    largest = [48] + [20 + step % 20 for step in range(STEPS - 1)]
    one = diagnosed(history=history, COUNTS_MIN=2, COUNTS_MAX=largest).get("bounds")
    assert (one and one.level) == level


def test_selection_without_gradients_wants_more_candidates():
    remedies = [
        diagnosed(SQUARED_WEIGHTS=squares, ZERO_ADVANTAGE=0.8)["rollouts without gradient"].remedy
        for squares in (1.2, 2.0)
    ]
    assert ["more candidates" in remedy for remedy in remedies] == [True, False]


def test_what_needs_the_whole_log_is_computed_once(monkeypatch):
    """Not once for each row: a log of 10,000 rows took minutes."""
    asked = []
    steps = Run.logging_steps.fget
    monkeypatch.setattr(Run, "logging_steps", property(lambda run: asked.append(run) or steps(run)))
    rows = training_rows(np.random.default_rng(0), "default", 0, 40)
    diagnose(Run("run", Path("run"), tuple(rows), {}, (), ()), "default")
    assert len(asked) <= 2


def test_the_time_of_a_step_is_that_of_trl():
    rows = [
        {**row, "step_time": 4.0, "vip/overhead_seconds": 1.0}
        for row in training_rows(np.random.default_rng(0), "default", 0, 20)
    ]
    run = Run("run", Path("run"), tuple(rows), {}, (), ())
    assert "overhead" in {one.name for one in diagnose(run, "default")}


def test_few_steps_and_other_logs():
    assert found(steps=5)["variance"][0] == NOTE
    assert found("uniform")["variance"] == (NOTE, True)
    run = Run("run", Path("run"), ({"strategy": "default", "step": 1, "reward": 0.5},), {}, (), ())
    assert [one.name for one in diagnose(run, "default")] == ["log"]


def test_problems_come_first():
    rows = [{**row, "vip/unscorable": 0.5} for row in training_rows(np.random.default_rng(0), "default", 0, 40)]
    levels = [one.level for one in diagnose(Run("run", Path("run"), tuple(rows), {}, (), ()), "default")]
    assert levels[0] == PROBLEM
    assert levels == sorted(levels, key=(PROBLEM, NOTE, GOOD).index)


@pytest.mark.parametrize(("unscorable", "code"), [(0.0, 0), (0.5, 1)])
def test_the_exit_code_says_whether_there_is_a_problem(tmp_path, unscorable, code):
    rows = training_rows(np.random.default_rng(0), "default", 0, 40)
    write_lines(tmp_path / "metrics.jsonl", [{**row, "vip/unscorable": unscorable} for row in rows])
    result = CliRunner().invoke(app, ["doctor", str(tmp_path)])
    assert result.exit_code == code
    assert "default" in result.output
    CliRunner().invoke(app, ["doctor", str(tmp_path), "--json", str(tmp_path / "found.json")])
    content = json.loads((tmp_path / "found.json").read_text())
    assert content["problems"] == code and content["notes"] == []
    findings = {one["name"]: one for one in content["findings"]["default"]}
    assert findings["variance"]["value"] == pytest.approx(0.78, abs=0.1)
    assert ("rewards" in findings) == (unscorable > 0)
    other = CliRunner().invoke(app, ["doctor", str(tmp_path), "--strategy", "paper"])
    assert other.exit_code not in (0, 1) or other.exception is not None
