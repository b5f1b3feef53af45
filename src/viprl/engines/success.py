"""Which of an engine's rewards decides whether a rollout succeeded, and a check of that in the first batch."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from viprl.engines.planned_batch import PlannedBatch
from viprl.errors import InputError
from viprl.outcomes import Success
from viprl.utils.arrays import FloatArray
from viprl.utils.imports import import_function
from viprl.vip import VIP, Observation

Values = Sequence[Sequence[float | None]]


class SuccessCriterion:
    """Reads the option `success` when a run is set up, and later picks the value that decides about each rollout.

    Args:
        success: None (the total reward, 0/1 or -1/+1), a number or a text with a number (threshold on the total
            reward), "NAME" or "NAME>=NUMBER" (a single reward), "module:function" or a callable (of the total reward).
        reward_functions: the functions and reward models of the run.
        complete: False if further rewards are known only later, see `bind`.
        option: how the engine spells the option, for errors.

    Raises InputError if success is ambiguous, and for names and thresholds that do not exist.
    """

    def __init__(
        self, success: Any, reward_functions: Sequence[Any] = (), *, complete: bool = True, option: str = "vip_success"
    ) -> None:
        self.rule: Success = None
        """How `viprl.VIP` reads the value."""
        self.column: str | None = None
        """The reward that decides; None for the weighted total."""
        self.option = option
        self.tried = False
        """Whether a batch has been observed."""
        self._names: list[str] = []
        self._default = success is None and len(reward_functions) > 0
        if success is None:
            self._check_unambiguous(len(reward_functions))
            if any(isinstance(function, str) or hasattr(function, "parameters") for function in reward_functions):
                raise InputError(f"success is ambiguous: a reward model gives continuous rewards; {self._choices()}")
        elif callable(success) or isinstance(success, int | float):
            self.rule = success
        else:
            known = [function.__name__ for function in reward_functions if hasattr(function, "__name__")]
            self._read(str(success), known, complete)

    def _read(self, success: str, known: list[str], complete: bool) -> None:
        name, _, threshold = (part.strip() for part in success.partition(">="))
        if re.search(r"[<>=]", name):
            raise InputError(f"{self.option} is {success!r}; the only comparison is 'NAME>=NUMBER'")
        if _is_number(success):
            self.rule = float(success)
        elif re.fullmatch(r"[\w.]+:[\w.]+", success):
            self.rule = import_function(success)
        elif threshold and not _is_number(threshold):
            raise InputError(f"{self.option} is {success!r}: {threshold!r} is not a number; {self._choices()}")
        elif name in known or not complete:
            self.column, self.rule = name, float(threshold) if threshold else None
        else:
            raise self.not_found(name, known)

    def bind(self, names: Sequence[str]) -> None:
        """Set the engine's names of the reward columns. Raises InputError as above."""
        self._names = list(names)
        if self._default:  # a single environment is unambiguous
            self._check_unambiguous(len(self._names))
        if self.column is not None and self.column not in self._names:
            raise self.not_found(self.column, self._names)

    def values(self, per_function: FloatArray, total: FloatArray) -> FloatArray:
        """[C] the value that decides about each rollout, NaN where unscorable, from rewards [C, F] and their total."""
        if self.column is None:
            return total
        return np.asarray(per_function)[:, self._names.index(self.column)]

    def observe(self, vip: VIP, batch: PlannedBatch, values: Values, logprobs: Values | None = None) -> Observation:
        """`vip.observe` for a planned batch; `values` and `logprobs` have one list for each prompt.

        Raises InputError if no reward of the first batch could be read and at least one was not None or NaN: then
        success was never defined for this run. Later unreadable rewards only cause warnings.
        """
        before = vip.unreadable_rewards
        observation = vip.observe(batch.prompts, values, logprobs=logprobs)
        first, self.tried = not self.tried, True
        if first and vip.unreadable_rewards > before and not observation.rollouts.any():
            example = next(v for group in values for v in group if v is not None and not math.isnan(v))
            raise InputError(
                f"no reward of the first batch is 0, 1 or -1 (the first one is {example!r}), so success is undefined; "
                f"set {self.option} to a threshold on the total reward, such as 0.5, or to the name of a reward"
            )
        return observation

    def not_found(self, name: str | None, known: Sequence[str]) -> InputError:
        """The error for a reward `name` that is not among the `known` ones."""
        return InputError(
            f"{self.option} names the reward {name!r}, but the rewards are {', '.join(known) or '(none with a name)'}; "
            f"{self._choices()}"
        )

    def _check_unambiguous(self, rewards: int) -> None:
        if rewards > 1:
            raise InputError(f"success is ambiguous with {rewards} reward functions; {self._choices()}")

    def _choices(self) -> str:
        return (
            f"set {self.option} to the name of a reward with values 0/1 or -1/+1, to 'NAME>=0.5', to a threshold on "
            "the total reward such as '1.0', or to 'module:function', a function of the total reward"
        )


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
