"""Rows of metrics as the engines log them, under the names of `viprl.metrics`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from viprl.errors import ViprlError
from viprl.metrics import COUNTS_MAX, COUNTS_MIN, EPOCH, PREFIX, REWARD, STEP_TIME
from viprl.utils.json_lines import log_rows
from viprl.utils.numerics import number

Row = Mapping[str, Any]

_VERL_ROW = {"step", "data"}
"""The keys of a row of verl's logger `file`."""
_VERL_EPOCH = "training/epoch"
"""verl: the pass over the data, 0 in the first."""
TINKER_PREFIX = "env/all/"
"""tinker-cookbook: begins the names of what the environments log, those of VIP included."""
PROGRESS = "progress/done_frac"
"""tinker-cookbook: share of the steps that are done."""
_NAMES = {
    "critic/score/mean": REWARD,
    "timing_s/step": STEP_TIME,
    TINKER_PREFIX + "reward/total": REWARD,
    "time/total": STEP_TIME,
}
"""Names of verl and of tinker-cookbook, and those of TRL for the same."""


def with_our_names(row: Row) -> dict[str, Any]:
    """A row of any engine: the metrics of VIP below `PREFIX`, and reward, time and epoch under the names of TRL."""
    if row.keys() == _VERL_ROW and isinstance(row["data"], Mapping):
        row = {"step": row["step"], **row["data"]}
    found = {
        key.removeprefix(TINKER_PREFIX) if key.startswith(TINKER_PREFIX + PREFIX) else key: row[key] for key in row
    }
    for theirs, ours in _NAMES.items():
        if theirs in row:
            found.setdefault(ours, row[theirs])
    if _VERL_EPOCH in row:
        found.setdefault(EPOCH, number(row[_VERL_EPOCH]) + 1)
    return found


def has_step(row: Row) -> bool:
    """Whether the row belongs to a step."""
    return math.isfinite(number(row.get("step")))


def of_vip(rows: Sequence[Row]) -> list[Row]:
    """The rows with metrics of VIP."""
    return [row for row in rows if any(key.startswith(PREFIX) for key in row)]


def name_by_counts(rows: Sequence[Row]) -> str:
    """What to call the strategy of a log that does not name it: "uniform" if all counts are equal, or "adaptive"."""
    even = all(row.get(PREFIX + COUNTS_MIN) == row.get(PREFIX + COUNTS_MAX) for row in of_vip(rows))
    return "uniform" if even else "adaptive"


def is_verl_log(file: Path) -> bool:
    """Whether a file is what verl's logger `file` writes: one row `{"step", "data"}` for each step."""
    if file.suffix != ".jsonl" or not file.is_file():
        return False
    try:
        return any(row.keys() == _VERL_ROW for row in islice(log_rows(file), 1))
    except ViprlError:
        return False


def planned_steps(settings: Mapping[str, Any], epoch: float | None, step: float) -> int | None:
    """Steps of a whole training, from its settings and where it is; None if they are not known yet."""
    if number(settings.get("max_steps")) > 0:
        return int(settings["max_steps"])
    epochs = number(settings.get("num_train_epochs"))
    return round(step * epochs / epoch) if epochs > 0 and epoch else None
