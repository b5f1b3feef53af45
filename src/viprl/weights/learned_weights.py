"""From success to weight: how much a prompt's rollouts move the gradient, learned from the outcomes themselves.

What a prompt adds to the gradient variance is not p(1-p) but E[(r-p)^2 |Z|^2], Z the score of a rollout. Prompts differ
in it by a factor of ten, since a rare outcome is an unlikely text and unlikely texts have large scores. |Z| is unknown
before the backward pass, but the *surprisal* of a rollout is known, and it grows with |Z|^2.

    symbol  meaning                                                                              shape
    v       E[p(1-p)]                                                                            [Q]
    y       measured weight of a group (`viprl.weights.surprisal`)                               [Q]
    s1, s0  mean surprisal of the right and of the wrong rollouts of a group                     [Q]
    t       text score: the logit of what the text alone says of a prompt                        [Q]
    x       for each kind of prompt (new; all right, all wrong or mixed at its last visit) a
            constant and t; log v, logit E[p], log s1 and log s0 of prompts seen before          [Q, 12]
    b       coefficients: E[y] = v exp(x b)                                                      [12]

b starts at 0, the weight v, and moves with each batch: a Poisson quasi-likelihood, which assumes only that the mean is
v exp(x b) and that the variance is proportional to it, with one Laplace approximation a step and slow forgetting. New
prompts have no slope on log v: in the first epoch v hardly differs between them, and a slope fitted there would be
wrong for the others.

Surprisal adds what successes cannot say: a group that is all right with surprisal .01 is settled, with surprisal 1 it
is not. Without log probabilities only prompts that were all right or all wrong at their last visit get coefficients,
with a narrower prior: there outcomes say least, and E[p(1-p)] is most often too large or too small. The first log
probabilities start the regression afresh with all regressors; later batches without them are learned from too.
"""

from __future__ import annotations

import numpy as np

from viprl.predictors.base import Prediction
from viprl.predictors.table import RowIndex, grown
from viprl.reward_groups import GroupOutcomes
from viprl.utils.arrays import FloatArray
from viprl.utils.numerics import laplace, logit
from viprl.utils.state_checks import array_entry, flag_entry, keys_entry, precision_entry
from viprl.utils.state_file import State
from viprl.weights.surprisal import Surprisal, measured_weight

COLUMNS = 12
WITHOUT_SURPRISAL = [1, 2, 5, 6]
"""Regressors used without log probabilities: constant and text score of prompts all right and all wrong."""
SMALLEST = 1e-3
"""Added to a surprisal before its logarithm."""


class LearnedWeights:
    """Variance weights by regression on what is known of each prompt.

    Equations: `viprl.weights.learned_weights`.

    Args:
        forgetting_factor: share of the precision of the coefficients that a step keeps.
        prior_variance: of each coefficient, without and with log probabilities.
    """

    def __init__(self, *, forgetting_factor: float = 0.98, prior_variance: tuple[float, float] = (0.2, 4.0)) -> None:
        self.forgetting_factor, self.prior_variance = forgetting_factor, prior_variance
        self._start(surprised=False)
        self._index = RowIndex()
        self._last = np.empty((0, 3), dtype=np.float32)  # success rate, log s1, log s0

    def weigh(self, keys: tuple[str, ...], prediction: Prediction) -> FloatArray:
        """[Q] E[y] of the prompts `keys`; v before anything was seen."""
        if len(self._index) == 0:
            return prediction.reward_variance
        return _exp(_log_variance(prediction) + self._design(keys, prediction) @ self._mean)

    def observe(
        self,
        keys: tuple[str, ...],
        prediction: Prediction,
        outcomes: GroupOutcomes,
        surprisal: Surprisal | None = None,
    ) -> None:
        """Learn from [Q] groups.

        Args:
            keys: [Q] identities, distinct.
            prediction: what was predicted of them before.
            outcomes: what they showed.
            surprisal: in units, see `Surprisal.in_units`.
        """
        if surprisal is not None and not self._surprised:
            self._start(surprised=True)
        rollouts = outcomes.rollouts
        y = measured_weight(outcomes, surprisal)
        usable = ~np.isnan(y)
        if usable.any():
            repeats = rollouts[usable] / rollouts[usable].mean()
            x, offset = self._design(keys, prediction), _log_variance(prediction)
            self._fit(x[usable], offset[usable], y[usable], repeats)
        seen = rollouts > 0
        rows = self._index.add(tuple(key for key, known in zip(keys, seen, strict=True) if known))
        self._last = grown(self._last, len(self._index))
        rate = outcomes.successes / np.maximum(rollouts, 1)
        # a group of equal rewards is settled at one end, whatever its rewards are
        rate = np.where(outcomes.constant, rate > 0.5, np.clip(rate, 1e-3, 1 - 1e-3))
        right, wrong = np.ones((2, len(rate))) if surprisal is None else (surprisal.right, surprisal.wrong)
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
        keys = keys_entry(state)
        last = array_entry(state, "last", len(keys), 3, dtype=np.float32)
        mean, precision = array_entry(state, "mean", COLUMNS), precision_entry(state, "precision", COLUMNS)
        self._start(surprised=flag_entry(state, "surprised"))
        self._mean, self._precision, self._index, self._last = mean, precision, RowIndex(keys), last

    def _start(self, *, surprised: bool) -> None:
        """The weight v, nothing learned."""
        self._surprised = surprised
        self._prior_precision = np.eye(COLUMNS) / self.prior_variance[surprised]
        self._mean, self._precision = np.zeros(COLUMNS), self._prior_precision.copy()

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
            x[:, np.setdiff1d(np.arange(COLUMNS), WITHOUT_SURPRISAL)] = 0.0
        return x

    def _fit(self, x: FloatArray, offset: FloatArray, y: FloatArray, repeats: FloatArray) -> None:
        """Move to the posterior. `offset` [Q] is log v, and a row counts `repeats` [Q] times."""
        prior = self.forgetting_factor * self._precision + (1 - self.forgetting_factor) * self._prior_precision

        def loss(z: FloatArray) -> float:
            return float(repeats @ (_exp(offset + z) - y * (offset + z)))

        def derivatives(z: FloatArray) -> tuple[FloatArray, FloatArray]:
            rate = repeats * _exp(offset + z)
            return rate - repeats * y, rate

        self._mean, self._precision = laplace(self._mean, prior, x, loss, derivatives)


def _log_variance(prediction: Prediction) -> FloatArray:
    return np.log(np.maximum(prediction.reward_variance, 1e-6))


def _exp(x: FloatArray) -> FloatArray:
    return np.exp(np.clip(x, -30.0, 30.0))
