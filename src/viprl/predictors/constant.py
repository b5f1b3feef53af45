"""No prediction at all, for rules that need none."""

from __future__ import annotations

import numpy as np

from viprl.predictors.protocol import Batch, Prediction, Predictor, State
from viprl.variance import FloatArray


class SuccessRate(Predictor):
    """The success rate of all rollouts so far, slowly forgotten, for every prompt alike."""

    uses_features = False

    def __init__(self, *, memory: float = 0.98) -> None:
        self.memory = memory
        self._successes, self._rollouts = 1.0, 2.0

    def predict(self, batch: Batch) -> Prediction:
        return Prediction.of_points(np.full(len(batch), self._successes / self._rollouts))

    def observe(self, batch: Batch, successes: FloatArray, rollouts: FloatArray) -> None:
        self._successes = self.memory * self._successes + float(successes.sum())
        self._rollouts = self.memory * self._rollouts + float(rollouts.sum())

    def state_dict(self) -> State:
        return {"successes": self._successes, "rollouts": self._rollouts}

    def load_state_dict(self, state: State) -> None:
        self._successes, self._rollouts = state["successes"], state["rollouts"]
