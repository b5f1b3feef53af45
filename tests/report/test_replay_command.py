"""`viprl replay`: the tables, the JSON file and the page."""

from __future__ import annotations

import json

import numpy as np
import pytest
from report_data import Page
from typer.testing import CliRunner

from log_files import write_parquet
from viprl.analysis.replay import PHASES, SCORES
from viprl.cli import app
from viprl.errors import DataError, InputError
from viprl.runs.history import PromptHistory, save_history


@pytest.fixture
def history(tmp_path):
    rng = np.random.default_rng(0)
    p = rng.beta(0.4, 0.4, 21)
    visits = [12] * 20 + [11]  # the last prompt has one visit too few
    found = [
        PromptHistory(str(i), f"prompt {i}", np.full(t, 8.0), rng.binomial(8, p[i], t).astype(float))
        for i, t in enumerate(visits)
    ]
    save_history(tmp_path / "history.jsonl.gz", found)
    return tmp_path / "history.jsonl.gz"


def test_the_command(tmp_path, history):
    pytest.importorskip("matplotlib")
    arguments = f"replay {history} --strategies oracle,default,uniform --seeds 2 --batch-size 8 --min-rollouts 2"
    arguments += " --max-rollouts 20 --visits 12 --features none --json "
    closed = f"{tmp_path}/out/closed.json --report {tmp_path}/report --loop closed"
    result = CliRunner().invoke(app, (arguments + closed).split(), catch_exceptions=False)
    assert result.exit_code == 0
    for words in ("20 of 21 prompts", "oracle", "default", "uniform", "11+", "1.000"):
        assert words in result.output
    found = json.loads((tmp_path / "out/closed.json").read_text())
    assert list(found) == ["protocol", "strategies"] and list(found["strategies"]) == ["oracle", "default", "uniform"]
    phases = found["strategies"]["default"]["phases"]
    assert [phase["visits"] for phase in phases] == [label for label, *_ in PHASES]
    assert set(SCORES) < set(phases[0])
    page = Page((tmp_path / "report/replay.html").read_text())
    assert page.tags.count("svg") == 3 and page.tags.count("table") == len(SCORES) + 1 and "script" not in page.tags
    assert all(value.startswith("#") for value in page.references)
    assert {file.stem for file in (tmp_path / "report").glob("*.svg")} == {
        "replay_capture", "replay_log_loss", "replay_calibration",
    }  # fmt: skip
    CliRunner().invoke(app, f"{arguments}{tmp_path}/out/open.json".split(), catch_exceptions=False)
    open_loop = json.loads((tmp_path / "out/open.json").read_text())["strategies"]["default"]["phases"]
    assert [phase["brier"] for phase in open_loop] != [phase["brier"] for phase in phases]


@pytest.mark.parametrize("option", ["--success 0.5", "--reward correct", "--strategies ,", "--features none"])
def test_options_that_cannot_be(history, option):
    with pytest.raises(InputError, match=option.split()[0]):
        CliRunner().invoke(app, f"replay {history} {option}".split(), catch_exceptions=False)


def test_a_log_of_trl_needs_no_options(tmp_path):
    rng = np.random.default_rng(0)
    p = rng.beta(0.5, 0.5, 12)
    for step in range(9):
        at = rng.permutation(12)[:4] if step >= 6 else np.arange(12)[4 * (step % 3) : 4 * (step % 3) + 4]
        rows = [
            {
                "step": step + 1,
                "prompt": f"prompt {i}",
                "completion": f"{step} {j}",
                "correct": rng.random(),
                "brief": 0.5,
            }
            for i in at
            for j in range(6)
        ]
        rows = [row | {"correct": float(row["correct"] < p[int(row["prompt"][7:])]) * 0.8} for row in rows]
        write_parquet(tmp_path / "completions" / f"completions_{step + 1:05d}.parquet", rows)
    arguments = f"replay {tmp_path} --seeds 1 --features none --strategies default,uniform --json {tmp_path}/found.json"
    result = CliRunner().invoke(app, [*arguments.split(), "--success", "correct>=0.5"], catch_exceptions=False)
    assert result.exit_code == 0
    protocol = json.loads((tmp_path / "found.json").read_text())["protocol"]
    derived = {name: protocol[name] for name in ("batch_size", "rollouts", "min_rollouts", "max_rollouts", "visits")}
    assert derived == {"batch_size": 4, "rollouts": 6, "min_rollouts": 2, "max_rollouts": 36, "visits": 2}
    with pytest.raises(DataError, match="--reward"):
        CliRunner().invoke(app, arguments.split(), catch_exceptions=False)
    with pytest.raises(InputError, match="--visits 4"):
        CliRunner().invoke(
            app, [*arguments.split(), "--success", "correct>=0.5", "--visits", "9"], catch_exceptions=False
        )


def test_a_log_with_rewards(tmp_path):
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(0)
    found = [
        PromptHistory(str(i), f"prompt {i}", np.full(3, 8.0), np.full(3, np.nan), None, tuple(
            rng.choice([0.0, 0.1, 1.0], 8, p=[(1 - p) / 2, (1 - p) / 2, p]) for _ in range(3)
        ))
        for i, p in enumerate(rng.beta(0.4, 0.4, 16))
    ]  # fmt: skip
    save_history(tmp_path / "h.jsonl", found)
    options = "--strategies default --seeds 1 --batch-size 8 --features none --min-rollouts 2"
    command = f"replay {tmp_path}/h.jsonl {options}"
    out = f" --json {tmp_path}/out.json --report {tmp_path}/report"
    result = CliRunner().invoke(app, (command + out).split(), catch_exceptions=False)
    assert result.exit_code == 0 and "variance ratio" in result.output and "Rewards" in result.output
    phase = json.loads((tmp_path / "out.json").read_text())["strategies"]["default"]["phases"][1]
    assert phase["log_loss"] is None and phase["capture"] is not None and phase["calibration"] == []
    assert {file.stem for file in (tmp_path / "report").glob("*.svg")} == {"replay_capture"}
    judged = CliRunner().invoke(app, f"{command} --success 0.5".split(), catch_exceptions=False)
    assert judged.exit_code == 0 and "log loss" in judged.output
    for option in ("--reward correct", "--success correct>=0.5"):
        with pytest.raises(InputError, match="total rewards"):
            CliRunner().invoke(app, f"{command} {option}".split(), catch_exceptions=False)


def test_rewards_that_never_differ_are_explained(tmp_path):
    rows = tuple(np.full(8, r) for r in (0.5, 0.5))
    found = [
        PromptHistory(str(i), "", np.full(2, 8.0), np.full(2, np.nan), None, tuple(row + i for row in rows))
        for i in range(8)
    ]
    save_history(tmp_path / "h.jsonl", found)
    options = "--strategies uniform --batch-size 8 --features none --min-rollouts 2"
    result = CliRunner().invoke(app, f"replay {tmp_path}/h.jsonl {options}".split(), catch_exceptions=False)
    assert result.exit_code == 0 and "no prompt differed" in result.output
