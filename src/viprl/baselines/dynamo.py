"""DynaMO's priority of each prompt from its counts so far (arXiv 2602.19208).

    priority = 4 p(1-p), p = successes / rollouts of all visits;  .01 at least,  .01 where p >= .85,  1 if unseen

The rule `ProportionalToVariance` fills the budget in proportion. The predictor passes a quarter of the priority as the
reward variance, so that it stands for p(1-p) with a floor and a ceiling.

Chosen here: the counts of all visits have the same weight, and one visit is enough (the paper first explores each
prompt with a number of rollouts). E[p] of an unseen prompt is .5.
"""

from __future__ import annotations

import numpy as np

from viprl.predictors.base import Batch, Prediction, Predictor
from viprl.predictors.table import PromptTable
from viprl.utils.arrays import FloatArray
from viprl.utils.state_file import State


class CountPriority(Predictor):
    """The priority of each prompt by its counts so far (DynaMO, arXiv 2602.19208).

    Equations: `viprl.baselines.dynamo`.

    Args:
        floor: smallest priority.
        mastered: success rate from which on a prompt has the smallest priority.
    """

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
