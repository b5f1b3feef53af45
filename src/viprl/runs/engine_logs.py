"""Reads prompt histories: history files, run folders, and the logs of verl and TRL."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from viprl.errors import DataError, FileError
from viprl.metrics import ROLLOUTS_COLUMN
from viprl.outcomes import RewardReader, Success, tally
from viprl.prompts import Prompt
from viprl.runs.files import HISTORY_FILE
from viprl.runs.history import (
    PromptHistory,
    counts_of,
    ground_truth_text,
    history_file,
    history_id,
    parquet_rows,
    read_history_file,
)
from viprl.utils.json_lines import read_json_lines

_TRL_COLUMNS = ("step", "prompt", "completion", "advantage", ROLLOUTS_COLUMN)
"""Columns of TRL's completions that are not rewards."""
_VERL_UID = re.compile(r"(.+_\d+)_\d+", re.DOTALL)
"""SAMPLE_ROLLOUT_OUTPUT; the first two parts name a rollout."""
_VERL_PADDING = re.compile(r"pad[0-9a-f]{32}_\d+_\d+")
"""Rows that verl adds to make a batch divisible. They are in the dump too, with an empty input and score 0."""

_EXPECTED = (
    f"expected a file .jsonl, .jsonl.gz or .parquet, or a folder with {HISTORY_FILE} (a run of viprl), STEP.jsonl "
    "(trainer.rollout_data_dir of verl) or completions_STEP.parquet (log_completions of TRL)"
)


class LoggedRollout(NamedTuple):
    """One rollout in the log of a trainer."""

    prompt: Prompt
    reward: float | None
    ground_truth: str | None = None


