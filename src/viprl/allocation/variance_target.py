"""The predicted variance that a step aims at, so that the realised variance is that of uniform counts.

    symbol  meaning                                                                     shape
    v, u    realised variance of a step and of uniform counts, both unbiased            scalars
    P       predicted ratio of the two                                                  scalar
    e       (v - P u)/mean u: by how much the prediction of the step was too low        scalar
    b, s2   moving averages of e and e^2 that keep the share g; 0 and `prior_error`^2   scalars
            before any step

The predicted ratio to aim at is the target less what predictions have been too low by, b, and less `caution` times the
error of that number, sqrt(s2 (1 - g)/(1 + g)). If the realised variance rises above what was predicted, spending rises
in the next step, and not only when that is certain. If predictions have been too high, spending falls.

`viprl replay --spend match` shows the constants at work, benchmarks/wrong_predictions.py with predictions that are
wrong.
"""

from __future__ import annotations

import math

import numpy as np

from viprl.utils.state_checks import array_entry
from viprl.utils.state_file import State

RANGE = 0.2, 1.25
"""Smallest and largest ratio to aim at, relative to the target."""


class VarianceTarget:
    """What a step aims at, from the outcomes of recent steps.

    Args:
        forgetting_factor: g, the share of the averages that a step keeps.
        caution: standard errors that are kept as a distance.
        prior_error: standard deviation of the e before any step.
    """

    def __init__(self, *, forgetting_factor: float = 0.97, caution: float = 0.25, prior_error: float = 0.05) -> None:
        self.forgetting_factor, self.caution, self.prior_error = forgetting_factor, caution, prior_error
        self._means = np.array([0.0, prior_error**2, 0.0])  # of e, e^2 and u

    def aim(self, target: float) -> float:
        """The predicted variance, relative to uniform, with which the realised one is expected to be `target`."""
        error, square, _ = self._means.tolist()
        keep = self.forgetting_factor
        distance = self.caution * math.sqrt(square * (1 - keep) / (1 + keep))
        return float(np.clip(target - error - distance, RANGE[0] * target, RANGE[1] * target))

    def observe(self, realised: float, uniform: float, predicted: float) -> None:
        """Learn from a step: its variance, that of uniform counts, and the ratio that was predicted. Steps in which
        nothing was measured, or whose counts were uniform, say nothing."""
        even = math.isclose(predicted, 1.0, rel_tol=1e-9) and math.isclose(realised, uniform, rel_tol=1e-9)
        if uniform <= 0 or even:
            return
        mean = self._means[2] or uniform
        mean = mean + (1 - self.forgetting_factor) * (uniform - mean)
        e = (realised - predicted * uniform) / mean
        now = np.array([e, e**2, mean])
        self._means = self.forgetting_factor * self._means + (1 - self.forgetting_factor) * now
        self._means[2] = mean

    def state_dict(self) -> State:
        return {"means": self._means.copy()}

    def load_state_dict(self, state: State) -> None:
        """Raises StateError for a damaged state."""
        self._means = array_entry(state, "means", 3)
