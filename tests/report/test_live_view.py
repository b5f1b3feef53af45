"""The numbers of `viprl watch`, and how they are drawn in a terminal."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_data import training_rows
from rich.console import Console

from viprl import metrics as names
from viprl.report.diagnosis import NOTE, PROBLEM
from viprl.report.snapshot import Snapshot
from viprl.report.terminal import ASCII_BLOCKS, BLOCKS, View, sparkline, waiting
from viprl.runs.logged_rows import PROGRESS
from viprl.runs.reader import Run

EVERYTHING = {
    "REALISED_RATIO": 0.7, "RUNNING_RATIO": 0.72, "PROMPT_REWARD": 0.31, "SUCCESS_RATE": 0.25, "UNSCORABLE": 0.3,
    "TRUST": 0.9, "SELECTION_TRUST": 0.8, "SHRINKAGE": 0.7, "WAVES_TRUST": 1.0, "EFFECTIVE_PROMPTS": 21.5,
    "NEGLECTED": 0.12, "LOOKS": 0.4, "SECOND_WAVE": 0.3, "ROLLOUT_NOISE": 0.6, "AIM": 1.0, "SPENT_ROLLOUTS": 200,
    "SAVED_ROLLOUTS": 0.2, "SPENT_TOKENS": 20000, "SAVED_TOKENS": 0.1,
}  # fmt: skip


def a_run(steps=40, settings=None, name="run", strategy="default", **changed):
    rows = training_rows(np.random.default_rng(0), strategy, 0, steps)
    for row in rows:
        row |= {names.PREFIX + getattr(names, key): value for key, value in changed.items()} | {"step_time": 6.0}
    return Run(name, Path("run"), tuple(rows), {}, (), (), settings or {})


def drawn(snapshot, width=100, age=5.0, finished=False, encoding="utf-8", **options):
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding)
    Console(file=out, width=width, **options).print(View(snapshot, age, finished))
    out.flush()
    return raw.getvalue().decode(encoding)


def values(run):
    return {gauge.name: gauge.value for gauge in Snapshot.of(run).gauges}


def test_the_numbers_are_those_of_the_log():
    found = values(a_run(**EVERYTHING))
    expected = {
        "reward": "0.310", "success": "25 %", "unscorable": "30 %", "rollouts": "8,000", "tokens": "800,000",
        "variance": "0.72×", "noise": "60 %", "trust": "0.90", "selection": "21.5", "waves": "30 %",
    }  # fmt: skip
    assert expected.items() <= found.items()
    assert {"counts", "calibration", "overhead", "no gradient"} <= found.keys()


def test_what_was_not_logged_is_not_shown():
    run = Run("run", Path("run"), ({"strategy": "default", "seed": 0, "step": 1, "reward": 0.5},), {}, (), ())
    assert values(run) == {"reward": "0.500"}
    assert [one.name for one in Snapshot.of(run).findings] == ["log"]


def test_progress_and_time():
    shot = Snapshot.of(a_run(40, {"max_steps": 100}))
    assert (shot.step, shot.steps, shot.step_seconds, shot.seconds) == (40, 100, 6.0, 42 * 6.0)  # 2 evaluations
    assert shot.seconds_left == 360.0
    unknown = Snapshot.of(a_run(40))
    assert unknown.steps is None and np.isnan(unknown.seconds_left)


def test_tinker_counts_steps_from_zero():
    rows = tuple({"step": step, PROGRESS: (step + 1) / 24} for step in range(6))
    shot = Snapshot.of(Run("run", Path("run"), rows, {}, (), ()))
    assert (shot.step, shot.steps) == (6, 24)


def test_epochs_say_how_many_steps_there_are():
    rows = tuple({"step": step, "epoch": step / 20} for step in range(1, 11))
    assert Snapshot.of(Run("run", Path("run"), rows, {}, (), (), {"num_train_epochs": 3})).steps == 60


def test_the_strategy_and_seed_of_the_last_row():
    first, last = a_run(strategy="default"), a_run(12, strategy="uniform")
    shot = Snapshot.of(replace(first, rows=first.rows + last.rows))
    assert shot.trained == "uniform, seed 0" and shot.step == 12


@pytest.mark.parametrize("width", [20, 40, 60, 79, 80, 100, 200])
@pytest.mark.parametrize("changed", [{}, EVERYTHING])
def test_every_width_is_enough(width, changed):
    lines = drawn(Snapshot.of(a_run(settings={"max_steps": 100}, **changed)), width).splitlines()
    assert max(map(len, lines)) <= width
    if width >= 40:
        row = next(line for line in lines if line.startswith("variance"))
        assert "×" in row and any(block in row for block in BLOCKS)
    assert any("Brier score" in line for line in lines) == (width >= 80)


def test_colours_and_their_absence(monkeypatch):
    shot = Snapshot.of(a_run(**EVERYTHING))
    assert "\x1b[" in drawn(shot, force_terminal=True, color_system="truecolor")
    assert "\x1b" not in drawn(shot)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in drawn(shot, force_terminal=True)


def test_terminals_without_unicode():
    words = drawn(Snapshot.of(a_run(name="größe", **EVERYTHING)), encoding="ascii")
    assert words.isascii() and "gr" in words and ASCII_BLOCKS[-1] in words


def test_names_cannot_control_the_terminal():
    words = drawn(Snapshot.of(a_run(name="a\x1b[2Jb\rc", strategy="[red]\x9b31m")))
    assert "\x1b" not in words and "\x9b" not in words and "\r" not in words and "[red]" in words


@pytest.mark.parametrize(
    ("age", "finished", "word"),
    [(5, False, "ago"), (50, False, "ago"), (720, False, "12 min"), (720, True, "finished"), (10_000, False, "2.8 h")],
)
def test_a_run_that_stopped_is_stale(age, finished, word):
    assert word in drawn(Snapshot.of(a_run()), age=age, finished=finished)


def test_logs_that_are_written_with_checkpoints_are_not_stale():
    out = io.StringIO()
    Console(file=out, width=100).print(View(Snapshot.of(a_run()), 720.0, False, at_checkpoints=True))
    assert "checkpoint 12 min ago" in out.getvalue() and "no new step" not in out.getvalue()


def test_slow_steps_are_not_stale():
    run = a_run()
    slow = replace(run, rows=tuple(row | {"step_time": 600.0} for row in run.rows))
    assert "no new step" in drawn(Snapshot.of(run), age=700)
    assert "no new step" not in drawn(Snapshot.of(slow), age=700)


def test_findings_are_those_of_the_doctor():
    shot = Snapshot.of(a_run(**EVERYTHING))
    levels = {one.name: one.level for one in shot.findings}
    assert levels["rewards"] == PROBLEM
    words = drawn(shot, 200)
    assert words.splitlines()[0].endswith("1 problem · 2 notes")
    assert shot.findings[0].remedy in words
    assert NOTE in {one.level for one in Snapshot.of(a_run(5)).findings}


@pytest.mark.parametrize(
    ("series", "width", "expected"),
    [
        ([], 5, ""),
        ([3.0], 5, "▅"),
        ([0.0, 1.0], 5, "▁█"),
        ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 8, "▁▂▃▄▅▆▇█"),
        ([9.0, 0.0, 1.0], 2, "▁█"),
        ([1.0], 0, ""),
        ([-1e308, 1e308], 2, "▁█"),
    ],
)
def test_sparklines(series, width, expected):
    assert sparkline(np.array(series), width) == expected


def test_what_a_run_waits_for():
    assert "not found" in waiting("run \x1b not found").plain and "\x1b" not in waiting("\x1b").plain
