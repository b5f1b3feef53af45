"""Arms side by side: per arm the mean over seeds with its 95 % interval, and the difference from the baseline."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from viprl.analysis.run_reader import METRICS_FILE
from viprl.analysis.statistics import Estimate, number, paired_difference
from viprl.report.findings import WASTED, cell, num
from viprl.report.page import Section, table
from viprl.utils.files import write_text
from viprl.utils.json_lines import log_rows

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Measure:
    """One number of a run, from the lines of its metrics.jsonl."""

    key: str
    title: str
    digits: int
    of: Callable[[Rows], float]


def _last(key: str) -> Callable[[Rows], float]:
    def last(rows: Rows) -> float:
        values = [value for row in rows if math.isfinite(value := number(row.get(key)))]
        return values[-1] if values else math.nan

    return last


def _mean(key: str, share: float = 1.0) -> Callable[[Rows], float]:
    """Mean over the last `share` of the lines that hold the key."""

    def mean(rows: Rows) -> float:
        values = [value for row in rows if math.isfinite(value := number(row.get(key)))]
        return float(np.mean(values[-max(1, round(share * len(values))) :])) if values else math.nan

    return mean


MEASURES = (
    Measure("eval_reward", "evaluation reward at the end", 3, _last("eval_reward")),
    Measure("reward", "training reward, last tenth of the steps", 3, _mean("reward", 0.1)),
    Measure("zero_advantage_rollouts", "share of rollouts without a gradient", 3, _mean(WASTED)),
    Measure("variance_ratio", "variance against uniform, by its own rewards", 2, _last("vip/variance_ratio/running")),
    Measure("rollouts", "rollouts spent", 0, _last("rollouts")),
)


def compare(
    folder: Path,
    runs: Sequence[tuple[str, int, Path]],
    baseline: str,
    failed: Mapping[str, str],
    console: Console,
) -> dict[str, Any]:
    """Write folder/comparison.json and folder/report.html from (arm, seed, run folder) and print the table."""
    logs = {(arm, seed): list(log_rows(place / METRICS_FILE)) for arm, seed, place in runs}
    arms = list(dict.fromkeys(arm for arm, _, _ in runs))
    found: dict[str, Any] = {}
    for measure in MEASURES:
        values = {arm: {seed: measure.of(rows) for (a, seed), rows in logs.items() if a == arm} for arm in arms}
        known = {arm: {s: v for s, v in by_seed.items() if math.isfinite(v)} for arm, by_seed in values.items()}
        if any(known.values()):
            found[measure.key] = {
                arm: _entry(known[arm], known.get(baseline), arm == baseline) for arm in arms if known[arm]
            }
    result = {"baseline": baseline, "arms": found, "failed": dict(failed)}
    write_text(folder / "comparison.json", json.dumps(result, indent=2, allow_nan=False) + "\n")
    head, rows = _cells(found, arms, baseline)
    for row in rows:
        console.print(row[0], style="bold", highlight=False)
        for title, words in zip(head[1:], row[1:], strict=True):
            if words:
                console.print(f"  {title}: {words}", highlight=False, markup=False)
    _report(folder, logs, Section("Arms over seeds", _lead(baseline, failed), (), table(head, rows)), console)
    return result


def _entry(values: Mapping[int, float], base: Mapping[int, float] | None, itself: bool) -> dict[str, Any]:
    mean = Estimate.of(list(values.values()))
    gap = None if itself or not base else paired_difference(values, base)
    return {
        **(asdict(mean) if mean else {}),
        "by_seed": {str(seed): value for seed, value in values.items()},
        "against_baseline": asdict(gap) if gap else None,
    }


def _cells(found: Mapping[str, Any], arms: Sequence[str], baseline: str) -> tuple[list[str], list[list[str]]]:
    shown = [measure for measure in MEASURES if measure.key in found]
    head = ["arm", *(measure.title for measure in shown)]
    rows = []
    for arm in arms:
        row = [arm]
        for measure in shown:
            entry = found[measure.key].get(arm)
            row.append(_words(entry, measure, baseline) if entry else "")
        rows.append(row)
    return head, rows


def _words(entry: Mapping[str, Any], measure: Measure, baseline: str) -> str:
    words = cell(_estimate(entry), measure.digits, "seeds").replace("\u00a0", " ")
    gap = entry["against_baseline"]
    if gap is None or measure.key == "rollouts":
        return words
    text = f"{num(gap['mean'], measure.digits, signed=True)}"
    if gap["low"] is not None:
        text += f" ({num(gap['low'], measure.digits, signed=True)} to {num(gap['high'], measure.digits, signed=True)})"
        noise = _estimate(gap).against(0.0)
        text += ", within noise" if noise == "within noise" else ""
    return f"{words}; against {baseline} {text}"


def _estimate(entry: Mapping[str, Any]) -> Estimate:
    return Estimate(entry["mean"], entry["n"], entry["sd"], entry["low"], entry["high"])


def _lead(baseline: str, failed: Mapping[str, str]) -> list[str]:
    lead = [
        "Mean ± sd over seeds with the 95 % interval of the mean (Student's t). Differences are paired by seed: the "
        f"same seed sees the same prompts in the same order. Compared with {baseline}. The training reward moves with "
        "the allocation itself and is no measure of learning; compare evaluations."
    ]
    return lead + [f"Failed and not in the table: {name} ({reason})." for name, reason in failed.items()]


def _report(folder: Path, logs: Mapping[tuple[str, int], Rows], section: Section, console: Console) -> None:
    """One run folder that holds all seeds of all arms, and its report."""
    try:
        from viprl.report.sections import write_report
    except ImportError as error:
        console.print(f"comparison: {folder / 'comparison.json'} (no report.html: {error})", markup=False)
        return
    merged = folder / "comparison"
    merged.mkdir(exist_ok=True)
    lines = [row | {"strategy": arm, "seed": seed} for (arm, seed), rows in logs.items() for row in map(dict, rows)]
    write_text(merged / METRICS_FILE, "".join(json.dumps(line) + "\n" for line in lines))
    path = write_report([merged], folder / "report.html", sections=[section])
    console.print(f"comparison: {folder / 'comparison.json'}, report: {path}", highlight=False, markup=False)
