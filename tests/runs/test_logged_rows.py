"""Logs of verl and tinker-cookbook under the names of this package."""

from __future__ import annotations

import json

import pytest

from log_files import write_lines
from viprl import metrics as names
from viprl.errors import DataError, FileError, InputError
from viprl.report.diagnosis import diagnose
from viprl.runs.logged_rows import is_verl_log, name_by_counts, planned_steps, with_our_names
from viprl.runs.reader import load_run

VIP = {"vip/counts/min": 2.0, "vip/counts/mean": 4.0, "vip/counts/max": 9.0, "vip/variance_ratio/realised": 0.8}


def verl_rows(steps=12, **more):
    data = {**VIP, "critic/score/mean": 0.25, "timing_s/step": 3.0, "training/epoch": 0, **more}
    return [{"step": step, "data": data} for step in range(1, steps + 1)]


def tinker_rows(steps=12):
    of_vip = {f"env/all/{name}": value for name, value in VIP.items()}
    rest = {"env/all/reward/total": 0.25, "time/total": 3.0, "env/all/ac_tokens_per_turn": 7.0}
    return [{"step": step, "progress/done_frac": (step + 1) / 24} | of_vip | rest for step in range(steps)]


@pytest.mark.parametrize("row", [verl_rows()[0], tinker_rows()[0]])
def test_names_of_other_engines(row):
    found = with_our_names(row)
    assert VIP.items() <= found.items()
    assert found[names.REWARD] == 0.25 and found[names.STEP_TIME] == 3.0 and found["step"] == row["step"]


def test_epochs_of_verl_count_from_one():
    assert [with_our_names(verl_rows(**{"training/epoch": at})[0])[names.EPOCH] for at in (0, 1)] == [1, 2]
    assert names.EPOCH not in with_our_names({"step": 1})


def test_rows_of_trl_stay_as_they_are():
    row = {"step": 3, "reward": 0.5, "data": {"x": 1}, "vip/trust": 1.0}
    assert with_our_names(row) == row


def test_the_file_of_verl_is_a_run(tmp_path):
    file = write_lines(tmp_path / "project" / "experiment.jsonl", verl_rows())
    assert is_verl_log(file)
    run = load_run(file)
    assert run.name == "experiment" and run.strategies == ("adaptive",) and len(run.rows) == 12
    assert {one.name for one in diagnose(run, "adaptive")} >= {"variance"}
    with pytest.raises(FileError, match=r"experiment\.jsonl"):
        load_run(tmp_path / "project")


def test_a_log_of_tinker_is_a_run(tmp_path):
    write_lines(tmp_path / "metrics.jsonl", tinker_rows())
    run = load_run(tmp_path)
    assert run.strategies == ("adaptive",) and [row["step"] for row in run.rows] == list(range(12))
    assert run.rows[0]["vip/counts/max"] == 9.0 and run.settings == {}


@pytest.mark.parametrize("row", [{"step": 1}, {"step": 1, "data": {}, "more": 1}, "[1]", "", '{"step": 1, "data"'])
def test_other_files_are_no_log_of_verl(tmp_path, row):
    file = write_lines(tmp_path / "rows.jsonl", [row])
    assert not is_verl_log(file) and not is_verl_log(tmp_path / "missing.jsonl") and not is_verl_log(tmp_path)
    with pytest.raises(InputError):
        load_run(file)


def test_a_log_of_verl_without_a_step(tmp_path):
    with pytest.raises(DataError):
        load_run(write_lines(tmp_path / "rows.jsonl", [{"step": None, "data": {}}]))


def test_names_of_strategies():
    assert name_by_counts([VIP]) == "adaptive"
    assert name_by_counts([VIP | {"vip/counts/max": 2.0}, {"reward": 1.0}]) == "uniform"


@pytest.mark.parametrize(
    ("settings", "epoch", "steps"),
    [
        ({"max_steps": 300}, None, 300),
        ({"max_steps": -1, "num_train_epochs": 3}, 0.5, 60),
        ({"num_train_epochs": 3}, None, None),
        ({}, 0.5, None),
        ({"max_steps": "300"}, 0.5, None),
    ],
)
def test_planned_steps(settings, epoch, steps):
    assert planned_steps(settings, epoch, 10) == steps


def test_the_steps_of_trl(tmp_path):
    state = {"global_step": 4, "max_steps": 40, "log_history": [{"step": 4, "reward": 0.5, **VIP}]}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    assert load_run(tmp_path).settings == {"max_steps": 40}
