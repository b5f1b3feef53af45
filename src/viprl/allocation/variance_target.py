"""The predicted variance that a step aims at, so that the realised variance is that of uniform counts.

    symbol  meaning                                                                     shape
    v, u    realised variance of a step and of uniform counts, both unbiased            scalars
    P       predicted ratio of the two                                                  scalar
    e       (v - P u)/mean u: by how much the prediction of the step was too low        scalar
    b, c    moving averages of e, a slow one and a fast one; 0 before any step          scalars
    s2      variance of e from step to step, half the mean squared difference of        scalar
            consecutive e; `prior_error`^2 before any step

The predicted ratio to aim at is the target less what predictions have been too low by: b, and what c differs from it by
more than two standard errors. So a small error is corrected slowly and a large one within a few steps. `caution` times
the standard error of b is kept as a distance. If the realised variance rises above what was predicted, spending rises,
and not only when that is certain. If predictions have been too high, spending falls.

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
FAST = 0.8
"""Share of the fast average that a step keeps."""
CLEAR = 2.0
"""Standard errors of the fast average beyond which it counts."""


class VarianceTarget:
    """What a step aims at, from the outcomes of recent steps.

    Args:
        forgetting_factor: share of the slow averages that a step keeps.
        caution: standard errors that are kept as a distance.
        prior_error: standard deviation of the e before any step.
    """

    def __init__(self, *, forgetting_factor: float = 0.97, caution: float = 0.25, prior_error: float = 0.05) -> None:
        self.forgetting_factor, self.caution, self.prior_error = forgetting_factor, caution, prior_error
        self._errors = np.zeros(3)  # b, c and the last e
        self._scale = np.array([prior_error**2, 0.0])  # s2, moving average of u

    def aim(self, target: float) -> float:
        """The predicted variance, relative to uniform, with which the realised one is expected to be `target`."""
        slow, fast, _ = self._errors.tolist()
        sudden = max(0.0, abs(fast - slow) - CLEAR * self._standard_error(FAST))
        distance = self.caution * self._standard_error(self.forgetting_factor)
        aim = target - slow - math.copysign(sudden, fast - slow) - distance
        return float(np.clip(aim, RANGE[0] * target, RANGE[1] * target))

    def observe(self, realised: float, uniform: float, predicted: float) -> None:
        """Learn from a step: its variance, that of uniform counts, and the ratio that was predicted. Steps in which
        nothing was measured, or whose counts were uniform, say nothing."""
        even = math.isclose(predicted, 1.0, rel_tol=1e-9) and math.isclose(realised, uniform, rel_tol=1e-9)
        if uniform <= 0 or even:
            return
        keep, (square, mean) = self.forgetting_factor, self._scale.tolist()
        first = mean == 0
        mean = uniform if first else keep * mean + (1 - keep) * uniform
        e = (realised - predicted * uniform) / mean
        slow, fast, last = self._errors.tolist()
        square = square if first else keep * square + (1 - keep) * (e - last) ** 2 / 2
        self._errors = np.array([keep * slow + (1 - keep) * e, FAST * fast + (1 - FAST) * e, e])
        self._scale = np.array([square, mean])

    def state_dict(self) -> State:
        return {"errors": self._errors.copy(), "scale": self._scale.copy()}

    def load_state_dict(self, state: State) -> None:
        """Raises StateError for a damaged state."""
        errors, scale = array_entry(state, "errors", 3), array_entry(state, "scale", 2, least=0)
        self._errors, self._scale = errors, scale

    def _standard_error(self, keep: float) -> float:
        """Of a moving average that keeps this share."""
        return math.sqrt(self._scale[0] * (1 - keep) / (1 + keep))
