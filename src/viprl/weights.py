"""From success to weight: how much a prompt's rollouts move the gradient, learned from the outcomes themselves.

What a prompt adds to gradient variance is not p(1-p) but E[(r-p)^2 |Z|^2], Z the score of a rollout (docs/method.md).
Prompts differ in it by a factor of ten, since a rare outcome is an unlikely text and unlikely texts have large scores.
|Z| is unknown before the backward pass, but the *surprise* of a rollout is not, and it grows with |Z|^2:

    symbol  meaning                                                                            shape
    v       E[p(1-p)]                                                                          [Q]
    y       measured weight of a group, k(n-k)/(n(n-1)) or that with surprise (viprl.surprise)  [Q]
    s1, s0  mean surprise of a group's right and of its wrong rollouts                          [Q]
    t       logit of what the text alone says of a prompt                                       [Q]
    x       for each kind of prompt (new; all right, all wrong or mixed at its last visit) a
            constant and t; log v, logit E[p], log s1 and log s0 of prompts seen before         [Q, 12]
    b       coefficients: E[y] = v exp(x b)                                                     [12]

b starts at 0, the weight v, and moves with each batch: a Poisson quasi-likelihood, which asks only that the mean be
v exp(x b) and the variance in proportion to it, one Laplace approximation a step, slowly forgotten. New prompts have no
slope on log v: in the first epoch there are no others and v hardly differs, so what fits there would be wrong for the
rest.

Surprise also tells what successes cannot: a group all right with surprise .01 is settled, with surprise 1 it is not.
Without log probabilities only settled prompts, all right or all wrong at their last visit, get coefficients of their
own, held closer to zero: there outcomes say least, and doubt is most often too large or too small (docs/replay.md). The
first surprise starts the regression afresh, with all regressors; later batches without surprise are learned from too.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import logit

from viprl.predictors.protocol import Prediction, RowIndex, State, grown
from viprl.surprise import Surprise, measured_weight
from viprl.variance import FloatArray

COLUMNS = 12
WITHOUT_SURPRISE = [1, 2, 5, 6]
"""Regressors that are used then: constant and text score of prompts all right and all wrong."""
SMALLEST = 1e-3
"""Added to a surprise before its logarithm: a thousandth of the usual one and none are alike."""


class LearnedWeights:
    """The regression above.

    Args:
        memory: of what was learned, a step.
        prior_variance: of each coefficient around its start, without and with surprises.
    """

    def __init__(self, *, memory: float = 0.98, prior_variance: tuple[float, float] = (0.2, 4.0)) -> None:
        self.memory, self.prior_variance = memory, prior_variance
        self._start(surprised=False)
        self._index = RowIndex()
        self._last = np.empty((0, 3), dtype=np.float32)  # success rate, log s1, log s0

    def weigh(self, keys: tuple[str, ...], prediction: Prediction) -> FloatArray:
        """[Q] E[y]; v before anything was seen."""
        if len(self._index) == 0:
            return prediction.reward_variance
        return _exp(_log_variance(prediction) + self._design(keys, prediction) @ self._mean)

    def observe(
        self,
        keys: tuple[str, ...],
        prediction: Prediction,
        successes: FloatArray,
        rollouts: FloatArray,
        surprise: Surprise | None = None,
    ) -> None:
        """Learn from [Q] groups; `prediction` is what was believed of them before, `surprise` is in the unit of
        `viprl.surprise`."""
        if surprise is not None and not self._surprised:
            self._start(surprised=True)
        y = measured_weight(successes, rollouts, surprise)
        usable = ~np.isnan(y)
        if usable.any():
            repeats = rollouts[usable] / rollouts[usable].mean()
            x, offset = self._design(keys, prediction), _log_variance(prediction)
            self._fit(x[usable], offset[usable], y[usable], repeats)
        seen = rollouts > 0
        rows = self._index.add(tuple(key for key, known in zip(keys, seen, strict=True) if known))
        self._last = grown(self._last, len(self._index))
        rate = successes / np.maximum(rollouts, 1)
        right, wrong = np.ones((2, len(rate))) if surprise is None else (surprise.right, surprise.wrong)
        self._last[rows] = np.column_stack([rate, np.log(right + SMALLEST), np.log(wrong + SMALLEST)])[seen]

    def state_dict(self) -> State:
        return {
            "surprised": self._surprised,
            "mean": self._mean.copy(),
            "precision": self._precision.copy(),
            "keys": list(self._index.keys),
            "last": self._last[: len(self._index)].copy(),
        }

    def load_state_dict(self, state: State) -> None:
        self._start(surprised=bool(state["surprised"]))
        self._mean, self._precision = np.array(state["mean"]), np.array(state["precision"])
        self._index, self._last = RowIndex(state["keys"]), np.array(state["last"])

    def _start(self, *, surprised: bool) -> None:
        """The weight v, nothing learned."""
        self._surprised = surprised
        self._ridge = np.eye(COLUMNS) / self.prior_variance[surprised]
        self._mean, self._precision = np.zeros(COLUMNS), self._ridge.copy()

    def _design(self, keys: tuple[str, ...], prediction: Prediction) -> FloatArray:
        """[Q, 12] the regressors x."""
        rows = self._index.find(keys)
        seen = rows >= 0
        last = np.zeros((len(keys), 3))
        last[seen] = self._last[rows[seen]]
        rate, right, wrong = last.T
        p = np.clip(prediction.success_probability, 1e-4, 1 - 1e-4)
        solved, failed = seen & (rate == 1), seen & (rate == 0)
        kind = np.column_stack([~seen, solved, failed, seen & ~solved & ~failed])
        text = np.zeros(len(keys)) if prediction.text_score is None else prediction.text_score / 3
        belief = seen[:, None] * np.column_stack([_log_variance(prediction), logit(p) / 3])
        x = np.column_stack([kind, kind * text[:, None], belief, right, wrong])
        if not self._surprised:
            x[:, np.setdiff1d(np.arange(COLUMNS), WITHOUT_SURPRISE)] = 0.0
        return x

    def _fit(self, x: FloatArray, offset: FloatArray, y: FloatArray, repeats: FloatArray) -> None:
        """Move to the mode of the quasi-posterior by damped Newton steps; `offset` [Q] is log v, and a row counts
        `repeats` [Q] times."""
        start = self._mean
        prior = self.memory * self._precision + (1 - self.memory) * self._ridge

        def loss(mean: FloatArray) -> float:
            z, move = offset + x @ mean, mean - start
            return float(repeats @ (_exp(z) - y * z) + 0.5 * move @ prior @ move)

        mean, value = start, loss(start)
        for _ in range(20):
            rate = repeats * _exp(offset + x @ mean)
            gradient = x.T @ (rate - repeats * y) + prior @ (mean - start)
            step = cho_solve(cho_factor(prior + (x.T * rate) @ x), gradient)
            scale = 1.0
            while (new := loss(mean - scale * step)) > value and scale > 1e-4:
                scale /= 2
            if value - new < 1e-6:
                break
            mean, value = mean - scale * step, new
        self._mean, self._precision = mean, prior + (x.T * (repeats * _exp(offset + x @ mean))) @ x


def _log_variance(prediction: Prediction) -> FloatArray:
    return np.log(np.maximum(prediction.reward_variance, 1e-6))


def _exp(x: FloatArray) -> FloatArray:
    return np.exp(np.clip(x, -30.0, 30.0))
