"""One success rate for all prompts, for rules that need no prediction."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from viprl.predictors.base import Batch, Prediction, Predictor
from viprl.utils.arrays import FloatArray
from viprl.utils.state_checks import number_entry
from viprl.utils.state_file import State


class SuccessRate(Predictor):
    """The success rate of all rollouts so far, the same for every prompt.

    Args:
        forgetting_factor: share of the history that a step keeps.
    """

    remembers: ClassVar[bool] = False

    def __init__(self, *, forgetting_factor: float = 0.98) -> None:
        self.forgetting_factor = forgetting_factor
        self._successes, self._rollouts = 1.0, 2.0

    def predict(self, batch: Batch) -> Prediction:
        return Prediction.of_points(np.full(len(batch), self._successes / self._rollouts))

    def observe(self, batch: Batch, successes: FloatArray, rollouts: FloatArray) -> None:
        self._successes = self.forgetting_factor * self._successes + float(successes.sum())
        self._rollouts = self.forgetting_factor * self._rollouts + float(rollouts.sum())

    def state_dict(self) -> State:
        return {"successes": self._successes, "rollouts": self._rollouts}

    def load_state_dict(self, state: State) -> None:
        rollouts = number_entry(state, "rollouts", least=1e-300)
        self._successes, self._rollouts = number_entry(state, "successes", least=0, most=rollouts), rollouts
