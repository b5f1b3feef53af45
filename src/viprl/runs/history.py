"""The history of prompts over a training run: the input of `viprl replay` and of a warm start.

A history file has one row for each prompt. It is JSON lines (.jsonl, .jsonl.gz) or parquet:

    id            optional: text or whole number, unique. Default: derived from prompt and ground truth
    prompt        text or chat messages
    ground_truth  optional: the reference answer as text
    rollouts      scorable rollouts of each visit: one whole number for all visits, or a list with one for each
    successes     list of whole numbers, in training order: how many rollouts of each visit succeeded

Example of a row:
    {"id": "7", "prompt": "What is 2 + 2?", "rollouts": 8, "successes": [3, 5, 8]}

The quickstart and `viprl train` write such a file. `viprl.runs.engine_logs` reads the logs of verl and TRL in the same
form.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from viprl.errors import DataError
from viprl.prompts import Prompt, identity
from viprl.runs.files import HISTORY_FILE, OLD_HISTORY_FILE
from viprl.runs.parquet import parquet_rows
from viprl.utils.arrays import FloatArray
from viprl.utils.json_lines import read_json_lines, write_json_lines
from viprl.utils.missing import is_missing, names_missing
from viprl.utils.words import first_line

MOST_ROLLOUTS = 10**9
"""Rollouts of a visit beyond this are taken for an error."""
_OUTCOMES = ("ids", "successes", "scorable")
"""Lists in a row of an outcome log that `history_of_outcomes` reads."""


@dataclass(frozen=True, eq=False)
class PromptHistory:
    """The outcomes of one prompt over a training run."""

    id: str
    prompt: Prompt
    """Text or chat messages; empty if the log has none."""
    rollouts: FloatArray
    """[T] scorable rollouts of each visit, at least 1."""
    successes: FloatArray
    """[T] how many of them succeeded."""
    ground_truth: str | None = None
    """The reference answer, if the log has one. Equal texts with different answers are different prompts."""


def history_id(prompt: Prompt, ground_truth: str | None = None) -> str:
    """The id of a prompt that has none of its own: derived from its content and its ground truth, if there is one."""
    key = identity(prompt).removeprefix("id:")
    return key if ground_truth is None else f"{key}:{hashlib.sha256(ground_truth.encode()).hexdigest()[:16]}"


def history_file(folder: Path) -> Path | None:
    """The history file of a run folder, also under the name of earlier versions; None if there is none."""
    return next((folder / name for name in (HISTORY_FILE, OLD_HISTORY_FILE) if (folder / name).is_file()), None)


def read_history_file(path: Path) -> list[PromptHistory]:
    """Read a history file.

    Raises DataError for a row that cannot be used (named by file and row, counted from 1), repeated ids and empty
    files; FileNotFoundError; MissingPackageError for parquet without pyarrow.
    """
    rows = parquet_rows(path) if path.suffix == ".parquet" else read_json_lines(path)
    found: dict[str, tuple[int, PromptHistory]] = {}
    for number, row in rows:
        history = history_of_row(row, f"{path}, row {number}")
        if history.id in found:
            raise DataError(
                f"{path}, row {number} repeats the id {history.id!r} of row {found[history.id][0]}; "
                "put all visits of a prompt into one row"
            )
        found[history.id] = number, history
    if not found:
        raise DataError(f"{path} has no rows; expected one row for each prompt")
    return [history for _, history in found.values()]


def history_of_row(row: Mapping[str, Any], where: str) -> PromptHistory:
    """The history in a row of a history file. Raises DataError, which begins with `where`."""
    for field in ("prompt", "rollouts", "successes"):
        if absent(row.get(field)):
            raise DataError(f"{where} has no {field!r}; expected prompt, rollouts and successes, got {', '.join(row)}")
    truth = ground_truth_text(row.get("ground_truth"))
    given = None if absent(row.get("id")) else row["id"]
    if isinstance(given, float) and given.is_integer():  # pandas, if other rows have no id
        given = int(given)
    try:
        key = identity({"prompt": row["prompt"], "id": given}).removeprefix("id:")
        key = history_id(row["prompt"], truth) if given is None else key
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{where}: {first_line(error)}") from error
    if not isinstance(row["successes"], list) or not row["successes"]:
        raise DataError(f"{where}: successes is {row['successes']!r}; expected a list with one number for each visit")
    successes = _whole_numbers(row["successes"], 0, f"{where}: successes")
    per_visit = isinstance(row["rollouts"], list)
    rollouts = _whole_numbers(row["rollouts"] if per_visit else [row["rollouts"]], 1, f"{where}: rollouts")
    if per_visit and len(rollouts) != len(successes):
        raise DataError(
            f"{where}: rollouts has {len(rollouts)} numbers and successes has {len(successes)}; expected one of each "
            "for each visit"
        )
    rollouts = np.broadcast_to(rollouts, successes.shape)
    if (successes > rollouts).any():
        visit = int(np.argmax(successes > rollouts))
        raise DataError(
            f"{where}: {successes[visit]:g} successes of {rollouts[visit]:g} rollouts at visit {visit + 1}; successes "
            "cannot exceed rollouts"
        )
    return PromptHistory(key, row["prompt"], rollouts, successes, truth)


def save_history(path: str | Path, histories: Iterable[PromptHistory]) -> None:
    """Write a history file as JSON lines, compressed if the name ends in .gz."""
    write_json_lines(path, map(_row, histories))


def history_of_outcomes(outcomes: Iterable[str | Path], prompts: Mapping[str, Prompt]) -> list[PromptHistory]:
    """The history in the outcome logs of one or more runs (`viprl.runs.run_log`).

    Visits without a scorable rollout are left out.

    Args:
        outcomes: the log files, in training order.
        prompts: text or chat by identity; a prompt that is missing gets an empty text.
    """
    visited: dict[str, list[tuple[int, int]]] = {}
    for log in outcomes:
        for number, row in read_json_lines(log, bad=lambda *_: None):  # a killed run cuts lines short
            try:
                pairs = [(key, int(n), int(k)) for key, k, n in zip(*(row[name] for name in _OUTCOMES), strict=True)]
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(
                    f"{log}, row {number} has no equally long lists {', '.join(_OUTCOMES)}; fix or delete the row"
                ) from error
            for key, scorable, successes in pairs:
                if scorable > 0:
                    visited.setdefault(str(key), []).append((scorable, successes))
    return [
        PromptHistory(key.removeprefix("id:"), prompts.get(key, ""), *counts_of(pairs))
        for key, pairs in visited.items()
    ]


def counts_of(pairs: Sequence[tuple[float, float]]) -> tuple[FloatArray, FloatArray]:
    """Rollouts [T] and successes [T] from the pairs of T visits."""
    rollouts, successes = np.array(pairs, dtype=float).T
    return rollouts, successes


def visits(
    histories: Sequence[PromptHistory], size: int = 512
) -> Iterator[tuple[list[PromptHistory], FloatArray, FloatArray]]:
    """The visits in training order: the first visits of all prompts, then the second ones, and so on.

    Yields: batches of at most `size` histories, with the successes [Q] and the rollouts [Q] of that visit.
    """
    for visit in range(max(len(history.rollouts) for history in histories)):
        visited = [history for history in histories if len(history.rollouts) > visit]
        for start in range(0, len(visited), size):
            batch = visited[start : start + size]
            yield batch, np.array([h.successes[visit] for h in batch]), np.array([h.rollouts[visit] for h in batch])


def ground_truth_text(value: Any) -> str | None:
    """A reference answer as text: text stays as it is, numbers and structures become JSON, missing values None."""
    if is_missing(value):
        return None
    if isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def absent(value: Any) -> bool:
    """Whether a value is missing, or a text that names a missing value."""
    return names_missing(value) if isinstance(value, str) else is_missing(value)


def _row(history: PromptHistory) -> dict[str, Any]:
    truth = {} if history.ground_truth is None else {"ground_truth": history.ground_truth}
    counts = {"rollouts": history.rollouts.astype(int).tolist(), "successes": history.successes.astype(int).tolist()}
    return {"id": history.id, "prompt": history.prompt, **truth, **counts}


def _whole_numbers(values: Sequence[Any], least: int, what: str) -> FloatArray:
    for visit, value in enumerate(values, start=1):
        whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
        if not whole or not least <= value <= MOST_ROLLOUTS:
            given = "a huge number" if isinstance(value, int) and abs(value) > MOST_ROLLOUTS else repr(value)
            raise DataError(
                f"{what} has {given} at position {visit}; expected whole numbers of at least {least} and at most "
                f"{MOST_ROLLOUTS}"
            )
    return np.array(values, dtype=float)
