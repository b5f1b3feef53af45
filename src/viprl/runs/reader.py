"""Reads run folders.

A run may have been killed at any time. So everything that is missing or cannot be read is left out and noted in
`Run.notes`. Only a folder without usable content is an error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from viprl.errors import DataError, FileError, InputError
from viprl.metrics import PREFIX, shadow_strategy
from viprl.prompts import text
from viprl.runs.files import METRICS_FILE, SUMMARY_FILE
from viprl.runs.history import PromptHistory, history_file, history_of_row
from viprl.utils.arrays import FloatArray
from viprl.utils.json_lines import read_json_lines
from viprl.utils.numerics import number

Content = TypeVar("Content")

_EXPECTED = (
    f"expected a run folder of `viprl quickstart` or `viprl train`, with {METRICS_FILE} (JSON lines with strategy, "
    "seed and step)"
)


@dataclass(frozen=True)
class PromptTotal:
    """What one prompt received over a run."""

    text: str
    visits: int
    rollouts: int
    successes: int


@dataclass(frozen=True)
class Run:
    """The content of one run folder, which may have several strategies and seeds."""

    name: str
    path: Path
    rows: tuple[Mapping[str, Any], ...]
    """The rows of metrics.jsonl; each has a step."""
    summary: Mapping[str, Any]
    """The content of summary.json; empty if there is none."""
    history: tuple[PromptHistory, ...]
    """The history of each prompt; empty if there is none."""
    notes: tuple[str, ...]
    """What could not be read, as sentences for the report."""

    @property
    def strategies(self) -> tuple[str, ...]:
        """The strategies that trained, in the order of their first row."""
        return tuple(dict.fromkeys(strategy_of(row) for row in self.rows))

    def rows_of(self, strategy: str) -> list[Mapping[str, Any]]:
        """The rows of one strategy."""
        return [row for row in self.rows if strategy_of(row) == strategy]

    def shadows(self, strategy: str) -> tuple[str, ...]:
        """The shadow strategies of `strategy`."""
        keys = dict.fromkeys(key.removeprefix(PREFIX) for row in self.rows_of(strategy) for key in row)
        return tuple(name for name in map(shadow_strategy, keys) if name is not None)

    def calibration(self) -> dict[str, FloatArray] | None:
        """`predicted`, `true`, `count` and `visits` of the prompts measured in summary.json, shape [P] each."""
        entries = self.summary.get("calibration")
        points = [point for point in entries if isinstance(point, Mapping)] if isinstance(entries, list) else []
        keys = ("predicted", "true", "count", "visits")
        table = np.array([[number(point.get(key)) for key in keys] for point in points]).reshape(-1, 4)
        table = table[np.isfinite(table[:, :2]).all(axis=1)]
        return dict(zip(keys, table.T, strict=True)) if len(table) else None

    def prompts(self) -> list[PromptTotal]:
        """The totals of each prompt, most rollouts first."""
        totals = [
            PromptTotal(text(h.prompt) or h.id, len(h.rollouts), int(h.rollouts.sum()), int(h.successes.sum()))
            for h in self.history
        ]
        return sorted(totals, key=lambda total: -total.rollouts)


def strategy_of(row: Mapping[str, Any]) -> str:
    """The strategy that trained the step of this row."""
    return str(row.get("strategy") or "unnamed")


def load_run(path: Path | str) -> Run:
    """Read a run folder.

    Raises InputError for a path that is not a folder, FileError if the folder or its metrics.jsonl is missing, and
    DataError if it has neither a complete row nor a summary.
    """
    folder = Path(path)
    if folder.is_file():
        raise InputError(f"{folder} is a file; {_EXPECTED}")
    if not folder.is_dir():
        raise FileError(f"{folder} not found; {_EXPECTED}")
    if not (folder / METRICS_FILE).is_file():
        raise FileError(f"{folder} has no {METRICS_FILE}; {_EXPECTED}")
    notes: list[str] = []
    rows = _usable_rows(folder / METRICS_FILE, _with_step, notes)
    summary = _read_summary(folder / SUMMARY_FILE, notes)
    file = history_file(folder)
    history = [] if file is None else _usable_rows(file, lambda row: history_of_row(row, ""), notes)
    if not rows and not summary:
        raise DataError(
            f"{folder / METRICS_FILE} has no complete row with a step, and there is no {SUMMARY_FILE}; wait until the "
            "run has logged a step, or start it again"
        )
    return Run(folder.resolve().name, folder, tuple(rows), summary, tuple(history), tuple(notes))


def load_runs(paths: Sequence[Path | str]) -> list[Run]:
    """Read several run folders. Folders with the same name are named PARENT/NAME."""
    runs = [load_run(path) for path in paths]
    names = [run.name for run in runs]
    return [
        run if names.count(run.name) == 1 else replace(run, name="/".join(run.path.resolve().parts[-2:]))
        for run in runs
    ]


def _usable_rows(path: Path, parse: Callable[[Mapping[str, Any]], Content], notes: list[str]) -> list[Content]:
    """What `parse` makes of each row. Rows that cannot be read or raise DataError are left out and noted."""
    found, bad = [], []
    for row_number, row in read_json_lines(path, bad=lambda at, why: bad.append(f"row {at} {why}")):
        try:
            found.append(parse(row))
        except DataError as error:
            bad.append(f"row {row_number}{error}")
    if bad:
        more = f", like {len(bad) - 1} more" if len(bad) > 1 else ""
        notes.append(f"{path.name}: {bad[0]}; left out{more}.")
    return found


def _with_step(row: Mapping[str, Any]) -> Mapping[str, Any]:
    if not math.isfinite(number(row.get("step"))):
        raise DataError(" has no step")
    return row


def _read_summary(path: Path, notes: list[str]) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        notes.append(f"{path.name} is not a JSON object. Nothing in this report is based on it.")
        return {}
    return value
