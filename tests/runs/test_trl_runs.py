"""The report's reader on output folders of TRL."""

from __future__ import annotations

import json

import pytest

from log_files import write_lines, write_parquet
from viprl.errors import DataError, FileError, InputError
from viprl.report.findings import findings
from viprl.report.run_report import write_report
from viprl.runs.reader import load_run
from viprl.runs.trainer_state import TrainerState, trainer_state

VIP = {"vip/counts/min": 2.0, "vip/counts/mean": 4.0, "vip/counts/max": 9.0, "vip/variance_ratio/realised": 0.8}


def write_state(folder, rows, step=20):
    folder.mkdir(parents=True, exist_ok=True)
    log = [*rows, {"step": step, "train_runtime": 3.0}]
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": log}))
    return folder


def training(more, every=5):
    rows = [{"step": step, "reward": 0.5, "frac_reward_zero_std": 0.25, **more} for step in range(every, 21, every)]
    return [*rows, {"step": 20, "eval_reward": 0.4}]


@pytest.mark.parametrize(
    ("more", "strategy"), [({}, "uniform"), (VIP, "adaptive"), (VIP | {"vip/counts/max": 2.0}, "uniform")]
)
def test_the_state_of_a_trainer_is_a_run(tmp_path, more, strategy):
    run = load_run(write_state(tmp_path / "run", training(more)))
    assert run.strategies == (strategy,) and run.logging_steps == 5
    assert [row["step"] for row in run.rows] == [5, 10, 15, 20, 20]
    assert run.history == () and any("log_completions" in note for note in run.notes)


def test_completions_beside_the_state_give_rollouts_by_prompt(tmp_path):
    folder = write_state(tmp_path / "run" / "checkpoint-20", training(VIP)).parent
    rows = [{"step": 5, "prompt": "p", "completion": str(i), "correct": float(i), "vip_rollouts": 2} for i in range(2)]
    write_parquet(folder / "completions" / "completions_00005.parquet", rows)
    assert [(p.text, p.rollouts, p.successes) for p in load_run(folder).prompts()] == [("p", 2, 1)]
    several = [row | {"brevity": 0.1} for row in rows]
    write_parquet(folder / "completions" / "completions_00005.parquet", several)
    run = load_run(folder)
    assert run.history == () and any("brevity" in note for note in run.notes)


def test_the_report_of_a_run_of_trl(tmp_path):
    pytest.importorskip("matplotlib")
    folder = write_state(tmp_path / "run", training({}))
    assert [finding.value for finding in findings(load_run(folder))] == ["25\u00a0%"]
    page = write_report([folder], tmp_path / "report.html").read_text()
    for words in ("Evaluation reward", "no measure of learning", "a mean over 5 steps", "TRL gives every prompt"):
        assert words in page


def test_the_newest_state_that_can_be_read(tmp_path):
    write_state(tmp_path, [], step=10)
    for step in (20, 9, 100):
        write_state(tmp_path / f"checkpoint-{step}", [], step=step)
    write_state(tmp_path / "checkpoint-best", [], step=500)
    (tmp_path / "checkpoint-100" / "trainer_state.json").write_text('{"global_step": 1')
    found = trainer_state(tmp_path)
    assert found is not None and found.file.parent.name == "checkpoint-20" and found.step == 20
    assert trainer_state(tmp_path / "checkpoint-9").step == 9
    assert trainer_state(tmp_path / "missing") is None


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        "[" * 50_000,
        '{"global_step": 1, "log_history": [1]}',
        '{"global_step": "1", "log_history": []}',
    ],
)
def test_states_that_cannot_be_read(tmp_path, text):
    (tmp_path / "trainer_state.json").write_text(text)
    with pytest.raises(DataError, match=r"trainer_state\.json"):
        TrainerState.read(tmp_path / "trainer_state.json")
    with pytest.raises(DataError, match=r"trainer_state\.json"):
        load_run(tmp_path)


def test_folders_that_hold_something_else_say_what_to_do(tmp_path):
    write_lines(tmp_path / "arms" / "a" / "metrics.jsonl", [{"step": 1}])
    with pytest.raises(FileError, match=r"give .*arms/a"):
        load_run(tmp_path / "arms")
    write_lines(tmp_path / "sweep" / "a" / "seed-0" / "metrics.jsonl", [{"step": 1}])
    with pytest.raises(FileError, match=r"give .*sweep/a/seed-0$"):
        load_run(tmp_path / "sweep")
    (tmp_path / "sweep" / "report.html").touch()
    with pytest.raises(FileError, match=r"sweep/report\.html$"):
        load_run(tmp_path / "sweep")
    with pytest.raises(InputError, match=r"give its folder, .*arms/a$"):
        load_run(tmp_path / "arms" / "a" / "metrics.jsonl")
    (tmp_path / "alone.yaml").write_text("model: m")
    with pytest.raises(InputError, match=r"alone\.yaml is a file; expected a run folder"):
        load_run(tmp_path / "alone.yaml")
    write_lines(tmp_path / "dump" / "1.jsonl", [{"input": "p", "score": 1}])
    with pytest.raises(FileError, match=r"viprl replay .*dump"):
        load_run(tmp_path / "dump")
