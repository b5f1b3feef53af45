"""Reads the rollouts that verl writes."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from viprl.errors import DataError, FileError
from viprl.outcomes import Success
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
from viprl.utils.json_lines import read_json_lines
from viprl.utils.numerics import number
from viprl.utils.sequences import LARGEST

logger = logging.getLogger(__name__)

_UID = re.compile(r"(.+_\d+)_\d+", re.DOTALL)
"""SAMPLE_ROLLOUT_OUTPUT; the first two parts name a rollout."""
LENGTH_FIELD = "response_length"
"""Tokens of an output. verl does not write them by itself; a reward function may return them."""
_SECOND_WAVE = re.compile(r".+#2_\d+_\d+", re.DOTALL)
"""verl's names of the rollouts of a second wave (`viprl.engines.verl.rollouts.SECOND_WAVE`)."""
_PADDING = re.compile(r"pad[0-9a-f]{32}_\d+_\d+")
"""Rows that verl adds to make a batch divisible. They are in the dump too, with an empty input and score 0."""

Rows = list[tuple[int, dict[str, Any]]]
"""(row number, row) of one file."""


def verl_files(folder: Path) -> list[tuple[int, Path]]:
    """Step and path of the files STEP.jsonl, by step."""
    return by_step(folder, r"(\d+)\.jsonl")


def read_verl(folder: Path, *, reward: str | None = None, success: Success = None) -> LoggedRun:
    """See `viprl.runs.engine_logs.from_verl`."""
    files = verl_files(folder)
    if not files:
        raise FileError(f"{folder} has no STEP.jsonl, such as 1.jsonl; set trainer.rollout_data_dir in verl")
    column, rule = deciding_reward(reward, success)
    read = StepReader(str(folder), rule)
    training: list[LoggedStep] = []
    validation: list[LoggedStep] = []
    second_waves = 0
    for step, file in files:
        rows = [(at, row) for at, row in read_json_lines(file) if not _PADDING.fullmatch(str(row.get("uid")))]
        second_waves += sum(bool(_SECOND_WAVE.fullmatch(str(row.get("uid")))) for _, row in rows)
        outcomes = read(step, _rollouts(file, rows, column or "score"))
        (validation if step == 0 or _is_validation(rows) else training).append(outcomes)
    warn_of_second_waves(folder, second_waves)
    if validation and training:
        named = ", ".join(f"{step.step}.jsonl" for step in validation[:5])
        more = ", ..." if len(validation) > 5 else ""
        logger.warning("%s: left out %s%s, which verl's validation wrote", folder, named, more)
    elif validation:
        logger.warning(
            "%s looks like the rollouts of verl's validation (trainer.validation_data_dir); those of the training are "
            "in trainer.rollout_data_dir",
            folder,
        )
    return read.run(training or validation)


def _is_validation(rows: Rows) -> bool:
    """Validation adds the score once more, as `reward`; training does not."""
    return bool(rows) and all("reward" in row and row["reward"] == row.get("score") for _, row in rows)


def _rollouts(file: Path, rows: Rows, column: str) -> list[LoggedRollout]:
    """The rollouts of one file. Outputs of one rollout are adjacent rows; the last one is its end."""
    found = []
    for at, row in rows:
        missing = [field for field in ("input", column) if field not in row]
        if missing:
            raise DataError(
                f"{file}, row {at} has no field {missing[0]!r}; its fields are {', '.join(row)}"
                + ("; choose the reward among them with --reward, in Python reward=" if missing[0] == column else "")
            )
        rollout = LoggedRollout.read(f"{file}, row {at}", row["input"], row[column], row.get("gts"), _length(row))
        found.append(rollout)
    uids = [_UID.fullmatch(str(row.get("uid"))) for _, row in rows]
    if not all(uids) or len({uid.string for uid in uids if uid}) < len(rows):
        return found  # no uids, or those of the data set: every row is a rollout
    joined: dict[str, LoggedRollout] = {}
    for uid, rollout in zip(uids, found, strict=True):
        name = uid[1] if uid else ""
        first = joined.get(name)
        length = rollout.length if first is None else first.length + rollout.length
        joined[name] = (first or rollout)._replace(reward=rollout.reward, length=length)
    return list(joined.values())


def _length(row: Mapping[str, Any]) -> float:
    """Tokens of the output if the row says them, otherwise its characters; NaN without either."""
    tokens = number(row.get(LENGTH_FIELD))
    return tokens if 0 <= tokens <= LARGEST else characters(row.get("output"))
