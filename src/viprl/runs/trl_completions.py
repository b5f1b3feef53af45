"""Reads the completions that TRL writes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from viprl.errors import DataError, FileError
from viprl.metrics import ROLLOUTS_COLUMN, WAVE_COLUMN
from viprl.outcomes import Success
from viprl.runs.evaluations import recorded_evaluations, without_evaluations
from viprl.runs.files import by_step
from viprl.runs.logged_rollouts import (
    LoggedRollout,
    LoggedRun,
    LoggedStep,
    StepReader,
    characters,
    deciding_reward,
    warn_of_second_waves,
)
from viprl.runs.parquet import parquet_rows
from viprl.utils.missing import is_missing

logger = logging.getLogger(__name__)

_OTHER_COLUMNS = ("step", "prompt", "completion", "advantage", ROLLOUTS_COLUMN, WAVE_COLUMN)
"""Columns of the completions that are not rewards."""


def trl_files(folder: Path) -> list[tuple[int, Path]]:
    """Step and path of the files completions_STEP.parquet by step, in the folder or in its folder completions."""
    pattern = r"completions_(\d+)\.parquet"
    return by_step(folder, pattern) or by_step(folder / "completions", pattern)


def read_trl(folder: Path, *, reward: str | None = None, success: Success = None) -> LoggedRun:
    """See `viprl.runs.engine_logs.from_trl`."""
    files = trl_files(folder)
    if not files:
        raise FileError(f"{folder} has no completions_STEP.parquet; set log_completions=True in TRL")
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(files)]
    if gaps and (every := median(gaps)) > 1:
        logger.warning(
            "%s: logged every %g steps, so the visits between are missing; set logging_steps=1", folder, every
        )
    column, rule = deciding_reward(reward, success)
    read = StepReader(str(folder), rule)
    marked: list[LoggedStep] = []  # training is told by the column of rollouts
    unmarked: list[LoggedStep] = []
    evaluated = two_waves = 0
    before: list[tuple[Any, ...]] = []
    for step, file in files:
        table = list(parquet_rows(file))
        if not table:
            continue
        chosen = _reward_column(file, table[0][1], column)
        rows = [(row["prompt"], row.get("completion"), str(row[chosen])) for _, row in table]  # NaN is equal to "nan"
        if rows == before:  # logged again: the batch serves several optimiser steps
            continue
        before, own = rows, ROLLOUTS_COLUMN in table[0][1]
        training = [(at, row) for at, row in table if not own or not is_missing(row[ROLLOUTS_COLUMN])]
        evaluated += len(table) - len(training)
        two_waves += sum(row.get(WAVE_COLUMN) == 2 for _, row in training)
        rollouts = [_rollout(f"{file}, row {at}", row, chosen) for at, row in training]
        if rollouts:
            (marked if own else unmarked).append(read(step, rollouts))
    warn_of_second_waves(folder, two_waves)
    if evaluated:
        logger.warning("%s: left out %d rollouts of evaluations", folder, evaluated)
    if unmarked:
        unmarked = list(without_evaluations(unmarked, recorded_evaluations(folder), str(folder)))
    if not marked and not unmarked:
        raise DataError(f"{folder} has no rollouts of a training, only those of evaluations or none")
    return read.run(sorted(marked + unmarked))


def _rollout(where: str, row: Mapping[str, Any], reward: str) -> LoggedRollout:
    """The rollout in a row; its length is that of the completion in characters."""
    return LoggedRollout.read(where, row["prompt"], row[reward], None, characters(row.get("completion")))


def _reward_column(file: Path, row: dict[str, Any], column: str | None) -> str:
    """The name of the reward: `column`, or the only one."""
    if "prompt" not in row:
        raise DataError(f"{file} has no column 'prompt'; its columns are {', '.join(row)}")
    columns = [name for name in row if name not in _OTHER_COLUMNS]
    if column is None and len(columns) == 1:
        return columns[0]
    if column is None or column not in row:
        given = f"has no column {column!r}" if column else f"has {len(columns)} columns that can be the reward"
        given += ", and not their weights in the total" if column is None and len(columns) > 1 else ""
        raise DataError(
            f"{file} {given}; choose one of {', '.join(columns) or '(none)'} with --reward NAME, in Python reward=NAME"
        )
    return column
