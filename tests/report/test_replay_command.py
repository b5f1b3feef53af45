"""`viprl replay`: the tables, the JSON file and the page."""

from __future__ import annotations

import json

import numpy as np
import pytest
from report_data import Page
from typer.testing import CliRunner

from viprl.analysis.replay import PHASES, SCORES
from viprl.cli import app
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
    assert list(found) == ["strategies"] and list(found["strategies"]) == ["oracle", "default", "uniform"]
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
