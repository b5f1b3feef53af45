"""What a run spent: totals by hand, the finding and the section."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_data import Page, folder_with

from viprl.report.findings import findings
from viprl.report.run_report import write_report
from viprl.report.spent import spent
from viprl.runs.reader import Run

REALISED = (1.1, 0.9)


def rows(tokens=True, seeds=1, steps=8):
    """Every second step spends everything, the others half of 64 rollouts and a quarter of 6,400 tokens."""
    found = []
    for seed in range(seeds):
        for step in range(1, steps + 1):
            half = step % 2 == 0
            row = {"strategy": "default", "seed": seed, "step": step, "vip/counts/mean": 8.0 - 4 * half}
            row |= {"vip/spending/rollouts": 64 - 32 * half, "vip/spending/rollouts_saved": 0.5 * half}
            row |= {"vip/variance_ratio/realised": REALISED[half], "vip/variance_ratio/predicted": 1.0}
            if tokens:
                row |= {"vip/spending/tokens": 6400 - 4800 * half, "vip/spending/tokens_saved": 0.75 * half}
            found.append(row)
    return found


def run_with(rows):
    return Run("run", Path("run"), tuple(rows), {}, (), ())


@pytest.mark.parametrize(("unit", "each", "saved"), [("rollouts", 48, 0.25), ("tokens", 4000, 0.375)])
def test_totals_by_hand(unit, each, saved):
    found = spent(run_with(rows(seeds=2)), "default", unit)
    assert found.total == pytest.approx(16 * each) and found.uniform == pytest.approx(16 * each / (1 - saved))
    assert found.saved == pytest.approx(saved) and found.ratio.mean == pytest.approx(1.0)
    assert spent(run_with(rows(tokens=False)), "default", "tokens") is None


def test_a_log_of_means_counts_every_step():
    sparse = [row | {"step": 10 * row["step"]} for row in rows()]
    assert spent(run_with(sparse), "default", "rollouts").total == pytest.approx(10 * 8 * 48)


def test_the_finding_names_both_units():
    (finding,) = [f for f in findings(run_with(rows())) if "saved" in f.label]
    assert finding.value == "25\u00a0%" and "384 rollouts instead of 512" in finding.sentence
    assert "37.5\u00a0%" in finding.sentence
    plain = [row for row in rows() if row["step"] % 2]  # nothing was saved
    assert not [f for f in findings(run_with(plain)) if "saved" in f.label]


def test_the_section(tmp_path):
    pytest.importorskip("matplotlib")
    folder = folder_with(tmp_path / "mine", rows())
    page = Page(write_report([folder], tmp_path, plots_dir=tmp_path / "plots").read_text())
    assert "Spending" in page.headings
    assert {"rollouts_saved.svg", "tokens_saved.svg"} < {file.name for file in (tmp_path / "plots").iterdir()}
    bare = folder_with(tmp_path / "bare", [{"strategy": "uniform", "seed": 0, "step": 1, "reward": 0.5}])
    assert "Spending" not in Page(write_report([bare], tmp_path / "bare.html").read_text()).headings
