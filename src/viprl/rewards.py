"""What counts as success: from rewards to outcomes 1, 0 or NaN (unscorable), and the statistics of ragged groups."""

from __future__ import annotations

import logging
import math
import numbers
from collections.abc import Callable, Sequence

import numpy as np

from viprl.variance import FloatArray

logger = logging.getLogger(__name__)

Success = float | Callable[[float], bool | None] | None
"""None: rewards are 0/1 or -1/+1. A number: success is reward >= number. A callable decides for itself."""


_PLAIN = frozenset({0.0, 1.0, -1.0})


class Outcomes:
    """Turns rewards into outcomes. One that it cannot read is NaN, unknown: counted, warned about, never fatal."""

    def __init__(self, success: Success = None) -> None:
        threshold = isinstance(success, numbers.Real) and not isinstance(success, bool) and math.isfinite(success)
        if success is not None and not callable(success) and not threshold:
            raise ValueError(f"success is {success!r}; expected None, a threshold or a callable reward -> bool")
        self.success = success
        self.strange = 0

    def __call__(self, rewards: Sequence[float | None]) -> FloatArray:
        """[n] outcomes of one group."""
        if self.success is None and all(type(r) is float for r in rewards) and _PLAIN.issuperset(rewards):
            return np.array([r == 1 for r in rewards], dtype=float)  # the common case, four times as fast
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
                return self._unscorable(reward, f"`success` answered {verdict!r}; expected True, False or None")
        except Exception as error:  # a stray reward or a user's callable must not end a long run
            return self._unscorable(reward, f"{type(error).__name__}: {error}")
        if self.success is not None:
            return float(value >= float(self.success))
        if value in (0.0, 1.0, -1.0):
            return float(value == 1.0)
        mend = "say what success is (`success`, `vip_success`): a threshold or a callable"
        return self._unscorable(reward, f"it is none of 0, 1, -1; {mend}")

    def _unscorable(self, reward: object, why: str) -> float:
        self.strange += 1
        if self.strange & (self.strange - 1) == 0:  # the 1st, 2nd, 4th, 8th ... so that a log stays readable
            logger.warning("reward %r tells the predictor nothing (%d so far): %s", reward, self.strange, why)
        return math.nan


def tally(outcomes: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray]:
    """[Q] successes and [Q] scorable rollouts of each group."""
    owner = np.repeat(np.arange(len(outcomes)), [len(group) for group in outcomes])
    values = np.concatenate([np.empty(0), *outcomes])
    known = ~np.isnan(values)
    successes = np.bincount(owner[known], values[known], minlength=len(outcomes)).astype(float)
    return successes, np.bincount(owner[known], minlength=len(outcomes)).astype(float)


def sample_variance(successes: FloatArray, rollouts: FloatArray) -> FloatArray:
    """[Q] k(n-k)/(n(n-1)), unbiased for p(1-p) whatever n >= 2; NaN for smaller groups."""
    k, n = successes, rollouts
    return np.where(n >= 2, k * (n - k) / np.maximum(n * (n - 1), 1), np.nan)
