"""Which of a trainer's rewards says that a rollout succeeded."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from viprl.outcomes import Success
from viprl.utils.arrays import FloatArray
from viprl.utils.imports import import_function

_HOW = (
    "name it with vip_success: a reward function's name (whose values are 0/1 or -1/+1), 'NAME>=0.5', a threshold on "
    "the total reward such as '1.0', or 'module:function' taking the total reward"
)


class SuccessCriterion:
    """Reads `vip_success` when a trainer is built, and picks the deciding value of each rollout later.

    `complete=False`: environments bring rewards of their own, whose names only `bind` tells.
    Raises ValueError where several reward functions or a reward model leave it open what success is, and for names that
    mean nothing.
    """

    def __init__(self, success: Any, reward_functions: Sequence[Any], *, complete: bool = True) -> None:
        self.rule: Success = None
        """How `viprl.VIP` reads the value."""
        self.column: str | None = None
        """Reward function whose value decides; None for the weighted total."""
        self._open = success is None and len(reward_functions) > 0
        known = [function.__name__ for function in reward_functions if hasattr(function, "__name__")]
        if success is None:
            _check_one(len(reward_functions))
            if any(isinstance(function, str) or hasattr(function, "parameters") for function in reward_functions):
                raise ValueError(f"a reward model gives continuous rewards, so it is open what success is; {_HOW}")
        elif callable(success) or isinstance(success, int | float):
            self.rule = success
        else:
            self._read(str(success), known, complete)

    def _read(self, success: str, known: list[str], complete: bool) -> None:
        name, _, threshold = (part.strip() for part in success.partition(">="))
        if re.search(r"[<>=]", name):
            raise ValueError(f"vip_success is {success!r}; the one comparison that is read is 'NAME>=NUMBER'")
        if _is_number(success):
            self.rule = float(success)
        elif re.fullmatch(r"[\w.]+:[\w.]+", success):
            self.rule = import_function(success)
        elif threshold and not _is_number(threshold):
            raise ValueError(f"vip_success is {success!r}: {threshold!r} is no number; {_HOW}")
        elif name in known or not complete:
            self.column, self.rule = name, float(threshold) if threshold else None
        else:
            raise _unknown(success, known)

    def bind(self, names: Sequence[str]) -> None:
        """Learn the engine's names of the reward columns. Raises ValueError as above."""
        self._names = list(names)
        if self._open:  # environments alone are no question: a rollout has the reward of its own
            _check_one(len(self._names))
        if self.column is not None and self.column not in self._names:
            raise _unknown(self.column, self._names)

    def values(self, per_function: FloatArray, total: FloatArray) -> FloatArray:
        """[C] the value that decides about each rollout, NaN where unscorable, from rewards [C, F] and their total."""
        if self.column is None:
            return total
        return np.asarray(per_function)[:, self._names.index(self.column)]


def _check_one(rewards: int) -> None:
    if rewards > 1:
        raise ValueError(f"with {rewards} reward functions it is open what success is; {_HOW}")


def _unknown(success: str, known: Sequence[str]) -> ValueError:
    return ValueError(f"vip_success is {success!r}, but the reward functions are {', '.join(known) or '-'}; {_HOW}")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
