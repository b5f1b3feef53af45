"""The true success probabilities, in experiments that know them: the bound that others are measured against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from viprl.predictors.base import Batch, Prediction, Predictor
from viprl.utils.arrays import FloatArray
from viprl.utils.state_checks import mapping_entry, number_entry
from viprl.utils.state_file import State


class Oracle(Predictor):
    """Success probabilities set with `tell`, .5 for prompts without one, and reward variances set with `tell_variance`,
    p(1-p) for prompts without one."""

    remembers: ClassVar[bool] = False

    def __init__(self) -> None:
        self._truth: dict[str, float] = {}
        self._variance: dict[str, float] = {}

    def tell(self, truth: Mapping[str, float]) -> None:
        self._truth.update(truth)

    def tell_variance(self, variances: Mapping[str, float]) -> None:
        self._variance.update(variances)

    def predict(self, batch: Batch) -> Prediction:
        p = np.array([self._truth.get(key, 0.5) for key in batch.keys])
        known = [self._variance.get(key, point) for key, point in zip(batch.keys, p * (1 - p), strict=True)]
        return Prediction(p, np.array(known))

    def observe(self, batch: Batch, successes: FloatArray, rollouts: FloatArray) -> None:
        """Outcomes change nothing."""

    def state_dict(self) -> State:
        return {"truth": dict(self._truth), "variance": dict(self._variance)}

    def load_state_dict(self, state: State) -> None:
        truth, variance = mapping_entry(state, "truth"), mapping_entry(state, "variance")
        self._variance = {key: number_entry(variance, key, least=0) for key in variance}
        self._truth = {key: number_entry(truth, key, least=0, most=1) for key in truth}
