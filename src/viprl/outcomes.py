"""Rewards to outcomes (1 success, 0 failure, NaN unscorable), and statistics of groups of outcomes."""

from __future__ import annotations

import logging
import math
import numbers
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from viprl.errors import InputError
from viprl.utils.arrays import FloatArray
from viprl.utils.imports import import_function

logger = logging.getLogger(__name__)

Success = str | float | Callable[[float], bool | None] | None
"""What counts as success. None: the rewards are 0/1 or -1/+1. A number: reward >= number. A callable: reward -> True,
False, or None for unscorable. Engines also accept names of rewards, see `viprl.engines.success`."""

_BINARY = frozenset({0.0, 1.0, -1.0})


class SuccessRule(NamedTuple):
    """Which reward decides about success, and how it is read."""

    column: str | None
    """The name of the reward; None for the total reward."""
    rule: Success
    """How `RewardReader` reads it."""


def success_rule(success: Any, option: str = "success") -> SuccessRule:
    """Read the option `success`.

    Args:
        success: None, a number, a callable, or a text: "0.5" (a threshold on the total reward), "NAME" or
            "NAME>=0.5" (a single reward), "module:function" (of the total reward).
        option: how the option is spelled, for errors.

    Raises InputError for other comparisons, thresholds that are not finite numbers, and functions that cannot be
    imported.
    """
    if not isinstance(success, str):
        return SuccessRule(None, success)
    name, comparison, threshold = (part.strip() for part in success.partition(">="))
    if not name or re.search(r"[<>=]", name + threshold):
        raise InputError(
            f"{option} is {success!r}; expected a threshold such as '0.5', a reward such as 'accuracy', "
            "'accuracy>=0.5' or 'module:function'"
        )
    number = _as_number(threshold if comparison else name)
    if (number is not None and not math.isfinite(number)) or (comparison and number is None):
        raise InputError(f"{option} is {success!r}, whose threshold is not a finite number; expected, e.g., 0.5")
    if number is not None:
        return SuccessRule(name if comparison else None, number)
    if re.fullmatch(r"[\w.]+:[\w.]+", name):
        return SuccessRule(None, import_function(name))
    return SuccessRule(name, None)


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


class RewardReader:
    """Turns rewards into outcomes.

    A reward that cannot be read is unscorable. It is counted and logged, but never raises an error, because one bad
    reward must not end a long run.

    Args:
        success: None, a threshold or a callable, see `Success`.

    Raises InputError for any other `success`.
    """

    def __init__(self, success: Success = None) -> None:
        threshold = isinstance(success, numbers.Real) and not isinstance(success, bool) and math.isfinite(success)
        if success is not None and not callable(success) and not threshold:
            raise InputError(f"success is {success!r}; expected None, a threshold or a callable reward -> bool")
        self.success = success
        self.unreadable = 0
        """Rewards so far that could not be read. None and NaN do not count: they are unscorable on purpose."""

    def __call__(self, rewards: Sequence[float | None]) -> FloatArray:
        """[n] outcomes of the n rewards of one group: 1, 0 or NaN."""
        if self.success is None and all(type(r) is float for r in rewards) and _BINARY.issuperset(rewards):
            return np.array([r == 1 for r in rewards], dtype=float)  # the usual case, four times faster
        return np.array([self._outcome(r) for r in rewards], dtype=float)

    def _outcome(self, reward: float | None) -> float:
        if reward is None:
            return math.nan
        try:
            value = float(reward)
            if math.isnan(value):
                return math.nan
            if callable(self.success):
                verdict = self.success(value)
                if verdict is None or verdict != verdict:  # NaN
                    return math.nan
                if verdict in (True, False):
                    return float(bool(verdict))
                return self._unreadable(reward, f"success returned {verdict!r}; expected True, False or None")
        except Exception as error:  # also an error in the user's callable must not end a long run
            return self._unreadable(reward, f"{type(error).__name__}: {error}")
        if self.success is not None:
            return float(value >= float(self.success))
        if value in _BINARY:
            return float(value == 1.0)
        return self._unreadable(reward, "expected 0, 1 or -1; set success to a threshold or a callable")

    def _unreadable(self, reward: object, why: str) -> float:
        self.unreadable += 1
        if self.unreadable & (self.unreadable - 1) == 0:  # the 1st, 2nd, 4th, 8th ..., to keep the log short
            logger.warning("unreadable reward %r counts as unscorable (%d so far): %s", reward, self.unreadable, why)
        return math.nan


def tally(outcomes: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Successes [Q] and scorable rollouts [Q] of Q groups of outcomes."""
    owner = np.repeat(np.arange(len(outcomes)), [len(group) for group in outcomes])
    values = np.concatenate([np.empty(0), *outcomes])
    known = ~np.isnan(values)
    successes = np.bincount(owner[known], values[known], minlength=len(outcomes)).astype(float)
    return successes, np.bincount(owner[known], minlength=len(outcomes)).astype(float)


def sample_variance(successes: FloatArray, rollouts: FloatArray) -> FloatArray:
    """[Q] unbiased estimate of the reward variance p(1-p) of each group: k(n-k)/(n(n-1)); NaN for n < 2.

    Args:
        successes: [Q] k.
        rollouts: [Q] n, scorable rollouts.
    """
    k, n = successes, rollouts
    return np.where(n >= 2, k * (n - k) / np.maximum(n * (n - 1), 1), np.nan)
