"""A watch on the predictor: what its allocations really bought decides how far they are trusted.

Every group measures p(1-p) without bias, k(n-k)/(n(n-1)), whatever its size. So after each step the realised variance
sum_q k(n-k)/(n(n-1)) f(n'_q) of *any* allocation n' of that batch is known without bias, played or not. The guard
compares a few mixtures of the predicted weights with equal ones, (1 - t) a + t mean(a), and plays the best so far.
A predictor that does harm ends at t = 1, the uniform allocation.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from viprl.allocation import IntArray
from viprl.predictors.protocol import Prediction, State
from viprl.variance import Estimator, FloatArray

SHARES = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
"""t: the share of equal weights in each mixture."""


class Guard:
    """Discounted realised variance of each mixture; it starts from the prediction's own claim."""

    def __init__(self, *, memory: float = 0.95, claim_steps: float = 3.0) -> None:
        self.memory, self.claim_steps = memory, claim_steps
        self._realised: FloatArray | None = None  # [T]

    @property
    def mixture(self) -> int:
        """Index into `SHARES` of the mixture to play."""
        return 0 if self._realised is None else int(np.argmin(self._realised))

    @property
    def trust(self) -> float:
        """1: the prediction is played as it is; 0: uniform."""
        return float(1 - SHARES[self.mixture])

    def candidates(self, prediction: Prediction, allocate: Callable[[Prediction], IntArray]) -> list[IntArray]:
        """The counts of every mixture."""
        return [allocate(mixed(prediction, t)) for t in SHARES]

    def observe(
        self, candidates: list[IntArray], claimed: FloatArray, sample_variance: FloatArray, estimator: Estimator
    ) -> None:
        """Book what each candidate would have bought; `sample_variance` [Q] may hold NaN (no two scorable rollouts)."""
        known = ~np.isnan(sample_variance)
        factors = np.array([estimator.factor(counts) for counts in candidates])[:, known]
        realised = factors @ sample_variance[known]
        if self._realised is None:
            self._realised = self.claim_steps * (factors @ claimed[known])
        self._realised = self.memory * self._realised + realised

    def state_dict(self) -> State:
        return {"realised": self._realised}

    def load_state_dict(self, state: State) -> None:
        self._realised = state["realised"]


def mixed(prediction: Prediction, share: float) -> Prediction:
    """Weights (1 - share) a + share mean(a); the probabilities stay."""
    a = prediction.reward_variance
    return Prediction(prediction.success_probability, (1 - share) * a + share * a.mean())
