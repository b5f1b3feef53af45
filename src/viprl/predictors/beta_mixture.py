"""The first default: discounted Beta counts of each prompt under a mixture of priors that the stream weights.

    symbol  meaning                                                              shape
    k, n    successes and scorable rollouts of a visit                           [Q]
    s, f    discounted successes and failures of a prompt                        [N, J], one column a discount
    mu      mean of the prior of a prompt: a level shared by all, or its text's  [Q, M]
    kappa   strength of the prior in rollouts; below 2 it is U-shaped            [S]
    w       log weight of each member (discount, mean, strength)                 [J, M, S]

Every member says p ~ Beta(kappa mu + s, kappa (1 - mu) + f): the conjugate posterior of binomial counts, with slow
forgetting at each visit (s <- discount (s + k)). So each knows how little a few rollouts tell, and
E[p(1-p)] = ab / ((a+b)(a+b+1)). Members are weighted by how well they predicted the outcomes so far (their
beta-binomial likelihood, slowly forgotten): forgetting, strength, level, and whether the text is worth listening to
are all learned, none is set by hand. With nothing known all prompts are alike and the allocation is uniform.

The text's mean is the regression of `viprl.predictors.text`.
"""

from __future__ import annotations

import numpy as np
from scipy.special import betaln, expit, logsumexp

from viprl.predictors.protocol import Batch, Prediction, Predictor, RowIndex, State, grown
from viprl.predictors.text import TextRegression
from viprl.variance import FloatArray

DISCOUNTS = np.array([0.75, 0.9, 0.97])
LEVELS = expit(np.array([-2.5, -1.5, -0.75, 0.0, 0.75, 1.5, 2.5]))
STRENGTHS = np.array([0.25, 0.5, 1.0, 2.0, 4.0, 8.0])


class BetaMixture(Predictor):
    """The mixture above; without features it is a discounted Beta count with a learned prior."""

    uses_features = True

    def __init__(self, *, memory: float = 0.98, text: bool = True) -> None:
        self.memory = memory
        self.text = TextRegression() if text else None
        self.uses_features = text
        self._index = RowIndex()
        self._successes = np.empty((0, len(DISCOUNTS)))
        self._failures = np.empty((0, len(DISCOUNTS)))
        self._log_weights = np.zeros((len(DISCOUNTS), len(LEVELS) + text, len(STRENGTHS)))

    def predict(self, batch: Batch) -> Prediction:
        a, b = self._posteriors(batch)
        weights = self._weights()
        total = a + b
        mean = np.einsum("jms,qjms->q", weights, a / total)
        variance = np.einsum("jms,qjms->q", weights, a * b / (total * (total + 1)))
        return Prediction(mean, variance)

    def observe(self, batch: Batch, successes: FloatArray, rollouts: FloatArray) -> None:
        seen = rollouts > 0
        if not seen.any():
            return
        batch, k, n = batch.select(seen), successes[seen], rollouts[seen]
        a, b = self._posteriors(batch)
        k_, n_ = k[:, None, None, None], n[:, None, None, None]
        evidence = (betaln(a + k_, b + n_ - k_) - betaln(a, b)).sum(axis=0)
        self._log_weights = self.memory * self._log_weights + evidence
        self._log_weights -= self._log_weights.max()
        if self.text is not None and batch.features is not None:
            strength = float((self._weights() * STRENGTHS).sum())
            self.text.observe(batch.features, k, n, strength)
        rows = self._index.add(batch.keys)
        self._successes = grown(self._successes, len(self._index))
        self._failures = grown(self._failures, len(self._index))
        self._successes[rows] = DISCOUNTS * (self._successes[rows] + k[:, None])
        self._failures[rows] = DISCOUNTS * (self._failures[rows] + (n - k)[:, None])

    def state_dict(self) -> State:
        used = len(self._index)
        return {
            "keys": list(self._index.keys),
            "successes": self._successes[:used].copy(),
            "failures": self._failures[:used].copy(),
            "log_weights": self._log_weights.copy(),
            "text": self.text.state_dict() if self.text is not None else None,
        }

    def load_state_dict(self, state: State) -> None:
        if state["log_weights"].shape != self._log_weights.shape:
            raise ValueError(
                f"the saved predictor has members {state['log_weights'].shape}, this one {self._log_weights.shape}; "
                "it was saved with or without features: build it with the same `features`"
            )
        self._index = RowIndex(state["keys"])
        self._successes, self._failures = np.array(state["successes"]), np.array(state["failures"])
        self._log_weights = np.array(state["log_weights"])
        if self.text is not None:
            self.text.load_state_dict(state["text"])

    def _weights(self) -> FloatArray:
        """[J, M, S] normalised weights; text and level members start with equal shares."""
        log_prior = np.zeros((self._log_weights.shape[1], 1))
        log_prior[: len(LEVELS)] = -np.log(len(LEVELS))
        log_weights = self._log_weights + log_prior
        return np.exp(log_weights - logsumexp(log_weights))

    def _posteriors(self, batch: Batch) -> tuple[FloatArray, FloatArray]:
        """Beta parameters a, b of every member, [Q, J, M, S]."""
        rows = self._index.find(batch.keys)
        known = (rows >= 0)[:, None]
        s = np.where(known, self._successes[rows], 0.0) if len(self._index) else np.zeros((len(batch), len(DISCOUNTS)))
        f = np.where(known, self._failures[rows], 0.0) if len(self._index) else np.zeros((len(batch), len(DISCOUNTS)))
        mu = np.broadcast_to(LEVELS, (len(batch), len(LEVELS)))
        if self.text is not None:
            mu = np.column_stack([mu, self.text.predict(batch.features, len(batch))])
        prior = mu[:, None, :, None] * STRENGTHS
        other = (1 - mu)[:, None, :, None] * STRENGTHS
        return prior + s[:, :, None, None], other + f[:, :, None, None]
