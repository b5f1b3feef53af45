"""Logged outcomes of a training run, prompt by prompt: what `viprl replay` reads.

The format is JSON lines (.jsonl, .jsonl.gz) or parquet, one prompt a row:

    id         text or whole number, one of a kind; without it the prompt's content is its identity
    prompt     text or chat messages
    rollouts   scorable rollouts of each visit: one whole number, or a list with one for each visit
    successes  list of whole numbers: how many of them succeeded at each visit, in training order

The quickstart and `viprl train` write it. `from_verl` and `from_trl` make the same from other trainers' logs, and
`read_history` calls them for a folder that holds such logs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from viprl.errors import MissingPackageError
from viprl.prompts import Prompt, identity
from viprl.utils.arrays import FloatArray
from viprl.utils.json_lines import log_rows, read_json_lines, write_json_lines

HISTORY_FILE = "history.jsonl.gz"
OLD_HISTORY_FILE = "trajectories.jsonl.gz"
"""The name in runs of earlier versions, still read."""


@dataclass(frozen=True, eq=False)
class PromptHistory:
    """One prompt over training."""

    id: str
    prompt: Prompt
    rollouts: FloatArray
    """[T] scorable rollouts of each visit, at least 1."""
    successes: FloatArray
    """[T] how many of them succeeded."""
    ground_truth: str | None = None
    """The reference answer, if the log has one. Equal texts with different answers are different prompts."""


def read_history_file(path: Path) -> list[PromptHistory]:
    """Histories from a file in the format above. Raises ValueError that names file and row (counted from 1)."""
    rows = parquet_rows(path) if path.suffix == ".parquet" else read_json_lines(path)
    found: dict[str, tuple[int, PromptHistory]] = {}
    for number, row in rows:
        trajectory = _trajectory(row, f"{path}, row {number}")
        if trajectory.id in found:
            raise ValueError(
                f"{path}, row {number} repeats the id {trajectory.id!r} of row {found[trajectory.id][0]}; "
                "put all visits of a prompt into one row"
            )
        found[trajectory.id] = number, trajectory
    if not found:
        raise ValueError(f"{path} holds no rows")
    return [trajectory for _, trajectory in found.values()]


def visits(
    trajectories: Sequence[PromptHistory], size: int = 512
) -> Iterator[tuple[list[PromptHistory], FloatArray, FloatArray]]:
    """The outcomes in training order, first all first visits, in batches: trajectories, successes and rollouts [Q]."""
    for visit in range(max(len(trajectory.rollouts) for trajectory in trajectories)):
        there = [trajectory for trajectory in trajectories if len(trajectory.rollouts) > visit]
        for start in range(0, len(there), size):
            batch = there[start : start + size]
            yield batch, np.array([t.successes[visit] for t in batch]), np.array([t.rollouts[visit] for t in batch])


def save_history(path: str | Path, histories: Iterable[PromptHistory]) -> None:
    """Write a history file, compressed if the name ends in .gz."""
    write_json_lines(
        path,
        (
            {
                "id": h.id,
                "prompt": h.prompt,
                "rollouts": [int(n) for n in h.rollouts],
                "successes": [int(k) for k in h.successes],
            }
            for h in histories
        ),
    )


def history_rows(outcomes: Sequence[str | Path], prompts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of a history file from outcome logs (`viprl.runs.run_log`); visits without a scorable rollout are left out.

    `prompts` maps identities to texts or chats.
    """
    visits: dict[str, tuple[list[int], list[int]]] = {}
    for source in outcomes:
        for row in log_rows(source):
            for key, successes, scorable in zip(row["ids"], row["successes"], row["scorable"], strict=True):
                if scorable > 0:
                    rollouts, right = visits.setdefault(key, ([], []))
                    rollouts.append(scorable)
                    right.append(successes)
    return [
        {"id": key.removeprefix("id:"), "prompt": prompts.get(key, ""), "rollouts": rollouts, "successes": right}
        for key, (rollouts, right) in visits.items()
    ]


def _trajectory(row: Mapping[str, Any], where: str) -> PromptHistory:
    for field in ("prompt", "rollouts", "successes"):
        if row.get(field) is None:
            raise ValueError(f"{where} has the fields {', '.join(row)}; it needs `prompt`, `rollouts` and `successes`")
    try:
        key = identity({"prompt": row["prompt"], "id": row.get("id")})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error
    if not isinstance(row["successes"], list) or not row["successes"]:
        raise ValueError(f"{where}: successes is {row['successes']!r}; expected a list with a number for each visit")
    successes = _whole(row["successes"], 0, f"{where}: successes")
    each = isinstance(row["rollouts"], list)
    rollouts = _whole(row["rollouts"] if each else [row["rollouts"]], 1, f"{where}: rollouts")
    if each and len(rollouts) != len(successes):
        raise ValueError(f"{where}: {len(rollouts)} rollouts for {len(successes)} successes; expected one each a visit")
    rollouts = np.broadcast_to(rollouts, successes.shape)
    if (successes > rollouts).any():
        visit = int(np.argmax(successes > rollouts))
        raise ValueError(
            f"{where}: {successes[visit]:g} successes of {rollouts[visit]:g} rollouts at visit {visit + 1}"
        )
    return PromptHistory(key.removeprefix("id:"), row["prompt"], rollouts, successes)


def _whole(values: Sequence[Any], least: int, what: str) -> FloatArray:
    for visit, value in enumerate(values, start=1):
        whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
        if not whole or value < least:
            raise ValueError(f"{what} holds {value!r} (number {visit}); expected whole numbers of at least {least}")
    return np.array(values, dtype=float)


def ground_truth_text(value: Any) -> str | None:
    """A reference answer as text: text stays as it is, numbers and structures become JSON, None stays None."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingPackageError(f'reading {path.name} needs pyarrow: pip install "viprl[trl]"') from error
    return enumerate(parquet.read_table(path).to_pylist(), start=1)
