"""The guard: decides from realised variances how far the predicted weights are trusted.

After a step the group of each prompt gives an unbiased estimate y of its variance weight, whatever its size:
k(n-k)/(n(n-1)) or its weighted form (`viprl.weights.surprisal`). So the realised variance sum_q y_q f(n'_q) of any
allocation n' of that batch is known without bias, used or not. The guard compares mixtures of the predicted weights
with equal ones, (1 - t) a + t mean(a). It uses the prediction itself, t = 0, unless another mixture has been better by
more than the noise of the comparison: `caution` standard errors of the paired differences. A predictor that does harm
ends at t = 1, the uniform allocation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from viprl.allocation.variance_models import VarianceModel
from viprl.predictors.base import Prediction
from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.running_comparison import RunningComparison
from viprl.utils.state_file import State

SHARES = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
"""t: the share of equal weights in each mixture."""


class Guard:
    """Running comparison of the predicted weights with their mixtures with equal weights.

    Args:
        forgetting_factor: share of the evidence that a step keeps.
        caution: standard errors by which a mixture must be better to be used.
    """

    def __init__(self, *, forgetting_factor: float = 0.98, caution: float = 1.5) -> None:
        self.forgetting_factor, self.caution = forgetting_factor, caution
        self._comparison = RunningComparison(len(SHARES), forgetting_factor=forgetting_factor, caution=caution)

    @property
    def choice(self) -> int:
        """Index into `SHARES` of the mixture to use."""
        return self._comparison.choice

    @property
    def trust(self) -> float:
        """1 if the prediction is used as it is, 0 if the allocation is uniform."""
        return float(1 - SHARES[self.choice])

    def mixed(self, prediction: Prediction) -> Prediction:
        """The prediction with the weights of the mixture to use."""
        return mixed(prediction, SHARES[self.choice])

    def candidates(self, prediction: Prediction, allocate: Callable[[Prediction], IntArray]) -> list[IntArray]:
        """The counts of every mixture."""
        return [allocate(mixed(prediction, t)) for t in SHARES]

    def observe(self, candidates: list[IntArray], measured: FloatArray, model: VarianceModel) -> None:
        """Learn from a batch.

        Args:
            candidates: the counts of every mixture, from `candidates`.
            measured: [Q] the weight that each group showed (`viprl.weights.surprisal.measured_weight`), NaN if none.
            model: the variance model of the estimator.
        """
        known = ~np.isnan(measured)
        factors = np.array([model.factor(counts) for counts in candidates])[:, known]
        # exactly 0 for equal counts: rounding is no evidence
        self._comparison.add((factors - factors[0]) @ measured[known])

    def state_dict(self) -> State:
        return self._comparison.state_dict()

    def load_state_dict(self, state: State) -> None:
        self._comparison.load_state_dict(state)


def mixed(prediction: Prediction, share: float) -> Prediction:
    """The prediction with weights (1 - share) a + share mean(a)."""
    a = prediction.weight
    return replace(prediction, learned_weight=(1 - share) * a + share * a.mean())
