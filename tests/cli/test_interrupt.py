"""Ctrl-C: exit code 130, and a line that says how to go on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytest.importorskip("trl", reason='needs pip install "viprl[trl]"')

import tiny
from viprl import cli
from viprl.runs.files import METRICS_FILE
from viprl.utils.json_lines import log_rows


@pytest.fixture
def interrupted(monkeypatch, capsys):
    """A function that runs `viprl ARGUMENTS`, in which FUNCTION is interrupted; returns what is printed."""

    def stop(*_, **__):
        raise KeyboardInterrupt

    def run(function: str, *arguments: object) -> str:
        monkeypatch.setattr(function, stop)
        monkeypatch.setattr(sys, "argv", ["viprl", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 128 + signal.SIGINT
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("interrupted: ")
        return line

    return run


@pytest.fixture
def config(tmp_path) -> Path:
    settings = tiny.run_settings(tmp_path, tiny.save(tmp_path / "model"))
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings | {"save_steps": 2, "max_steps": 100_000}))
    sweep = {"base": "c.yaml", "output_dir": str(tmp_path / "sweep"), "arms": {"a": {}}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(sweep))
    return tmp_path / "c.yaml"


def test_a_training(interrupted, config, tmp_path):
    line = interrupted("viprl.train.training.train", "train", "--config", config)
    assert "no checkpoint" in line and "every 2 steps" in line
    (tmp_path / "run" / "checkpoint-4").mkdir(parents=True)
    (tmp_path / "run" / "checkpoint-4" / "trainer_state.json").write_text('{"global_step": 4}')
    line = interrupted("viprl.train.training.train", "train", "--config", config)
    assert "continues from" in line and "checkpoint-4" in line
    assert "again" in interrupted("viprl.train.dry_run.dry_run", "train", "--config", config, "--dry-run")


def test_an_evaluation(interrupted, config, tmp_path):
    given = ["--model", tmp_path / "model", "--dataset", tmp_path / "data.jsonl", "--verify", "exact_match"]
    line = interrupted("viprl.evaluate.evaluation.evaluate_model", "evaluate", *given, "--out", tmp_path / "out")
    assert "continues" in line and str(tmp_path / "out") in line
    line = interrupted("viprl.evaluate.evaluation.evaluate_generations", "evaluate", "--generations", "x.jsonl")
    assert "again" in line


def test_the_other_commands(interrupted, config, tmp_path):
    assert "continues" in interrupted("viprl.train.sweep_run.run_sweep", "sweep", "--config", tmp_path / "s.yaml")
    assert "continues" in interrupted("viprl.quickstart.stages.run", "quickstart", "--out", tmp_path / "q")
    assert "again" in interrupted("viprl.report.replay_command.run_replay", "replay", "x.jsonl")
    assert "again" in interrupted("viprl.report.run_report.write_report", "report", "x")


@pytest.fixture
def interruptible():
    """Ctrl-C works, also where the tests run in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_signal_in_a_training(config, tmp_path, monkeypatch, capsys):
    (tmp_path / "impatient.py").write_text(
        "import os, signal\n"
        "def reward(completions, trainer_state, **_):\n"
        "    if trainer_state.global_step == 5: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return [0.0, 1.0] * (len(completions) // 2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["viprl", "train", "--config", str(config), "--set", "reward=impatient:reward"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 128 + signal.SIGINT
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("interrupted: ") and last.endswith(str(tmp_path / "run" / "checkpoint-4"))
    assert [row["step"] for row in log_rows(tmp_path / "run" / METRICS_FILE)][:4] == [1, 2, 3, 4]


@pytest.mark.usefixtures("interruptible")
def test_a_signal_to_a_process(tmp_path):
    script = (
        "import pathlib, sys, time, viprl.cli, viprl.report.run_report as report\n"
        "def wait(*_): pathlib.Path('begun').touch(); time.sleep(60)\n"
        "report.write_report = wait; sys.argv = ['viprl', 'report', 'x']\n"
        "viprl.cli.main()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "begun").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert errors.startswith("interrupted: ") and len(errors.splitlines()) == 1
