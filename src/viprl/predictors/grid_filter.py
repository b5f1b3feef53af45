"""An exact Bayesian filter for the success probability of each prompt.

The latent number of `viprl.predictors.grid_belief` is z with p = sigmoid(z), and at a visit with k successes of n
rollouts the likelihood is p^k (1-p)^(n-k). In one dimension this is exact for counts of any size, for 0 of n and n of
n, and for U-shaped populations. The weight of the allocation is E[p(1-p)] = sum_g b_g p_g (1 - p_g).

The candidate transitions are random walks with a trend, of two kinds. *Steady* walks are the same at every z. In
*learning* walks variance and trend are proportional to 4p(1-p): a policy gradient moves a prompt in proportion to
p(1-p) and hardly changes prompts that are always or never solved.

The text score is the logit of the success probability that the text alone suggests
(`viprl.predictors.text_regression`), which costs O(Q d^2) a step.
"""

from __future__ import annotations

import functools
from typing import ClassVar

import numpy as np

from viprl.predictors.base import Batch, Prediction, Predictor
from viprl.predictors.grid_belief import Grid, GridBelief, walk
from viprl.predictors.text_regression import TextMixture
from viprl.utils.arrays import FloatArray
from viprl.utils.numerics import expit, logit
from viprl.utils.state_checks import entry
from viprl.utils.state_file import State
from viprl.utils.threads import single_threaded

Z = np.linspace(-9.0, 9.0, 31)
STEADY = tuple((variance, trend) for variance in (0.001, 0.01, 0.03, 0.1, 0.3) for trend in (-0.1, 0.0, 0.1))
"""(variance, trend) of z between two visits, the same at every z."""
LEARNING = tuple((variance, trend) for variance in (0.03, 0.1, 0.3, 1.0) for trend in (0.0, 0.3, 1.0))
"""(variance, trend) of z between two visits where p = 1/2."""


@functools.cache
def success_grid() -> Grid:
    """The grid of z = logit p, with a prior of Beta(1/4, 2/5), U-shaped."""
    p = expit(Z)
    density = np.exp(_log_p() / 4 + _log_q() * 2 / 5)  # a Beta density in z is p^a (1-p)^b
    steady, learning = np.ones(len(Z)), 4 * p * (1 - p)
    walks = [walk(Z, *pair, steady) for pair in STEADY] + [walk(Z, *pair, learning) for pair in LEARNING]
    return Grid(Z, np.array(walks), density)


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
        self.belief = GridBelief(
            success_grid(),
            forgetting_factor=forgetting_factor,
            prior_pseudocounts=prior_pseudocounts,
            shrinkage=shrinkage,
        )
        self.text = TextMixture()

    @single_threaded
    def predict(self, batch: Batch) -> Prediction:
        score, p = self._scores(batch), expit(Z)
        belief = self.belief.before(batch.keys, score)
        mean, variance, rms = belief @ p, belief @ (p * (1 - p)), np.sqrt(belief @ (p * (1 - p)) ** 2)
        pseudocounts = variance / np.maximum(mean * (1 - mean) - variance, 1e-9)  # E[p(1-p)] / Var(p)
        return Prediction(mean, variance, score, variance_rms=rms, pseudocounts=pseudocounts)

    @single_threaded
    def observe(self, batch: Batch, successes: FloatArray, rollouts: FloatArray) -> None:
        seen = rollouts > 0
        if not seen.any():
            return
        batch, k, n = batch.select(seen), successes[seen, None], rollouts[seen, None]
        likelihood = k * _log_p() + (n - k) * _log_q()
        likelihood = np.exp(likelihood - likelihood.max(axis=1, keepdims=True))
        self.belief.observe(batch.keys, self._learned_scores(batch, k[:, 0], n[:, 0]), likelihood)

    @single_threaded
    def success_belief(self, batch: Batch) -> tuple[FloatArray, FloatArray] | None:
        return expit(Z), self.belief.before(batch.keys, self._scores(batch))

    def knows(self, batch: Batch) -> np.ndarray:
        return self.belief.knows(batch.keys)

    @single_threaded
    def pass_over(self, batch: Batch) -> None:
        self.belief.pass_over(batch.keys)

    def state_dict(self) -> State:
        return {**self.belief.state_dict(), "text": self.text.state_dict()}

    def load_state_dict(self, state: State) -> None:
        self.belief.load_state_dict(state)
        self.text.load_state_dict(entry(state, "text"))

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


def _log_p() -> FloatArray:
    return -np.logaddexp(0, -Z)


def _log_q() -> FloatArray:
    return -np.logaddexp(0, Z)
