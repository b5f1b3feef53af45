"""A predictor that is told the truth: the bound that others are measured against, in experiments where it is known."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from viprl.predictors.protocol import Batch, Prediction, Predictor, State
from viprl.variance import FloatArray


class Oracle(Predictor):
    """Success probabilities set from outside by `tell`; .5 where nothing was told."""

    uses_features = False

    def __init__(self) -> None:
        self._truth: dict[str, float] = {}

    def tell(self, truth: Mapping[str, float]) -> None:
        """Set the true success probability of prompts, by identity."""
        self._truth.update(truth)

    def predict(self, batch: Batch) -> Prediction:
        return Prediction.of_points(np.array([self._truth.get(key, 0.5) for key in batch.keys]))

    def observe(self, batch: Batch, successes: FloatArray, rollouts: FloatArray) -> None:
        """Outcomes tell an oracle nothing."""

    def state_dict(self) -> State:
        return {"truth": dict(self._truth)}

    def load_state_dict(self, state: State) -> None:
        self._truth = {key: float(p) for key, p in state["truth"].items()}
