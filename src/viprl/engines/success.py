"""What counts as success in metrics: which of an engine's rewards decides, and how it is read."""

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
from viprl.outcomes import RewardReader, Success
from viprl.rewards.calling import reward_name
from viprl.utils.arrays import FloatArray
from viprl.utils.comparisons import read_comparison
from viprl.utils.imports import import_function
from viprl.utils.numerics import number
from viprl.vip import VIP, Observation

logger = logging.getLogger(__name__)

Values = Sequence[Sequence[float | None]]


class SuccessCriterion:
    """Reads the option `success` when a run is set up, and later says which rollouts succeeded.

    Success is for metrics. The allocation depends on the total reward alone.

    Args:
        success: None (total rewards of 1, if they are 0/1 or -1/+1; otherwise undefined), a number or a text with a
            number (threshold on the total reward), "NAME" or "NAME>=NUMBER" (a single reward; also with >, <=, < and
            ==), ">NUMBER" (the total), "module:function" or a callable (of the total reward).
        reward_functions: the functions and reward models of the run; their names are those of `reward_name`.
        complete: False if further rewards are known only later, see `bind`.
        option: how the engine spells the option, for errors.

    Raises InputError for names and thresholds that do not exist.
    """

    def __init__(
        self, success: Any, reward_functions: Sequence[Any] = (), *, complete: bool = True, option: str = "vip_success"
    ) -> None:
        self.rule: Success = None
        """How the value that decides is read, see `viprl.outcomes.Success`."""
        self.column: str | None = None
        """The reward that decides; None for the weighted total."""
        self.option = option
        self.given = success is not None
        """Whether the option is set."""
        self.tried = False
        """Whether a batch with rewards has been observed."""
        self._names: list[str] = []
        self._warned = False
        if callable(success):
            self.rule = success
        elif isinstance(success, int | float):
            if isinstance(success, bool) or math.isnan(number(success)):
                raise InputError(f"{option} is {success!r}, which is not a threshold; {self._choices()}")
            self.rule = success
        elif success is not None:
            self._read(str(success), [reward_name(function) for function in reward_functions], complete)
        self._reader = RewardReader(self.rule)

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
        if self.column is not None:
            self._check_name(self.column, self._names)

    def values(self, per_function: FloatArray, total: FloatArray) -> FloatArray:
        """[C] the value that decides about each rollout, NaN where unscorable, from rewards [C, F] and their total."""
        if self.column is None:
            return total
        return np.asarray(per_function)[:, self._names.index(self.column)]

    def observe(
        self,
        vip: VIP,
        batch: PlannedBatch,
        rewards: Values,
        deciding: Values,
        logprobs: Values | None = None,
        lengths: Values | None = None,
    ) -> Observation:
        """`vip.observe` for a planned batch.

        A first batch without any reward, or without a rollout that is known to have succeeded or failed, causes a
        warning.

        Args:
            rewards: total reward of each rollout, one list for each prompt.
            deciding: the values that decide about success, from `values`.
            logprobs, lengths: as for `VIP.observe`.
        """
        successes = [self._successes(group) for group in deciding] if self.given else None
        observation = vip.observe(batch.prompts, rewards, logprobs=logprobs, successes=successes, lengths=lengths)
        first, self.tried = not self.tried, self.tried or bool(observation.rollouts.any())
        if first and not self._warned and not observation.judged.any() and (self.given or not self.tried):
            self._warned = True
            self._warn(deciding if self.tried else rewards)
        return observation

    def _successes(self, values: Sequence[float | None]) -> list[float | None]:
        """[n] 1, 0, or None if undecided. Values are read with seven significant digits, because trainers hold rewards
        in 32 bits: there 0.7 is less than a threshold of 0.7."""
        read = self._reader.outcomes(self._reader.values([_decimal(value) for value in values]))
        return [None if math.isnan(outcome) else outcome for outcome in read.tolist()]

    def _warn(self, values: Values) -> None:
        known = [value for group in values for value in group if not _missing(value)]
        if known:
            logger.warning(
                "%s is %s, but no rollout of the first batch could be judged by it (the first value is %r); metrics of "
                "success are left out",
                self.option,
                self,
                known[0],
            )
        else:
            logger.warning(
                "all %d rewards of the first batch are None or NaN, so there is nothing to learn from; check the "
                "reward functions",
                sum(map(len, values)),
            )

    def not_found(self, name: str | None, known: Sequence[str]) -> InputError:
        """The error for a reward `name` that is not among the `known` ones."""
        return InputError(
            f"{self.option} names the reward {name!r}, but the rewards are {', '.join(known) or '(none with a name)'}; "
            f"{self._choices()}"
        )

    def __str__(self) -> str:
        """What counts as success, for a log."""
        what = "total reward" if self.column is None else self.column
        if not self.given:
            return "total reward 1, if rewards are 0/1 or -1/+1"
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
