"""Compares the arms of a sweep: mean over seeds with its 95 % interval, and difference from a baseline."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from viprl.analysis.statistics import Estimate, finite, paired_difference
from viprl.errors import MissingPackageError
from viprl.metrics import (
    EVALUATION_REWARD,
    PREFIX,
    PROMPT_REWARD,
    REWARD,
    REWARD_VARIANCE,
    RUNNING_RATIO,
    SUCCESS_RATE,
    ZERO_ADVANTAGE,
)
from viprl.report.page import Section, table
from viprl.report.run_report import write_report
from viprl.report.words import cell, ends, num
from viprl.runs.files import METRICS_FILE, REPORT_FILE
from viprl.utils.files import make_folder, write_text
from viprl.utils.json_lines import log_rows, write_json_lines
from viprl.utils.numerics import number

COMPARISON_FILE = "comparison.json"

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Measure:
    """One number of a run, from the logged values of one metric."""

    key: str
    title: str
    digits: int
    metric: str
    share: float
    """Share of the values that is averaged, from the end; 0 for the last one alone."""

    def measure(self, rows: Rows) -> float:
        """The number of a run with these rows; NaN if the metric was never logged."""
        values = finite([number(row.get(self.metric)) for row in rows])
        return float(np.mean(values[-max(1, round(self.share * values.size)) :])) if values.size else math.nan


MEASURES = (
    Measure("eval_reward", "evaluation reward at the end", 3, EVALUATION_REWARD, 0),
    Measure("success_rate", "success rate in training by prompt, last tenth", 3, PREFIX + SUCCESS_RATE, 0.1),
    Measure("prompt_reward", "mean reward in training by prompt, last tenth", 3, PREFIX + PROMPT_REWARD, 0.1),
    Measure("reward_variance", "reward variance in training by prompt, last tenth", 3, PREFIX + REWARD_VARIANCE, 0.1),
    Measure("reward", "training reward (depends on the allocation), last tenth", 3, REWARD, 0.1),
    Measure("zero_advantage_rollouts", "share of rollouts without a gradient", 3, PREFIX + ZERO_ADVANTAGE, 1),
    Measure("variance_ratio", "gradient variance relative to uniform, estimated", 2, PREFIX + RUNNING_RATIO, 0),
    Measure("rollouts", "rollouts in total", 0, "rollouts", 0),
)
WITHOUT_SUCCESS = ("prompt_reward", "reward_variance")
"""Measures of runs that have no success rate."""


def compare(
    folder: Path, runs: Sequence[tuple[str, int, Path]], baseline: str, failed: Mapping[str, str], console: Console
) -> dict[str, Any]:
    """Write comparison.json and report.html, and print the table.

    Args:
        folder: where the two files are written.
        runs: (arm, seed, run folder) of each finished run.
        baseline: the arm that the others are compared with.
        failed: the reason for each run that failed.
        console: for the table.

    Returns: the content of comparison.json.
    """
    logs = {(arm, seed): list(log_rows(place / METRICS_FILE)) for arm, seed, place in runs}
    arms = list(dict.fromkeys(arm for arm, _, _ in runs))
    found: dict[str, Any] = {}
    for measure in MEASURES:
        if measure.key in WITHOUT_SUCCESS and "success_rate" in found:
            continue
        values = {arm: {seed: measure.measure(rows) for (a, seed), rows in logs.items() if a == arm} for arm in arms}
        known = {arm: {s: v for s, v in by_seed.items() if math.isfinite(v)} for arm, by_seed in values.items()}
        if any(known.values()):
            found[measure.key] = {
                arm: _entry(known[arm], None if arm == baseline else known.get(baseline)) for arm in arms if known[arm]
            }
    result = {"baseline": baseline, "arms": found, "failed": dict(failed)}
    write_text(folder / COMPARISON_FILE, json.dumps(result, indent=2, allow_nan=False) + "\n")
    head, rows = _cells(found, arms, baseline)
    for row in rows:
        console.print(row[0], style="bold", highlight=False)
        for title, words in zip(head[1:], row[1:], strict=True):
            if words:
                console.print(f"  {title}: {words}", highlight=False, markup=False)
    section = Section("Comparison of the arms", _lead(baseline, failed), (), table(head, rows))
    _report(folder, logs, section, console)
    return result


def _entry(values: Mapping[int, float], base: Mapping[int, float] | None) -> dict[str, Any]:
    mean = Estimate.of(list(values.values()))
    gap = paired_difference(values, base) if base else None
    return {
        **(asdict(mean) if mean else {}),
        "by_seed": {str(seed): value for seed, value in values.items()},
        "against_baseline": asdict(gap) if gap else None,
    }


def _cells(found: Mapping[str, Any], arms: Sequence[str], baseline: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table."""
    shown = [measure for measure in MEASURES if measure.key in found]
    rows = []
    for arm in arms:
        entries = [(found[measure.key].get(arm), measure) for measure in shown]
        rows.append([arm, *(_words(entry, measure, baseline) if entry else "" for entry, measure in entries)])
    return ["arm", *(measure.title for measure in shown)], rows


def _words(entry: Mapping[str, Any], measure: Measure, baseline: str) -> str:
    words = cell(_estimate(entry), measure.digits, "seeds").replace("\u00a0", " ")
    if entry["against_baseline"] is None or measure.key == "rollouts":
        return words
    gap = _estimate(entry["against_baseline"])
    text = num(gap.mean, measure.digits, signed=True)
    if found := ends(gap, measure.digits, signed=True):
        text += f" ({found})" + (", within noise" if gap.against(0.0) == "within noise" else "")
    return f"{words}; difference from {baseline} {text}"


def _estimate(entry: Mapping[str, Any]) -> Estimate:
    return Estimate(entry["mean"], entry["n"], entry["sd"], entry["low"], entry["high"])


def _lead(baseline: str, failed: Mapping[str, str]) -> list[str]:
    lead = [
        f"Mean ± standard deviation over seeds, with the 95 % interval of the mean (Student’s t), and the difference "
        f"from {baseline}. Differences are paired by seed: the same seed has the same prompts in the same order. The "
        "training reward depends on the allocation itself and does not measure learning; compare the evaluations."
    ]
    return lead + [f"Failed, not in the table: {name} ({reason})." for name, reason in failed.items()]


def _report(folder: Path, logs: Mapping[tuple[str, int], Rows], section: Section, console: Console) -> None:
    """Write one run folder with all arms and seeds, and its report."""
    merged = folder / "comparison"
    make_folder(merged)
    rows = [{**row, "strategy": arm, "seed": seed} for (arm, seed), log in logs.items() for row in log]
    write_json_lines(merged / METRICS_FILE, rows)
    try:
        sweep = folder.resolve().name, len(logs)
        report = f"report: {write_report([merged], folder / REPORT_FILE, extra=[section], sweep=sweep)}"
    except MissingPackageError as error:
        report = f"no report: {error}"
    console.print(f"comparison: {folder / COMPARISON_FILE}, {report}", highlight=False, markup=False)
