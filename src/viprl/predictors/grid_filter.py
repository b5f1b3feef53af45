"""The default predictor: an exact Bayesian filter for each prompt, with drift, prior and text learned online.

    symbol  meaning                                                                        shape
    z       grid of latent success, p = sigmoid(z)                                          [G]
    b       belief about the z of a prompt, given all its outcomes                          [N, G]
    T_c     candidate transitions: how z moves between two visits                           [c, G, G]
    w       weight of each candidate: how well it has predicted the outcomes                [c]
    t       text score of a prompt: the logit of what its text alone suggests               [N]
    h       mean belief of the prompts at each of R levels of t                             [R, G]

At a visit with k successes of n rollouts:

    drift       b <- sum_c w_c b T_c
    likelihood  b <- b p^k (1-p)^(n-k), normalised

In one dimension this is exact for counts of any size, for 0 of n and n of n, and for U-shaped populations. The weight
of the allocation is E[p(1-p)] = sum_g b_g p_g (1 - p_g).

The candidates are random walks with a trend, of two kinds. *Steady* walks are the same at every z. In *learning* walks
variance and trend are proportional to 4p(1-p): a policy gradient moves a prompt in proportion to p(1-p) and hardly
changes prompts that are always or never solved.

The prior of a new prompt is the mean belief of the prompts with a similar text score, h(t), shrunk towards the mean
belief of all prompts. An uninformative text therefore falls back to the population's prior, and an informative one is
calibrated by the outcomes of similar prompts. When the text score of a prompt changes later, because similar prompts
were observed, its belief is multiplied by h(t_new)/h(t_old): the old prior is replaced by the new one.

A step costs O(Q G^2 c), and O(Q d^2) for the text. Memory is N (G + 1) numbers of 4 bytes.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from viprl.errors import StateError
from viprl.predictors.base import Batch, Prediction, Predictor
from viprl.predictors.table import RowIndex, grown
from viprl.predictors.text_regression import TextMixture
from viprl.utils.arrays import FloatArray
from viprl.utils.numerics import expit, logit
from viprl.utils.state_checks import array_entry, entry, keys_entry
from viprl.utils.state_file import State
from viprl.utils.threads import single_threaded

GRID = np.linspace(-9.0, 9.0, 31)
STEADY = tuple((variance, trend) for variance in (0.001, 0.01, 0.03, 0.1, 0.3) for trend in (-0.1, 0.0, 0.1))
"""(variance, trend) of z between two visits, the same at every z."""
LEARNING = tuple((variance, trend) for variance in (0.03, 0.1, 0.3, 1.0) for trend in (0.0, 0.3, 1.0))
"""(variance, trend) of z between two visits where p = 1/2."""
SCORES = np.linspace(-5.0, 5.0, 9)
"""Levels of the text score; h is interpolated between two of them."""


class GridFilter(Predictor):
    """An exact Bayesian filter for each prompt on a grid of success probabilities.

    The drift between visits, the prior of new prompts and the influence of their text are learned from the outcomes.
    Equations: `viprl.predictors.grid_filter`. Without features the population's prior serves every new prompt.

    Args:
        forgetting_factor: share of the log weights of the transitions that a step keeps.
        prior_pseudocounts: prompts that the prior before any data counts as; it is a Beta(1/4, 2/5), U-shaped.
        shrinkage: prompts that the population counts as at each level of the text score.
    """

    features: ClassVar[str | None] = "minilm+length"

    def __init__(
        self, *, forgetting_factor: float = 0.95, prior_pseudocounts: float = 20.0, shrinkage: float = 2.0
    ) -> None:
        self.forgetting_factor, self.shrinkage = forgetting_factor, shrinkage
        self.prior_pseudocounts = prior_pseudocounts
        self.text = TextMixture()
        self._p = expit(GRID)
        self._log_p, self._log_q = -np.logaddexp(0, -GRID), -np.logaddexp(0, GRID)
        start = np.exp(self._log_p / 4 + self._log_q * 2 / 5)  # a Beta density in z is p^a (1-p)^b
        self._start = prior_pseudocounts * start / start.sum()
        steady, learning = np.ones(len(GRID)), 4 * self._p * (1 - self._p)
        self._walks = np.array(
            [_walk(*pair, steady) for pair in STEADY] + [_walk(*pair, learning) for pair in LEARNING]
        )
        self._log_weights = np.zeros(len(self._walks))
        self._index = RowIndex()
        self._belief = np.empty((0, len(GRID)), dtype=np.float32)
        self._score = np.empty(0, dtype=np.float32)
        self._histograms = np.zeros((len(SCORES), len(GRID)))

    @single_threaded
    def predict(self, batch: Batch) -> Prediction:
        rows = self._index.find(batch.keys)
        score = self._scores(batch)
        belief = self._drifted(self._before(rows, score), rows >= 0)
        return Prediction(belief @ self._p, belief @ (self._p * (1 - self._p)), score)

    @single_threaded
    def observe(self, batch: Batch, successes: FloatArray, rollouts: FloatArray) -> None:
        seen = rollouts > 0
        if not seen.any():
            return
        batch, k, n = batch.select(seen), successes[seen, None], rollouts[seen, None]
        score = self._learned_scores(batch, k[:, 0], n[:, 0])
        rows = self._index.find(batch.keys)
        known = rows >= 0
        before = self._before(rows, score)
        likelihood = k * self._log_p + (n - k) * self._log_q
        likelihood = np.exp(likelihood - likelihood.max(axis=1, keepdims=True))
        # the floor keeps every z possible
        belief = _normalised(np.maximum(self._drifted(before, known), 1e-30) * likelihood)
        self._weigh_walks(before[known], likelihood[known])
        self._histograms -= _membership(self._score[rows[known]]).T @ self._belief[rows[known]]
        rows = self._index.add(batch.keys)
        self._belief, self._score = grown(self._belief, len(self._index)), grown(self._score, len(self._index))
        self._belief[rows], self._score[rows] = belief, score
        self._histograms += _membership(self._score[rows]).T @ self._belief[rows]
        np.maximum(self._histograms, 0.0, out=self._histograms)  # subtracting what was added can round below 0

    def state_dict(self) -> State:
        used = len(self._index)
        return {
            "keys": list(self._index.keys),
            "belief": self._belief[:used].copy(),
            "score": self._score[:used].copy(),
            "histograms": self._histograms.copy(),
            "log_weights": self._log_weights.copy(),
            "text": self.text.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        keys = keys_entry(state)
        belief = array_entry(state, "belief", len(keys), len(GRID), least=0, dtype=np.float32)
        if not belief.any(axis=1).all():
            raise StateError("the entry 'belief' has a row without any probability")
        score = array_entry(state, "score", len(keys), dtype=np.float32)
        histograms = array_entry(state, "histograms", len(SCORES), len(GRID), least=0)
        log_weights = array_entry(state, "log_weights", len(self._walks))
        self.text.load_state_dict(entry(state, "text"))
        self._index, self._belief, self._score = RowIndex(keys), belief, score
        self._histograms, self._log_weights = histograms, log_weights

    def _before(self, rows: np.ndarray, score: FloatArray) -> FloatArray:
        """[Q, G] belief at the last visit, with the prior that the text suggests now; for new prompts that prior."""
        known = rows >= 0
        belief = self._prior(score)
        if known.any():
            exchanged = self._belief[rows[known]] * belief[known] / self._prior(self._score[rows[known]])
            belief[known] = _normalised(exchanged)
        return belief

    def _drifted(self, belief: FloatArray, known: np.ndarray) -> FloatArray:
        """[Q, G] belief after the drift since the last visit; new prompts have not drifted."""
        weights = _normalised(np.exp(self._log_weights - self._log_weights.max()))
        return np.where(known[:, None], belief @ np.tensordot(weights, self._walks, axes=1), belief)

    def _weigh_walks(self, belief: FloatArray, likelihood: FloatArray) -> None:
        """Update the weight of each candidate with its likelihood for the outcomes of prompts seen before."""
        moved = np.tensordot(belief, self._walks, axes=(1, 1))  # [Q, c, G], one matrix product
        predicted = np.einsum("qcg,qg->cq", moved, likelihood)
        self._log_weights = self.forgetting_factor * self._log_weights + np.log(np.maximum(predicted, 1e-300)).sum(
            axis=1
        )
        self._log_weights -= self._log_weights.max()

    def _scores(self, batch: Batch) -> FloatArray:
        """[Q] logit of what the text alone predicts; 0 without features or before anything is known."""
        if batch.features is None:
            return np.zeros(len(batch))
        return logit(self.text.predict(batch.features)).astype(np.float32)

    def _learned_scores(self, batch: Batch, k: FloatArray, n: FloatArray) -> FloatArray:
        """`_scores`, and then let the text regressions learn from the outcomes."""
        if batch.features is None:
            return np.zeros(len(batch))
        return logit(self.text.observe(batch.features, k, n, prior_pseudocounts=1.0)).astype(np.float32)

    def _prior(self, score: FloatArray) -> FloatArray:
        """[Q, G] mean belief of the prompts with similar scores."""
        population = _normalised(self._start + self._histograms.sum(axis=0))
        return _membership(score) @ _normalised(self._histograms + self.shrinkage * population)


def _walk(variance: float, trend: float, rate: FloatArray) -> FloatArray:
    """[G, G] the transition of one visit: steps to neighbouring points of mean `trend` and variance `variance`, both
    times `rate` [G]. If the variance is too small for the trend, no step goes back and half of the trend remains."""
    gap = GRID[1] - GRID[0]
    steps = max(1, int(np.ceil((variance / gap**2 + abs(trend) / gap) / 0.9)))
    spread, shift = rate * variance / steps / (2 * gap**2), rate * trend / steps / (2 * gap)
    up, down = np.maximum(spread + shift, 0.0), np.maximum(spread - shift, 0.0)
    single = np.diag(up[:-1], 1) + np.diag(down[1:], -1)
    single += np.diag(1 - single.sum(axis=1))
    return np.linalg.matrix_power(single, steps)


def _membership(score: FloatArray) -> FloatArray:
    """[Q, R] weights of the two levels around each score, sum 1."""
    gap = SCORES[1] - SCORES[0]
    inside = np.clip(np.asarray(score, dtype=float), SCORES[0], SCORES[-1])
    return np.maximum(1 - np.abs(inside[:, None] - SCORES) / gap, 0.0)


def _normalised(weights: FloatArray) -> FloatArray:
    """Rows of sum 1."""
    return weights / weights.sum(axis=-1, keepdims=True)
