"""A watch on the predictor: what its allocations really bought decides how far they are trusted.

Every group measures its own weight y without bias, k(n-k)/(n(n-1)) or the like (`viprl.weights`), whatever its size. So
after each step the realised variance sum_q y_q f(n'_q) of *any* allocation n' of that batch is known without bias,
played or not. The guard
compares a few mixtures of the predicted weights with equal ones, (1 - t) a + t mean(a). It plays the prediction itself,
t = 0, unless another mixture has been better by more than the noise of that comparison (`caution` standard errors of
the paired differences). A predictor that does harm ends at t = 1, the uniform allocation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from viprl.allocation import IntArray
from viprl.predictors.protocol import Prediction, State
from viprl.variance import Estimator, FloatArray

SHARES = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
"""t: the share of equal weights in each mixture."""


class Guard:
    """Discounted differences between each mixture's realised variance and the prediction's, and their squares."""

    def __init__(self, *, memory: float = 0.98, caution: float = 1.5) -> None:
        self.memory, self.caution = memory, caution
        self._difference = np.zeros(len(SHARES))
        self._squares = np.zeros(len(SHARES))

    @property
    def mixture(self) -> int:
        """Index into `SHARES` of the mixture to play."""
        return int(np.argmin(self._difference + self.caution * np.sqrt(self._squares)))

    @property
    def trust(self) -> float:
        """1: the prediction is played as it is; 0: uniform."""
        return float(1 - SHARES[self.mixture])

    def candidates(self, prediction: Prediction, allocate: Callable[[Prediction], IntArray]) -> list[IntArray]:
        """The counts of every mixture."""
        return [allocate(mixed(prediction, t)) for t in SHARES]

    def observe(self, candidates: list[IntArray], measured: FloatArray, estimator: Estimator) -> None:
        """Book what each candidate would have bought; `measured` [Q] is the weight that each
        group showed (`viprl.surprise.measured_weight`), NaN where it showed none."""
        known = ~np.isnan(measured)
        factors = np.array([estimator.factor(counts) for counts in candidates])[:, known]
        difference = (factors - factors[0]) @ measured[known]  # exactly 0 for equal counts: rounding is no evidence
        self._difference = self.memory * self._difference + difference
        self._squares = self.memory**2 * self._squares + difference**2

    def state_dict(self) -> State:
        return {"difference": self._difference.copy(), "squares": self._squares.copy()}

    def load_state_dict(self, state: State) -> None:
        self._difference, self._squares = np.array(state["difference"]), np.array(state["squares"])


def mixed(prediction: Prediction, share: float) -> Prediction:
    """Weights (1 - share) a + share mean(a); the rest stays."""
    a = prediction.weight
    return replace(prediction, learned_weight=(1 - share) * a + share * a.mean())
