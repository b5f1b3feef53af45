"""The results of an evaluation: metrics as JSON, the table of problems as JSON lines and parquet, a terminal table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.table import Table

from viprl.analysis.statistics import Estimate
from viprl.evaluate.scores import Scores
from viprl.runs.parquet import write_table
from viprl.utils.files import make_folder, write_text
from viprl.utils.json_lines import write_json_lines

METRICS_FILE, PROBLEMS_FILE, PROBLEMS_TABLE = "metrics.json", "problems.jsonl", "problems.parquet"
SHOWN = 8  # ids that a remark lists


def write_results(result: Scores, settings: Mapping[str, Any], json_file: Path | None, out: Path | None) -> None:
    """Write the metrics.

    Args:
        result: the metrics.
        settings: added to the JSON document.
        json_file: file for the metrics.
        out: folder for metrics.json, problems.jsonl and problems.parquet (a row for each problem).
    """
    metrics = {
        name: {str(k): {"value": e.mean, "low": e.low, "high": e.high} for k, e in by_k.items()}
        for name, by_k in result.metrics.items()
    }
    document: dict[str, Any] = {
        **metrics, "problems": result.problems, "unscorable": result.unscorable,
        "settings": {"n": result.n, **settings},
    }  # fmt: skip
    text = json.dumps(document, indent=1, ensure_ascii=True, allow_nan=False) + "\n"
    for file in (json_file, None if out is None else out / METRICS_FILE):
        if file is not None:
            make_folder(file.parent)
            write_text(file, text)
    if out is not None:
        write_json_lines(out / PROBLEMS_FILE, result.problems)
        rows = [{key: _storable(value) for key, value in row.items()} for row in result.problems]
        write_table(out / PROBLEMS_TABLE, pa.Table.from_pylist(rows))


def terminal_table(result: Scores) -> Table:
    """The metrics by k in per cent, with their intervals."""
    table = Table("k", *result.metrics)
    for k in result.metrics["pass@k"]:
        table.add_row(str(k), *(_cell(by_k[k]) for by_k in result.metrics.values()))
    return table


def remarks(result: Scores) -> list[str]:
    """What the numbers are based on: problems, completions, and those without an answer."""
    completions, votes = result.n * len(result.problems), "maj@k" in result.metrics
    unreadable, truncated = (sum(row[key] for row in result.problems) for key in ("unreadable", "truncated"))
    lines = [f"{len(result.problems)} problems, {result.n} completions each; per cent, 95 % intervals over problems"]
    if result.unscorable:
        some = ", ".join(result.unscorable[:SHOWN]) + (", ..." if len(result.unscorable) > SHOWN else "")
        why = "their answer cannot be parsed" if votes else "none of their completions could be scored"
        lines.append(f"{len(result.unscorable)} problems left out, because {why}: {some}")
    if unreadable:
        what = "have no answer (wrong, and no vote)" if votes else "could not be scored (wrong)"
        lines.append(f"{unreadable / completions:.1%} of the completions {what}")
    if truncated:
        lines.append(f"{truncated / completions:.1%} of the completions reached --max-new-tokens")
    return lines


def _cell(e: Estimate) -> str:
    interval = "" if e.low is None or e.high is None else f"  [{100 * e.low:.2f}, {100 * e.high:.2f}]"
    return f"{100 * e.mean:.2f}{interval}"


def _storable(value: Any) -> Any:
    """Replaces lone surrogates, which models produce and UTF-8 cannot express."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value
