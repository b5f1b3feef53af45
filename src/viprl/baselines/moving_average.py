"""Moving average of each prompt's success rate: a predictor ablation of arXiv 2602.01601.

    p <- p + r (k/n - p),  r = .3

A point prediction: the paper's allocation gets p(1-p) as it is, so a prompt whose rollouts were all wrong or all right
so far has weight 0 and keeps L rollouts until one of those differs.

Chosen here: r = .3; the first visit sets p = k/n (started from .5 instead, visits 2 to 5 of a real run lose more than
half of what they gain); a visit counts the same whatever n; p = .5 for a prompt never seen.
"""

from __future__ import annotations

import numpy as np

from viprl.predictors.base import Batch, Prediction, Predictor
from viprl.predictors.table import PromptTable
from viprl.utils.arrays import FloatArray
from viprl.utils.state_file import State


class MovingAverage(Predictor):
    """The average above, one number a prompt."""

    def __init__(self, *, rate: float = 0.3) -> None:
        if not 0 < rate <= 1:
            raise ValueError(f"rate is {rate}; expected a number in (0, 1], the weight of the latest visit")
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
