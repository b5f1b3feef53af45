"""The true success probabilities, in experiments that know them: the bound that others are measured against."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from viprl.predictors.base import Batch, Prediction, Predictor
from viprl.utils.arrays import FloatArray
from viprl.utils.state_checks import mapping_entry, number_entry
from viprl.utils.state_file import State


class Oracle(Predictor):
    """Success probabilities set with `tell`; .5 for prompts without one."""

    def __init__(self) -> None:
        self._truth: dict[str, float] = {}

    def tell(self, truth: Mapping[str, float]) -> None:
        self._truth.update(truth)

    def predict(self, batch: Batch) -> Prediction:
        return Prediction.of_points(np.array([self._truth.get(key, 0.5) for key in batch.keys]))

    def observe(self, batch: Batch, successes: FloatArray, rollouts: FloatArray) -> None:
        """Outcomes change nothing."""

    def state_dict(self) -> State:
        return {"truth": dict(self._truth)}

    def load_state_dict(self, state: State) -> None:
        truth = mapping_entry(state, "truth")
        self._truth = {key: number_entry(truth, key, least=0, most=1) for key in truth}
