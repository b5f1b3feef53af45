"""Trainings in processes of their own, with a script in the place of `viprl train`."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console

from child_processes import gone
from viprl.errors import InputError
from viprl.train.processes import ONE_THREAD, Training, run_trainings
from viprl.utils.progress import progress_bars

SCRIPT = """
import json, os, pathlib, sys, time, yaml
config = yaml.safe_load(open(sys.argv[-1]))
folder = pathlib.Path(config["output_dir"]); folder.mkdir(parents=True, exist_ok=True)
with open(folder.parent / "events", "a") as events: events.write(f"start {folder.name}\\n")
print("threads:", os.environ.get("OMP_NUM_THREADS"))
(folder / "metrics.jsonl").write_text(json.dumps({"step": config["max_steps"]}) + "\\n")
(folder / "pid").write_text(str(os.getpid()))
while config.get("meets") and not (folder.parent / config["meets"] / "pid").exists(): time.sleep(0.01)
time.sleep(config["seconds"])
with open(folder.parent / "events", "a") as events: events.write(f"end {folder.name}\\n")
if config.get("error"): sys.exit(config["error"])
if config.get("raise"):
    error = ValueError(config["raise"]); error.add_note("at step 3")
    print("50%|#####     | 1/2"); raise error
(folder / "finished.json").write_text("{}")
"""


@pytest.fixture
def launch(tmp_path) -> list[str]:
    (tmp_path / "script.py").write_text(SCRIPT)
    return [sys.executable, str(tmp_path / "script.py")]


def training(tmp_path, name: str, seconds: float = 0.0, **settings) -> Training:
    keys = {"output_dir": str(tmp_path / name), "max_steps": 7, "seconds": seconds}
    return Training(name, tmp_path / name, keys | settings)


def events(tmp_path) -> list[str]:
    return (tmp_path / "events").read_text().splitlines()


def run(trainings, launch, **options) -> dict:
    progress = progress_bars(Console(quiet=True))
    ended = {t.name: failure for t, failure in run_trainings(trainings, progress, launch=launch, **options)}
    assert all((task.completed, task.total) == (7, 7) for task in progress.tasks)
    return ended


def test_one_after_the_other_and_side_by_side(tmp_path, launch):
    names = ["a", "b", "c"]
    assert run([training(tmp_path, name) for name in names], launch) == dict.fromkeys(names)
    assert events(tmp_path) == [f"{what} {name}" for name in names for what in ("start", "end")]
    (tmp_path / "events").unlink()
    for name in names:
        (tmp_path / name / "pid").unlink()
    meeting = [training(tmp_path, "a", meets="b"), training(tmp_path, "b", meets="a"), training(tmp_path, "c")]
    run(meeting, launch, jobs=2)
    assert {"start a", "start b"} == {*events(tmp_path)[:2]} and events(tmp_path).index("start c") > 2


def test_a_failure_gives_the_exit_code_and_the_end_of_the_log_and_does_not_stop_the_others(tmp_path, launch):
    (tmp_path / "a.log").write_text("earlier\n")
    trainings = [training(tmp_path, "a", error="too fast"), training(tmp_path, "b")]
    ended = run(trainings, launch, environment=ONE_THREAD)
    assert ended["b"] is None and ended["a"].reason == "exit code 1: too fast"
    assert str(tmp_path / "a.log") in ended["a"].details and ended["a"].details.endswith("\nthreads: 1\ntoo fast")
    assert "earlier" not in ended["a"].details


def test_the_reason_of_an_exception_is_its_last_line_with_its_notes(tmp_path, launch):
    ended = run([training(tmp_path, "a", **{"raise": "not a number"})], launch)
    assert ended["a"].reason == "exit code 1: ValueError: not a number at step 3"
    assert "Traceback" in ended["a"].details and "50%|" not in ended["a"].details


def test_a_command_that_does_not_exist_or_does_not_train(tmp_path):
    progress = progress_bars(Console(quiet=True))
    with pytest.raises(InputError, match="/nowhere/python"):
        next(run_trainings([training(tmp_path, "a")], progress, launch=["/nowhere/python"]))
    ((_, failure),) = run_trainings([training(tmp_path, "a")], progress, launch=["true"])
    assert failure.reason.startswith("exit code 0")


def test_leaving_the_loop_ends_the_running_trainings(tmp_path, launch):
    slow = [training(tmp_path, "a", meets="b", error=3), training(tmp_path, "b", seconds=60)]
    progress = progress_bars(Console(quiet=True), transient=True)
    with contextlib.closing(run_trainings(slow, progress, jobs=2, launch=launch)) as ended:
        next(ended)
    assert "end b" not in events(tmp_path) and gone(int((tmp_path / "b" / "pid").read_text()))


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.skipif(sys.platform != "linux", reason="prctl is a call of Linux")
def test_trainings_end_with_their_parent(tmp_path, launch, kill):
    code = f"""
import pathlib
from rich.console import Console
from viprl.train.processes import Training, run_trainings
from viprl.utils.progress import progress_bars
folder = pathlib.Path({str(tmp_path / "a")!r})
training = Training("a", folder, {{"output_dir": str(folder), "max_steps": 7, "seconds": 60}})
list(run_trainings([training], progress_bars(Console()), launch={launch!r}))
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "a" / "pid").exists() or not (tmp_path / "a" / "pid").read_text():
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    parent.send_signal(kill)
    parent.wait()
    assert gone(int((tmp_path / "a" / "pid").read_text()))


@pytest.mark.parametrize(
    ("settings", "total"), [({"max_steps": 60}, 60), ({"max_steps": -1, "num_train_epochs": 2}, 80), ({}, None)]
)
def test_the_number_of_steps(tmp_path, settings, total):
    assert Training("a", tmp_path, settings).steps(0.5, 20) == total
