"""The comparison of the arms of a sweep, against SciPy."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest
from report_data import Page
from rich.console import Console
from scipy import stats

from log_files import write_lines
from viprl.report.comparison import compare

pytest.importorskip("matplotlib")


def test_without_matplotlib_there_is_a_comparison_but_no_report(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    write_lines(tmp_path / "run" / "metrics.jsonl", [{"step": 1, "reward": 0.5}])
    out = io.StringIO()
    compare(tmp_path, [("mine", 0, tmp_path / "run")], "mine", {}, Console(file=out, width=200))
    assert (tmp_path / "comparison.json").exists() and not (tmp_path / "report.html").exists()
    assert "viprl[report]" in out.getvalue()


def test_arms_are_compared_over_seeds(tmp_path):
    ends = {"uniform": [0.2, 0.4, 0.3], "mine<script>": [0.5, 0.6, 0.7]}
    runs = [(arm, seed, tmp_path / str(seed) / arm) for arm in ends for seed in range(3)]
    for arm, seed, place in runs:
        rows = [
            {"step": s, "rollouts": 8 * s, "reward": s / 20, "eval_reward": ends[arm][seed] * s / 20} for s in range(21)
        ]
        write_lines(
            place / "metrics.jsonl", [*rows, {"step": 21, "eval_reward": None, "vip/zero_advantage_rollouts": 0.5}]
        )
    out = io.StringIO()
    found = compare(tmp_path, runs, "uniform", {"third, seed 0": "killed"}, Console(file=out, width=200))
    assert found == json.loads((tmp_path / "comparison.json").read_text())
    assert found["baseline"] == "uniform" and found["failed"] == {"third, seed 0": "killed"}
    mine = found["arms"]["eval_reward"]["mine<script>"]
    low, high = stats.t.interval(0.95, 2, 0.6, stats.sem([0.5, 0.6, 0.7]))
    assert [mine[key] for key in ("mean", "sd", "low", "high", "n")] == pytest.approx([0.6, 0.1, low, high, 3])
    assert mine["by_seed"] == {"0": 0.5, "1": 0.6, "2": 0.7}
    gaps = np.array([0.3, 0.2, 0.4])
    low, high = stats.t.interval(0.95, 2, gaps.mean(), stats.sem(gaps))
    gap = mine["against_baseline"]
    assert [gap[key] for key in ("mean", "low", "high", "n")] == pytest.approx([0.3, low, high, 3])
    assert found["arms"]["eval_reward"]["uniform"]["against_baseline"] is None
    assert found["arms"]["reward"]["uniform"]["mean"] == pytest.approx((19 / 20 + 1) / 2)  # the last 2 of 21
    assert found["arms"]["zero_advantage_rollouts"]["uniform"]["mean"] == 0.5
    assert found["arms"]["rollouts"]["uniform"]["mean"] == 160 and "variance_ratio" not in found["arms"]
    page = Page((tmp_path / "report.html").read_text())
    assert not page.open and "script" not in page.tags
    title = (tmp_path / "report.html").read_text().partition("</p>")[0]
    assert "6 runs" in title and tmp_path.name in title
    rows = [json.loads(line) for line in (tmp_path / "comparison" / "metrics.jsonl").read_text().splitlines()]
    assert {(row["strategy"], row["seed"]) for row in rows} == {(arm, seed) for arm, seed, _ in runs}
    assert "mine<script>" in out.getvalue() and "0.600" in out.getvalue()


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({}, {"prompt_reward", "reward_variance"}),
        ({"vip/success_rate": 0.5}, {"success_rate"}),
    ],
)
def test_without_success_rewards_are_compared(tmp_path, values, shown):
    rows = [{"step": 1, "vip/reward": 2.5, "vip/reward_variance": 0.5} | values]
    write_lines(tmp_path / "run" / "metrics.jsonl", rows)
    found = compare(tmp_path, [("mine", 0, tmp_path / "run")], "mine", {}, Console(file=io.StringIO(), width=200))
    assert set(found["arms"]) == shown
