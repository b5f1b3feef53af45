"""Run logs: append, cut back to a checkpoint, survive a line cut short, become trajectories."""

from __future__ import annotations

import gzip
import json
import math

from viprl.runs.history import write_history
from viprl.runs.run_log import RunLog
from viprl.utils.json_lines import log_rows


def filled(folder, steps=4):
    log = RunLog(folder, strategy="default", seed=1)
    for step in range(1, steps + 1):
        log.outcomes(step, ["id:a", "id:b"], [3, 5], [1.0, 5.0], [3.0, 4.0])
        log.metrics(step, {"reward": 0.5, "bad": math.nan, "worse": math.inf, "note": "x", "odd": object()})
    return log


def test_rows_carry_strategy_seed_step_and_rollouts_spent(tmp_path):
    filled(tmp_path)
    rows = list(log_rows(tmp_path / "metrics.jsonl"))
    assert [row["rollouts"] for row in rows] == [8, 16, 24, 32]
    assert rows[0] == {
        "strategy": "default", "seed": 1, "step": 1, "rollouts": 8,
        "reward": 0.5, "bad": None, "worse": None, "note": "x", "odd": None,
    }  # fmt: skip


def test_a_resumed_run_writes_every_step_once(tmp_path):
    filled(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"strategy": "default", "se')  # killed while writing
    log = RunLog(tmp_path, strategy="default", seed=1)
    log.rewind(2)
    assert log.rollouts == 16
    log.outcomes(3, ["id:a"], [8], [8], [8])
    log.metrics(3, {})
    assert [row["step"] for row in log_rows(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    assert [row["step"] for row in log_rows(tmp_path / "outcomes.jsonl")] == [1, 2, 3]
    assert list(log_rows(tmp_path / "metrics.jsonl"))[-1]["rollouts"] == 24


def test_rewind_to_the_start_empties_the_log(tmp_path):
    log = filled(tmp_path)
    log.rewind(0)
    assert list(log_rows(tmp_path / "metrics.jsonl")) == [] and log.rollouts == 0


def test_trajectories(tmp_path):
    log = filled(tmp_path, steps=2)
    log.outcomes(3, ["id:a", "sha:1"], [4, 4], [0.0, 0.0], [0.0, 4.0])
    write_history(tmp_path / "t.jsonl.gz", [tmp_path / "outcomes.jsonl"], {"id:a": "first", "id:b": "second"})
    with gzip.open(tmp_path / "t.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    assert rows == [
        {"id": "a", "prompt": "first", "rollouts": [3, 3], "successes": [1, 1]},
        {"id": "b", "prompt": "second", "rollouts": [4, 4], "successes": [5, 5]},
        {"id": "sha:1", "prompt": "", "rollouts": [4], "successes": [0]},
    ]