def read_history(path: str | Path, *, reward: str | None = None, success: Success = None) -> list[PromptHistory]:
    """Read the history of the prompts of a run.

    Args:
        path: a history file (`viprl.runs.history`), a run folder, or a folder with the logs of verl or TRL.
        reward: the reward field of such a log, see `from_verl` and `from_trl`.
        success: which rewards are a success, see `viprl.outcomes.Success`.

    Raises DataError for content that cannot be used (with file and row, counted from 1), FileError if there is no such
    file, MissingPackageError for parquet without pyarrow.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        if (file := history_file(path)) is not None:
            return read_history_file(file)
        if _verl_files(path):
            return from_verl(path, reward=reward or "score", success=success)
        if _trl_files(path):
            return from_trl(path, reward=reward, success=success)
        raise DataError(f"{path} has no history; {_EXPECTED}")
    if not path.is_file():
        raise FileError(f"{path} not found; {_EXPECTED}")
    if path.suffix not in (".jsonl", ".json", ".gz", ".parquet"):
        raise DataError(f"{path} has an unknown type; {_EXPECTED}")
    return read_history_file(path)


def from_verl(folder: str | Path, *, reward: str = "score", success: Success = None) -> list[PromptHistory]:
    """Read the rollouts that verl writes with `trainer.rollout_data_dir=FOLDER`.

    There is one file STEP.jsonl for each training step and one row for each rollout: `input` (the prompt as text,
    chat template included), `output`, `score` (the sum of the rewards), `step`, in most versions `gts` (the reference
    answer: text, JSON text or a number), and the further values that the reward function returned.

    A prompt is identified by `input` and `gts`; its rollouts within one step are one visit. If `uid` is
    SAMPLE_ROLLOUT_OUTPUT (agent loops with several outputs for a rollout), a rollout counts once, with its first input
    and its last score. Rows that verl added as padding do not count.

    Args:
        folder: the value of `trainer.rollout_data_dir`.
        reward: the field with the reward, such as `score` or `acc`.
        success: which rewards are a success, see `viprl.outcomes.Success`.

    Raises DataError for content that cannot be used, FileError if there is no STEP.jsonl.
    """
    files = _verl_files(Path(folder))
    if not files:
        raise FileError(f"{folder} has no STEP.jsonl, such as 1.jsonl; set trainer.rollout_data_dir in verl")
    return _histories((_verl_step(file, reward) for file in files), success, str(folder))


def from_trl(folder: str | Path, *, reward: str | None = None, success: Success = None) -> list[PromptHistory]:
    """Read the completions that TRL's trainers write with `log_completions=True`.

    There are files OUTPUT_DIR/completions/completions_STEP.parquet with one row for each completion: `step`, `prompt`
    (text or messages), `completion`, `advantage`, and one column for each reward function. A file has the last
    generation batch only, so every visit is in the log only with `logging_steps=1`. A batch that is logged repeatedly
    (several optimiser steps for one generation) counts once. The completions of a prompt in one file are one visit.

    Args:
        folder: OUTPUT_DIR or its folder completions.
        reward: the column with the reward; required if there are several.
        success: which rewards are a success, see `viprl.outcomes.Success`.

    Raises DataError for content that cannot be used, FileError if there is no such file, MissingPackageError without
    pyarrow.
    """
    files = _trl_files(Path(folder))
    if not files:
        raise FileError(f"{folder} has no completions_STEP.parquet; set log_completions=True in TRL")
    return _histories(_trl_steps(files, reward), success, str(folder))


def _histories(steps: Iterable[list[LoggedRollout]], success: Success, where: str) -> list[PromptHistory]:
    """Group the rollouts of each step by prompt. Rollouts without a readable reward do not count."""
    read = RewardReader(success)
    first: dict[str, LoggedRollout] = {}
    visits: dict[str, list[tuple[float, float]]] = {}
    last: float | None = None
    for step in steps:
        groups: dict[str, list[float | None]] = {}
        for rollout in step:
            key, last = history_id(rollout.prompt, rollout.ground_truth), rollout.reward
            first.setdefault(key, rollout)
            groups.setdefault(key, []).append(rollout.reward)
        successes, rollouts = tally([read(rewards) for rewards in groups.values()])
        for key, k, n in zip(groups, successes, rollouts, strict=True):
            if n > 0:
                visits.setdefault(key, []).append((n, k))
    if not visits:
        raise DataError(
            f"{where}: no reward could be read as success or failure (the last one is {last!r}); expected 0/1 or "
            "-1/+1; set success to a threshold for other rewards"
        )
    return [
        PromptHistory(key, first[key].prompt, *counts_of(pairs), first[key].ground_truth)
        for key, pairs in visits.items()
    ]


def _verl_step(file: Path, reward: str) -> list[LoggedRollout]:
    """The rollouts of one step. Outputs of one rollout are adjacent rows; the last one is its end."""
    rows = [(number, row) for number, row in read_json_lines(file) if not _VERL_PADDING.fullmatch(str(row.get("uid")))]
    for number, row in rows:
        missing = [field for field in ("input", reward) if field not in row]
        if missing:
            raise DataError(f"{file}, row {number} has no field {missing[0]!r}; its fields are {', '.join(row)}")
    rollouts = [LoggedRollout(row["input"], row[reward], ground_truth_text(row.get("gts"))) for _, row in rows]
    uids = [_VERL_UID.fullmatch(str(row.get("uid"))) for _, row in rows]
    if not all(uids) or len({uid.string for uid in uids if uid}) < len(rows):
        return rollouts  # no uids, or those of the data set: every row is a rollout
    joined: dict[str, LoggedRollout] = {}
    for uid, rollout in zip(uids, rollouts, strict=True):
        name = uid[1] if uid else ""
        joined[name] = joined.get(name, rollout)._replace(reward=rollout.reward)
    return list(joined.values())


def _trl_steps(files: Iterable[Path], reward: str | None) -> Iterator[list[LoggedRollout]]:
    before: list[tuple[Any, ...]] = []
    for file in files:
        table = [row for _, row in parquet_rows(file)]
        columns = [name for name in next(iter(table), {}) if name not in _TRL_COLUMNS]
        column = reward or (columns[0] if len(columns) == 1 else None)
        if not table:
            continue
        if "prompt" not in table[0]:
            raise DataError(f"{file} has no column 'prompt'; its columns are {', '.join(table[0])}")
        if column is None or column not in table[0]:
            given = f"has no column {reward!r}" if reward else "does not have exactly one reward column"
            raise DataError(f"{file} {given}; set reward to one of {', '.join(columns)}")
        rows = [(row["prompt"], row.get("completion"), row[column]) for row in table]
        if rows != before:
            yield [LoggedRollout(prompt, value) for prompt, _, value in rows]
        before = rows


def _verl_files(folder: Path) -> list[Path]:
    """The files STEP.jsonl by step."""
    return _by_step(folder, r"(\d+)\.jsonl")


def _trl_files(folder: Path) -> list[Path]:
    """The files completions_STEP.parquet by step, in the folder or in its folder completions."""
    pattern = r"completions_(\d+)\.parquet"
    return _by_step(folder, pattern) or _by_step(folder / "completions", pattern)


def _by_step(folder: Path, pattern: str) -> list[Path]:
    names = ((re.fullmatch(pattern, file.name), file) for file in folder.glob("*"))
    return [file for _, file in sorted((int(name[1]), file) for name, file in names if name)]
