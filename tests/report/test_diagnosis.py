"""What `viprl doctor` says about a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from report_data import training_rows
from typer.testing import CliRunner

from log_files import write_lines
from viprl import metrics as names
from viprl.cli import app
from viprl.report.diagnosis import GOOD, NOTE, PROBLEM, diagnose
from viprl.runs.reader import Run

STEPS = 40


def found(strategy="default", steps=STEPS, **changed):
    """{name: (level, has a remedy)} for a run with other metrics than a healthy one: numbers, or lists [steps]."""
    rng = np.random.default_rng(0)
    rows = [row for row in training_rows(rng, strategy, 0, steps) if "vip/counts/mean" in row]
    for name, values in changed.items():
        for row, value in zip(rows, np.broadcast_to(values, len(rows)).tolist(), strict=True):
            row[names.PREFIX + getattr(names, name)] = value
    run = Run("run", Path("run"), tuple(rows), {}, (), ())
    return {one.name: (one.level, bool(one.remedy)) for one in diagnose(run, strategy)}


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
        ({"UNSCORABLE": 0.3}, "rewards", PROBLEM),
        ({"UNSCORABLE": 0.05}, "rewards", NOTE),
        ({"ZERO_ADVANTAGE": 0.8}, "rollouts without gradient", NOTE),
        ({"COUNTS_MAX": 16}, "bounds", NOTE),
        ({"SQUARED_WEIGHTS": 3.0}, "candidates", NOTE),
        ({"SQUARED_WEIGHTS": 1.4, "NEGLECTED": 0.3}, "candidates", None),
        ({"NEGLECTED": 0.7}, "candidates", NOTE),
        ({"ROLLOUT_NOISE": 0.1}, "noise", NOTE),
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
    other = CliRunner().invoke(app, ["doctor", str(tmp_path), "--strategy", "paper"])
    assert other.exit_code not in (0, 1) or other.exception is not None
