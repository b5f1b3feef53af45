"""Rewards to outcomes (1 success, 0 failure, NaN unscorable), and statistics of groups of outcomes."""

from __future__ import annotations

import logging
import math
import numbers
from collections.abc import Callable, Sequence

import numpy as np

from viprl.errors import InputError
from viprl.utils.arrays import FloatArray

logger = logging.getLogger(__name__)

Success = str | float | Callable[[float], bool | None] | None
"""What counts as success. None: the rewards are 0/1 or -1/+1. A number: reward >= number. A callable: reward -> True,
False, or None for unscorable. Engines also accept names of rewards, see `viprl.engines.success`."""

_BINARY = frozenset({0.0, 1.0, -1.0})


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
