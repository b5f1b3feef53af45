"""Reads run folders, and what TRL, verl and tinker-cookbook log.

A run may have been killed at any time. So everything that is missing or cannot be read is left out and noted in
`Run.notes`. Only a folder without usable content is an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from viprl.errors import DataError, FileError, InputError, ViprlError
from viprl.metrics import PREFIX, REWARD, shadow_strategy
from viprl.prompts import text
from viprl.reward_groups import RewardGroups
from viprl.runs.files import CHECKPOINT, METRICS_FILE, OUTCOMES_FILE, REPORT_FILE, SUMMARY_FILE, TRAINER_STATE_FILE
from viprl.runs.history import PromptHistory, all_of_one_kind, history_file, history_of_row
from viprl.runs.logged_rows import Row, has_step, is_verl_log, name_by_counts, of_vip, with_our_names
from viprl.runs.run_folder import read_run_folder, run_settings
from viprl.runs.trainer_state import TrainerState, trainer_state
from viprl.runs.trl_completions import read_trl, trl_files
from viprl.runs.verl_dumps import verl_files
from viprl.utils.arrays import FloatArray
from viprl.utils.json_files import read_json_object
from viprl.utils.json_lines import read_json_lines
from viprl.utils.numerics import number

Content = TypeVar("Content")

_EXPECTED = (
    f"expected a run folder of `viprl quickstart` or `viprl train` or a log_path of tinker-cookbook, with "
    f"{METRICS_FILE}, an output folder of TRL, with {TRAINER_STATE_FILE} in it or in a checkpoint, or the file of "
    "verl's logger `file`"
)


@dataclass(frozen=True)
class PromptTotal:
    """What one prompt received over a run."""

    text: str
    visits: int
    rollouts: int
    successes: int | None
    """None where success is undefined."""
    reward_mean: float
    """Of rewards that are 0/1 or -1/+1 the success rate."""
    reward_variance: float
    """Mean of the sample variance over the visits, weighted by rollouts - 1; NaN if no visit has two."""

    @classmethod
    def of(cls, history: PromptHistory) -> PromptTotal:
        n, k = history.rollouts, history.successes
        total, squares = k, k * (n - k) / n
        if history.rewards is not None:
            groups = RewardGroups.of_rewards(history.rewards)
            total, squares = groups.sum(groups.reward), groups.sum(groups.squares)
        freedom = float((n - 1).sum())
        return cls(
            text(history.prompt) or history.id,
            len(n),
            int(n.sum()),
            None if np.isnan(k).any() else int(k.sum()),
            float(total.sum() / n.sum()),
            float(squares.sum()) / freedom if freedom else math.nan,
        )


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
    """What could not be read or is not in the log, as sentences for the report."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The settings of the run by name; empty if they are not in the folder."""

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

    @property
    def logging_steps(self) -> int:
        """Training steps of a row: the usual distance between rows. Larger than 1: values are means over steps."""
        trained = [row for row in self.rows if REWARD in row or any(key.startswith(PREFIX) for key in row)]
        steps = np.unique([number(row["step"]) for row in trained])
        return max(1, round(float(np.median(np.diff(steps))))) if steps.size > 1 else 1

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
        return sorted(map(PromptTotal.of, self.history), key=lambda total: -total.rollouts)

    @property
    def rewarded(self) -> bool:
        """Whether the history has rewards that are not 0/1 or -1/+1."""
        return any(history.rewards is not None for history in self.history)


def strategy_of(row: Mapping[str, Any]) -> str:
    """The strategy that trained the step of this row."""
    return str(row.get("strategy") or "unnamed")


def load_run(path: Path | str, *, prompts: bool = True) -> Run:
    """Read a run folder, an output folder of TRL, a log_path of tinker-cookbook or the file of verl's logger `file`.

    Args:
        path: the folder or file.
        prompts: whether the history of the prompts is read, too.

    Raises InputError for another file, FileError if the folder or its metrics are missing, and DataError if it has
    neither a complete row nor a summary.
    """
    folder = Path(path)
    if is_verl_log(folder):
        return _run_of_verl(folder)
    if folder.is_file():
        hint = f"give its folder, {folder.parent}" if _has_metrics(folder.parent) else _EXPECTED
        raise InputError(f"{folder} is a file; {hint}")
    if not folder.is_dir():
        raise FileError(f"{folder} not found; {_EXPECTED}")
    if not (folder / METRICS_FILE).is_file():
        if (state := trainer_state(folder)) is not None:
            return _run_of_trl(folder, state, prompts)
        hint = _instead_of(folder)
        if trl_files(folder) or verl_files(folder):
            hint += f"; `viprl replay {folder}` reads the rollouts in it"
        raise FileError(f"{folder} has no {METRICS_FILE}; {hint}")
    notes: list[str] = []
    rows = _usable_rows(folder / METRICS_FILE, _with_step, notes)
    summary = _read_summary(folder / SUMMARY_FILE, notes)
    file = history_file(folder)
    if not prompts:
        history: list[PromptHistory] = []
    elif file is not None:
        found = _usable_rows(file, lambda row: history_of_row(row, ""), notes)
        history = _optional(lambda: all_of_one_kind(found), file, notes)
    else:
        history = _optional(lambda: read_run_folder(folder).histories, folder / OUTCOMES_FILE, notes)
    if not rows and not summary:
        raise DataError(
            f"{folder / METRICS_FILE} has no complete row with a step, and there is no {SUMMARY_FILE}; wait until the "
            "run has logged a step, or start it again"
        )
    named = with_strategy(rows, METRICS_FILE, notes)
    settings = run_settings(folder)
    return Run(folder.resolve().name, folder, tuple(named), summary, tuple(history), tuple(notes), settings)


