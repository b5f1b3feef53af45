"""DynaMO's priority of each prompt from its counts so far (arXiv 2602.19208).

    priority = 4 p(1-p), p = successes / rollouts of all visits;  .01 at least,  .01 where p >= .85,  1 if unseen

The rule `proportional_to_variance` then fills the budget in proportion. A quarter of the priority is what is given as
the reward variance: DynaMO's claim about p(1-p), with its floor and its ceiling.

Chosen here: counts of all visits weigh the same, and one visit is enough to be seen (the paper explores each prompt
for a number of rollouts first; L rollouts are the least here anyway). E[p] of an unseen prompt is .5.
"""

from __future__ import annotations

import numpy as np

from viprl.predictors.base import Batch, Prediction, Predictor
from viprl.predictors.table import PromptTable
from viprl.utils.arrays import FloatArray
from viprl.utils.state_file import State


class CountPriority(Predictor):
    """The priority above."""

    def __init__(self, *, floor: float = 0.01, mastered: float = 0.85) -> None:
        self.floor, self.mastered = floor, mastered
        self._counts = PromptTable([0.0, 0.0])  # successes, rollouts

    def predict(self, batch: Batch) -> Prediction:
        successes, rollouts = self._counts.read(batch.keys).T
        p = np.where(rollouts > 0, successes / np.maximum(rollouts, 1), 0.5)
        priority = np.where(p >= self.mastered, self.floor, np.maximum(4 * p * (1 - p), self.floor))
        return Prediction(p, priority / 4)

    def observe(self, batch: Batch, successes: FloatArray, rollouts: FloatArray) -> None:
        counts = self._counts.read(batch.keys) + np.column_stack([successes, rollouts])
        self._counts.write(batch.keys, counts, rollouts > 0)

    def state_dict(self) -> State:
        return self._counts.state_dict()

    def load_state_dict(self, state: State) -> None:
        self._counts.load_state_dict(state)
