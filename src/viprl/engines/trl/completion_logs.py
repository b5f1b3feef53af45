"""Corrections of what TRL logs about a generation batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from viprl.utils.arrays import FloatArray


def correct_advantages(trainer: Any, advantages: FloatArray, std: FloatArray) -> None:
    """`advantages` [N], and `std` [N] of the group of each rollout, in place of what TRL computed for one group."""
    logged = trainer._logs["advantages"]
    for _ in range(min(len(advantages), len(logged))):
        logged.pop()
    logged.extend(advantages.tolist())
    shares = trainer._metrics["train"].get("frac_reward_zero_std")
    if shares:
        shares[-1] = float(np.isclose(std, 0).mean())


def keep_last(logs: dict[str, Any], rows: int) -> None:
    """Leave the last rows of the table of completions, whose columns hold the rows of a whole budget.

    Columns that a reward function has not logged this time are filled up, so that all have the same length.
    """
    nested = [*logs["rewards"].values(), *logs["extra"].values()]
    for column in [*(column for name, column in logs.items() if name not in ("rewards", "extra")), *nested]:
        while len(column) > rows:
            column.popleft()
    for column in logs["extra"].values():
        column.extendleft([None] * (rows - len(column)))
