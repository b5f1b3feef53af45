"""Which of an engine's rewards decides whether a rollout succeeded, and a check of that in the first batch."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from viprl.engines.planned_batch import PlannedBatch
from viprl.errors import InputError
from viprl.outcomes import Success
from viprl.rewards.calling import is_reward_model, reward_name
from viprl.utils.arrays import FloatArray
from viprl.utils.comparisons import read_comparison
from viprl.utils.imports import import_function
from viprl.vip import VIP, Observation

logger = logging.getLogger(__name__)

Values = Sequence[Sequence[float | None]]


class SuccessCriterion:
    """Reads the option `success` when a run is set up, and later picks the value that decides about each rollout.

    Args:
        success: None (the total reward, 0/1 or -1/+1), a number or a text with a number (threshold on the total
            reward), "NAME" or "NAME>=NUMBER" (a single reward; also with >, <=, < and ==), ">NUMBER" (the total),
            "module:function" or a callable (of the total reward).
        reward_functions: the functions and reward models of the run; their names are those of `reward_name`.
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
        """Whether a batch with rewards has been observed."""
        self._names: list[str] = []
        self._default = success is None and len(reward_functions) > 0
        self._warned = False
        if success is None:
            self._check_unambiguous(len(reward_functions))
            if any(map(is_reward_model, reward_functions)):
                raise InputError(f"success is ambiguous: a reward model gives continuous rewards; {self._choices()}")
        elif callable(success):
            self.rule = success
        elif isinstance(success, int | float):
            if isinstance(success, bool) or not math.isfinite(success):
                raise InputError(f"{option} is {success!r}, which is not a threshold; {self._choices()}")
            self.rule = success
        else:
            self._read(str(success), [reward_name(function) for function in reward_functions], complete)

    def _read(self, success: str, known: list[str], complete: bool) -> None:
        if success not in known and re.fullmatch(r"[\w.]+:[\w.]+", success):
            self.rule = import_function(success)
            return
        try:
            name, comparison = read_comparison(success, known)
        except InputError as error:
            raise InputError(f"{self.option} is {success!r}: {error}; {self._choices()}") from error
        if comparison is not None:
            self.rule = comparison.number if comparison.sign == ">=" else comparison
        self.column = name
        if name is not None and complete:
            self._check_name(name, known)

    def bind(self, names: Sequence[str]) -> None:
        """Set the engine's names of the reward columns. Raises InputError as above."""
        self._names = list(names)
        if self._default:  # a single environment is unambiguous
            self._check_unambiguous(len(self._names))
        if self.column is not None:
            self._check_name(self.column, self._names)

    def values(self, per_function: FloatArray, total: FloatArray) -> FloatArray:
        """[C] the value that decides about each rollout, NaN where unscorable, from rewards [C, F] and their total."""
        if self.column is None:
            return total
        return np.asarray(per_function)[:, self._names.index(self.column)]

    def observe(self, vip: VIP, batch: PlannedBatch, values: Values, logprobs: Values | None = None) -> Observation:
        """`vip.observe` for a planned batch; `values` and `logprobs` have one list for each prompt.

        Values are read with seven significant digits, because trainers hold rewards in 32 bits: there 0.7 is less than
        a threshold of 0.7. A first batch without any reward causes a warning.

        Raises InputError if no reward of the first batch could be read and at least one was not None or NaN: then
        success was never defined for this run. Later unreadable rewards only cause warnings.
        """
        values = [[_decimal(value) for value in group] for group in values]
        given = [value for group in values for value in group if not _missing(value)]
        first, self.tried = not self.tried and len(given) > 0, self.tried or len(given) > 0
        if first and vip.success is None and not any(map(_binary, given)):
            raise self._undefined(given[0])
        if not self.tried and not self._warned:
            self._warned = True
            logger.warning(
                "all %d rewards of the first batch are None or NaN%s, so there is nothing to learn from; check the "
                "reward functions",
                sum(map(len, values)),
                "" if self.column is None else f" in {self.column!r}, which {self.option} names",
            )
        before = vip.unreadable_rewards
        observation = vip.observe(batch.prompts, values, logprobs=logprobs)
        if first and vip.unreadable_rewards > before and not observation.rollouts.any():
            raise self._undefined(given[0])
        return observation

    def not_found(self, name: str | None, known: Sequence[str]) -> InputError:
        """The error for a reward `name` that is not among the `known` ones."""
        return InputError(
            f"{self.option} names the reward {name!r}, but the rewards are {', '.join(known) or '(none with a name)'}; "
            f"{self._choices()}"
        )

    def __str__(self) -> str:
        """What counts as success, for a log."""
        what = "total reward" if self.column is None else self.column
        if self.rule is None:
            return f"{what} 1 (failure: 0 or -1)"
        if isinstance(self.rule, int | float):
            return f"{what} >= {self.rule:g}"
        if callable(self.rule) and not hasattr(self.rule, "sign"):
            return f"{reward_name(self.rule)}({what})"
        return f"{what} {self.rule}"

    def _check_name(self, name: str, known: Sequence[str]) -> None:
        if name not in known:
            raise self.not_found(name, known)
        if Counter(known)[name] > 1:
            raise InputError(
                f"{self.option} names the reward {name!r}, but {Counter(known)[name]} rewards have this name "
                f"({', '.join(known)}); give each function a __name__ of its own"
            )

    def _check_unambiguous(self, rewards: int) -> None:
        if rewards > 1:
            raise InputError(f"success is ambiguous with {rewards} reward functions; {self._choices()}")

    def _undefined(self, example: Any) -> InputError:
        expected = "0, 1 or -1" if self.rule is None else f"readable as {self}"
        return InputError(
            f"no reward of the first batch is {expected} (the first one is {example!r}), so success is undefined; "
            f"set {self.option} to a threshold on the total reward, such as 0.5, or to the name of a reward"
        )

    def _choices(self) -> str:
        return (
            f"set {self.option} to the name of a reward with values 0/1 or -1/+1, to 'NAME>=0.5', to a threshold on "
            "the total reward such as '1.0', or to 'module:function', a function of the total reward"
        )


def _decimal(value: Any) -> Any:
    """A fractional number as a person would write it with the precision of 32 bits: 0.3 for 0.30000001192."""
    if not isinstance(value, float) or value.is_integer() or not 1e-30 < abs(value) < 1e30:
        return value
    return float(str(np.float32(value)))


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _binary(value: Any) -> bool:
    try:
        return float(value) in (0.0, 1.0, -1.0)
    except (TypeError, ValueError, OverflowError):
        return False