def load_runs(paths: Sequence[Path | str]) -> list[Run]:
    """Read several run folders. Folders with the same name are named PARENT/NAME."""
    runs = [load_run(path) for path in paths]
    names = [run.name for run in runs]
    return [
        run if names.count(run.name) == 1 else replace(run, name="/".join(run.path.resolve().parts[-2:]))
        for run in runs
    ]


def _instead_of(folder: Path) -> str:
    """What to give in the place of a folder without metrics: the report of a sweep, or the runs in it."""
    if (folder / REPORT_FILE).is_file():
        return f"its report is {folder / REPORT_FILE}"
    if logs := [file for file in sorted(folder.glob("*.jsonl")) if is_verl_log(file)]:
        return f"found logs of verl in it: give one of them, such as {logs[0]}"
    places = sorted([*folder.glob("*"), *folder.glob("*/*")])
    inside = [place for place in places if place.is_dir() and not re.fullmatch(CHECKPOINT, place.name)]
    inside = [place for place in inside if _has_metrics(place)]
    return f"found runs in it: give {', '.join(map(str, inside[:5]))}" if inside else _EXPECTED


def _has_metrics(folder: Path) -> bool:
    return (folder / METRICS_FILE).is_file() or trainer_state(folder) is not None


def _run_of_trl(folder: Path, state: TrainerState, prompts: bool) -> Run:
    """What a trainer of TRL logged. Its state names no strategy."""
    notes = [f"The metrics are those of {state.file.relative_to(folder)}, up to step {state.step}."]
    rows = [row for row in state.rows if has_step(row)]
    named = with_strategy(rows, TRAINER_STATE_FILE, notes)
    if not of_vip(rows):
        named = [{"strategy": "uniform", **row} for row in rows]
        notes.append(
            "The run has no metrics of viprl, so it is called uniform: TRL gives every prompt the same number of "
            "rollouts. Gradient variance and predictions are missing."
        )
    if not rows:
        raise DataError(f"{state.file} has no row with a step; set logging_steps, and logging_strategy='steps'")
    if not prompts:
        history = []
    elif trl_files(folder):
        history = _optional(lambda: read_trl(folder).histories, folder / "completions", notes)
    else:
        history = []
        notes.append(
            "Rollouts by prompt are missing: log_completions=True and logging_steps=1 write them, and `viprl replay` "
            "reads them."
        )
    settings = {} if state.max_steps is None else {"max_steps": state.max_steps}
    return Run(folder.resolve().name, folder, tuple(named), {}, tuple(history), tuple(notes), settings)


def _run_of_verl(file: Path) -> Run:
    """What verl's logger `file` wrote. The rollouts are in another folder, if they were written."""
    notes = ["Rollouts by prompt are missing: `viprl replay` reads them in trainer.rollout_data_dir."]
    rows = with_strategy(_usable_rows(file, _with_step, notes), file.name, notes)
    if not rows:
        raise DataError(f"{file} has no row with a step; wait until the run has logged a step")
    return Run(file.stem, file, tuple(rows), {}, (), tuple(notes))


def with_strategy(rows: Sequence[Row], log: str, notes: list[str]) -> Sequence[Row]:
    """The rows of a log of VIP with the name of a strategy, and a note if the log does not name it."""
    if any("strategy" in row for row in rows) or not of_vip(rows):
        return rows
    name = name_by_counts(rows)
    notes.append(
        f"{log} does not name the strategy; it is called {name} after its rollouts. `viprl train` logs the name."
    )
    return [{"strategy": name, **row} for row in rows]


def _optional(read: Callable[[], list[PromptHistory]], path: Path, notes: list[str]) -> list[PromptHistory]:
    """What `read` finds in a file or folder; if that cannot be read, nothing and a note."""
    if not path.exists():
        return []
    try:
        return read()
    except ViprlError as error:
        notes.append(f"Rollouts by prompt are missing: {error}.")
        return []


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
    if not has_step(row):
        raise DataError(" has no step")
    return with_our_names(row)


def _read_summary(path: Path, notes: list[str]) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return read_json_object(path)
    except DataError as error:
        notes.append(f"{error}. Nothing in this report is based on it.")
        return {}
