"""The predicted variance that a step aims at, so that the realised variance is that of uniform counts.

    symbol  meaning                                                                     shape
    v, u    realised variance of a step and of uniform counts, both unbiased            scalars
    P       predicted ratio of the two                                                  scalar
    e       (v - P u)/mean u: by how much the prediction of the step was too low        scalar
    B, N    discounted sum and number of the e, with N0 steps of e = 0 in advance       scalars
    S       sum of the squares, discounted twice as fast                                scalar

The predicted ratio to aim at is the target less what predictions have been too low by, B/N, and less the error of that
number, `caution` sqrt(S)/N. If the realised variance rises above what was predicted, spending rises in the next step,
and not only when that is certain. If predictions have been too high, spending falls.
"""

from __future__ import annotations

import math

import numpy as np

from viprl.utils.state_checks import array_entry
from viprl.utils.state_file import State

RANGE = 0.5, 1.25
"""Smallest and largest ratio to aim at, relative to the target."""


class VarianceTarget:
    """What a step aims at, from the outcomes of recent steps.

    Args:
        forgetting_factor: share of the evidence that a step keeps.
        caution: standard errors that are kept as a distance.
        prior_steps: N0.
        prior_error: standard deviation of the e before any step.
    """

    def __init__(
        self,
        *,
        forgetting_factor: float = 0.98,
        caution: float = 0.5,
        prior_steps: float = 8.0,
        prior_error: float = 0.05,
    ) -> None:
        self.forgetting_factor, self.caution = forgetting_factor, caution
        self.prior_steps, self.prior_error = prior_steps, prior_error
        self._sums = np.zeros(4)  # of e, of steps, of e^2; running mean of u

    def aim(self, target: float) -> float:
        """The predicted variance, relative to uniform, with which the realised one is expected to be `target`."""
        error, steps, squares, _ = self._sums
        n = steps + self.prior_steps
        distance = self.caution * math.sqrt(squares + self.prior_steps * self.prior_error**2) / n
        return float(np.clip(target - error / n - distance, RANGE[0] * target, RANGE[1] * target))

    def observe(self, realised: float, uniform: float, predicted: float) -> None:
        """Learn from a step: its variance, that of uniform counts, and the ratio that was predicted. Steps in which
        nothing was measured say nothing."""
        if uniform <= 0:
            return
        keep = self.forgetting_factor
        error, steps, squares, mean = self._sums.tolist()
        mean = uniform if mean == 0 else mean + (uniform - mean) / (steps + 1)
        e = (realised - predicted * uniform) / mean
        self._sums = np.array([keep * error + e, keep * steps + 1, keep**2 * squares + e**2, mean])

    def state_dict(self) -> State:
        return {"sums": self._sums.copy()}

    def load_state_dict(self, state: State) -> None:
        self._sums = array_entry(state, "sums", 4)
