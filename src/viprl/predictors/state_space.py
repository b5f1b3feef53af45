"""The default predictor: an exact Bayesian filter for each prompt; drift, prior and text are learned on the way.

    symbol  meaning                                                                        shape
    z       grid of latent success, p = sigmoid(z)                                          [G]
    b       belief about a prompt's z, given all its outcomes                               [N, G]
    T_c     candidates for how z moves between two visits                                   [c, G, G]
    w       log weight of each candidate: how well it predicted the outcomes, forgotten slowly  [c]
    t       what the text alone says of a prompt: the logit of its regressions              [N]
    h       for each of R levels of t, the mean belief of the prompts there                 [R, G]

At a visit with k successes of n rollouts:

    drift       b <- sum_c w_c b T_c
    likelihood  b <- b p^k (1-p)^n-k, normalised

No approximation is left in one dimension: counts of any size, 0 of n, n of n and the U-shape of real success rates are
handled exactly, and the weight of the allocation is E[p(1-p)] = sum_g b_g p_g (1 - p_g).

Candidates are random walks with a trend, of two kinds: the same at every z, and *learning*, whose variance and trend
are in proportion to 4p(1-p), because a policy gradient moves a prompt in proportion to p(1-p) and leaves those alone
that are always or never solved.

The prior of a new prompt is the mean belief of the prompts with a similar text score, h(t), shrunk to that of all
prompts. So a text that tells nothing gives everybody the population's prior, and what it tells is calibrated by what
became of such prompts before. When the regressions later think otherwise of a prompt (its neighbours were solved
meanwhile), its belief is multiplied by h(t_new)/h(t_old): the old prior is exchanged for the new one.

Cost of a step: O(Q G^2 c) and the text's O(Q d^2); memory N (G + 1) numbers of 4 bytes. Neither grows otherwise.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit

from viprl.predictors.protocol import Batch, Prediction, Predictor, RowIndex, State, grown
from viprl.predictors.text import TextMixture
from viprl.threads import single_threaded
from viprl.variance import FloatArray

GRID = np.linspace(-9.0, 9.0, 31)
STEADY = tuple((variance, trend) for variance in (0.001, 0.01, 0.03, 0.1, 0.3) for trend in (-0.1, 0.0, 0.1))
"""(variance, trend) of z between two visits, the same everywhere."""
LEARNING = tuple((variance, trend) for variance in (0.03, 0.1, 0.3, 1.0) for trend in (0.0, 0.3, 1.0))
"""(variance, trend) of z between two visits where p = 1/2."""
SCORES = np.linspace(-5.0, 5.0, 9)
"""Levels of the text score; between two of them the histograms are interpolated."""


class StateSpace(Predictor):
    """The filter above.

    Args:
        text: learn from features; without, the population's prior serves every new prompt.
        memory: of the candidates' weights, a step.
        strength: prompts that the prior before any data counts as; it is a Beta(1/4, 2/5), U-shaped.
        shrinkage: prompts that the population counts as at each level of the text score.
    """

    def __init__(
        self, *, text: bool = True, memory: float = 0.95, strength: float = 20.0, shrinkage: float = 2.0
    ) -> None:
        self.uses_features = text
        self.memory, self.shrinkage = memory, shrinkage
        self.text = TextMixture() if text else None
        self._p = expit(GRID)
        self._log_p, self._log_q = -np.logaddexp(0, -GRID), -np.logaddexp(0, GRID)
        start = np.exp(self._log_p / 4 + self._log_q * 2 / 5)  # a Beta density in z has p^a (1-p)^b
        self._start = strength * start / start.sum()
        everywhere, at_work = np.ones(len(GRID)), 4 * self._p * (1 - self._p)
        self._walks = np.array(
            [_walk(*pair, everywhere) for pair in STEADY] + [_walk(*pair, at_work) for pair in LEARNING]
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
        # the floor leaves something of every z, so that what was impossible can happen
        belief = _normalised(np.maximum(self._drifted(before, known), 1e-30) * likelihood)
        self._weigh_walks(before[known], likelihood[known])
        self._histograms -= _membership(self._score[rows[known]]).T @ self._belief[rows[known]]
        rows = self._index.add(batch.keys)
        self._belief, self._score = grown(self._belief, len(self._index)), grown(self._score, len(self._index))
        self._belief[rows], self._score[rows] = belief, score
        self._histograms += _membership(self._score[rows]).T @ self._belief[rows]
        np.maximum(self._histograms, 0.0, out=self._histograms)  # what was added is taken away again, up to rounding

    def state_dict(self) -> State:
        used = len(self._index)
        return {
            "keys": list(self._index.keys),
            "belief": self._belief[:used].copy(),
            "score": self._score[:used].copy(),
            "histograms": self._histograms.copy(),
            "log_weights": self._log_weights.copy(),
            "text": self.text.state_dict() if self.text is not None else None,
        }

    def load_state_dict(self, state: State) -> None:
        if (state["text"] is None) != (self.text is None):
            had, has = ("with", "without") if state["text"] is not None else ("without", "with")
            raise ValueError(
                f"the saved predictor learned {had} features, this one is {has}; use the same `features` as before"
            )
        self._index = RowIndex(state["keys"])
        self._belief, self._score = np.array(state["belief"]), np.array(state["score"])
        self._histograms, self._log_weights = np.array(state["histograms"]), np.array(state["log_weights"])
        if self.text is not None:
            self.text.load_state_dict(state["text"])

    def _before(self, rows: np.ndarray, score: FloatArray) -> FloatArray:
        """[Q, G] belief at the last visit, under the prior that the text suggests now; for new prompts that prior."""
        known = rows >= 0
        belief = self._prior(score)
        if known.any():
            exchanged = self._belief[rows[known]] * belief[known] / self._prior(self._score[rows[known]])
            belief[known] = _normalised(exchanged)
        return belief

    def _drifted(self, belief: FloatArray, known: np.ndarray) -> FloatArray:
        """[Q, G] belief after the time between two visits; new prompts have had none."""
        weights = _normalised(np.exp(self._log_weights - self._log_weights.max()))
        return np.where(known[:, None], belief @ np.tensordot(weights, self._walks, axes=1), belief)

    def _weigh_walks(self, belief: FloatArray, likelihood: FloatArray) -> None:
        """Add to each candidate's weight how well it predicted the outcomes of prompts seen before."""
        moved = np.tensordot(belief, self._walks, axes=(1, 1))  # [Q, c, G], one matrix product
        predicted = np.einsum("qcg,qg->cq", moved, likelihood)
        self._log_weights = self.memory * self._log_weights + np.log(np.maximum(predicted, 1e-300)).sum(axis=1)
        self._log_weights -= self._log_weights.max()

    def _scores(self, batch: Batch) -> FloatArray:
        """[Q] logit of what the text alone predicts, 0 before anything is known of it."""
        if self.text is None or batch.features is None:
            return np.zeros(len(batch))
        return logit(self.text.predict(batch.features)).astype(np.float32)

    def _learned_scores(self, batch: Batch, k: FloatArray, n: FloatArray) -> FloatArray:
        """`_scores`, before the text regressions learn from the outcomes, as it does here."""
        if self.text is None or batch.features is None:
            return np.zeros(len(batch))
        return logit(self.text.observe(batch.features, k, n, strength=1.0)).astype(np.float32)

    def _prior(self, score: FloatArray) -> FloatArray:
        """[Q, G] mean belief of the prompts with similar scores."""
        population = _normalised(self._start + self._histograms.sum(axis=0))
        return _membership(score) @ _normalised(self._histograms + self.shrinkage * population)


def _walk(variance: float, trend: float, rate: FloatArray) -> FloatArray:
    """[G, G] one visit's transition: steps to neighbouring points, of mean `trend` and variance `variance`, both times
    `rate` [G]. Where the variance is too small to carry the trend, nobody steps back and half of the trend remains."""
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
