"""Ridge regression on prompt features: a predictor ablation of arXiv 2602.01601.

    p(x) = sigmoid(w x + c),   (w, c) = argmin  sum over all visits  (w x + c - g_hat)^2  +  alpha |(w, c)|^2
    g_hat = logit clip(k/n, eps, 1 - eps)

Solved exactly from the sums of x x^T and x g_hat, so a step costs Q d^2 + d^3 and no prompt is stored: two prompts with
equal features are the same.

The paper gives no detail. Chosen here: the target is the one of its Gaussian process, with the same eps = .05, so that
only the model differs; alpha = 1 (MiniLM vectors have length 1); the intercept is penalised like the rest, so that
p = .5 at the start; all visits have the same weight.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from viprl.errors import InputError, StateError
from viprl.predictors.base import Batch, Prediction, Predictor
from viprl.utils.arrays import FloatArray
from viprl.utils.numerics import expit, logit
from viprl.utils.state_checks import array_entry, entry
from viprl.utils.state_file import State


class RidgeRegression(Predictor):
    """Ridge regression of the logit of the success rate on prompt features.

    Args:
        penalty: alpha.
        clip: eps, success rates are clipped to [eps, 1 - eps].
    """

    features: ClassVar[str | None] = "minilm"
    needs_features: ClassVar[bool] = True

    def __init__(self, *, penalty: float = 1.0, clip: float = 0.05) -> None:
        self.penalty, self.clip = penalty, clip
        self._gram: FloatArray | None = None  # [d+1, d+1] sum of x x^T
        self._moment = np.empty(0)  # [d+1] sum of x g_hat
        self._weights = np.empty(0)  # [d+1] derived from the two, so never saved

    def predict(self, batch: Batch) -> Prediction:
        x = self._design(batch)
        return Prediction.of_points(expit(x @ self._weights) if self._gram is not None else np.full(len(x), 0.5))

    def observe(self, batch: Batch, successes: FloatArray, rollouts: FloatArray) -> None:
        seen = rollouts > 0
        if not seen.any():
            return
        x = self._design(batch)[seen]
        observed = logit(np.clip(successes[seen] / rollouts[seen], self.clip, 1 - self.clip))  # g_hat
        if self._gram is None:
            self._gram, self._moment = np.zeros((x.shape[1], x.shape[1])), np.zeros(x.shape[1])
        self._gram = self._gram + x.T @ x
        self._moment = self._moment + x.T @ observed
        self._solve()

    def _solve(self) -> None:
        from scipy.linalg import cho_factor, cho_solve

        if self._gram is not None:
            regular = self._gram + self.penalty * np.eye(len(self._gram))
            self._weights = cho_solve(cho_factor(regular, lower=True), self._moment)

    def _design(self, batch: Batch) -> FloatArray:
        """[Q, d + 1] features with a column of ones."""
        if batch.features is None:
            raise InputError("ridge regression needs prompt features, but features is None; set features='minilm'")
        x = np.column_stack([np.asarray(batch.features, dtype=float), np.ones(len(batch))])
        if self._gram is not None and x.shape[1] != len(self._gram):
            raise StateError(
                f"features have {x.shape[1] - 1} columns, but the regression was trained on {len(self._gram) - 1}; "
                "use the same features as before"
            )
        return x

    def state_dict(self) -> State:
        return {"gram": self._gram, "moment": self._moment.copy()}

    def load_state_dict(self, state: State) -> None:
        moment = array_entry(state, "moment", None)
        self._gram = None if entry(state, "gram") is None else array_entry(state, "gram", len(moment), len(moment))
        self._moment = moment
        self._solve()
