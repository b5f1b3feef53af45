"""The results for people: the table of problems as JSON lines and parquet, and the numbers in the terminal."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
from rich.table import Table

from viprl.evaluate.grading import Scores
from viprl.utils.files import write_text

SHOWN = 8  # problems that a remark names


def write_tables(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """problems.jsonl and problems.parquet, a row a problem."""
    write_text(folder / "problems.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    clean = [{key: _storable(value) for key, value in row.items()} for row in rows]
    part = folder / f".problems.parquet.{os.getpid()}"
    pyarrow.parquet.write_table(pa.Table.from_pylist(clean), part)
    part.replace(folder / "problems.parquet")


def terminal_table(result: Scores) -> Table:
    """Metrics by k in per cent, with their intervals."""
    table = Table("k", *(name for name in result.metrics), title=None)
    for k in result.ks:
        cells = [by_k[k] for by_k in result.metrics.values()]
        table.add_row(str(k), *(f"{100 * e.value:.2f}  [{100 * e.low:.2f}, {100 * e.high:.2f}]" for e in cells))
    return table


def remarks(result: Scores) -> list[str]:
    """What the reader of the numbers should know."""
    completions = result.n * len(result.problems)
    unreadable, truncated = (sum(row[key] for row in result.problems) for key in ("unreadable", "truncated"))
    lines = [f"{len(result.problems)} problems, {result.n} completions each; in per cent, 95 % intervals over problems"]
    if result.unscorable:
        some = ", ".join(result.unscorable[:SHOWN]) + (", ..." if len(result.unscorable) > SHOWN else "")
        lines.append(f"{len(result.unscorable)} more are left out: the checker cannot use their answers ({some})")
    if unreadable:
        lines.append(f"{unreadable / completions:.1%} of the completions have no answer to read (wrong, and no vote)")
    if truncated:
        lines.append(f"{truncated / completions:.1%} reached --max-new-tokens")
    return lines


def _storable(value: Any) -> Any:
    """Models produce lone surrogates, which UTF-8 cannot hold."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value
