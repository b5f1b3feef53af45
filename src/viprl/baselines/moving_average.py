"""Moving average of each prompt's success rate: a predictor ablation of arXiv 2602.01601.

    p <- p + r (k/n - p),  r = .3

A point prediction: a prompt whose rollouts were all wrong or all right so far has weight p(1-p) = 0 and keeps L
rollouts until one of them differs.

Chosen here: r = .3; the first visit sets p = k/n (starting from .5 instead loses more than half of the gain at visits 2
to 5 of a real run); all visits have the same weight, whatever n; p = .5 for a prompt never seen.
"""

from __future__ import annotations

import numpy as np

from viprl.errors import InputError
from viprl.predictors.base import Batch, Prediction, Predictor
from viprl.predictors.table import PromptTable
from viprl.utils.arrays import FloatArray
from viprl.utils.state_file import State


class MovingAverage(Predictor):
    """Moving average of the success rate of each prompt, one number a prompt.

    Args:
        rate: r, the weight of the latest visit, in (0, 1].
    """

    def __init__(self, *, rate: float = 0.3) -> None:
        if not 0 < rate <= 1:
            raise InputError(f"rate is {rate}; expected a number in (0, 1]")
        self.rate = rate
        self._average = PromptTable([0.5])

    def predict(self, batch: Batch) -> Prediction:
        return Prediction.of_points(self._average.read(batch.keys)[:, 0])

    def observe(self, batch: Batch, successes: FloatArray, rollouts: FloatArray) -> None:
        latest = successes / np.maximum(rollouts, 1)
        average = self._average.read(batch.keys)[:, 0]
        moved = average + np.where(self._average.knows(batch.keys), self.rate, 1.0) * (latest - average)
        self._average.write(batch.keys, moved[:, None], rollouts > 0)

    def state_dict(self) -> State:
        return self._average.state_dict()

    def load_state_dict(self, state: State) -> None:
        self._average.load_state_dict(state)
