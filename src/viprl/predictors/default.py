"""The default predictor: own history of each prompt, a prior learned from the stream, the text where it helps.

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

The text's mean is a logistic regression on the features, updated at each step by a Laplace approximation in which n
rollouts of one prompt count as n (kappa+1)/(kappa+n) independent ones, since they share what is that prompt's own.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import betaln, expit, logsumexp

from viprl.predictors.protocol import Batch, Prediction, Predictor, RowIndex, State, grown
from viprl.variance import FloatArray

DISCOUNTS = np.array([0.75, 0.9, 0.97])
LEVELS = expit(np.array([-2.5, -1.5, -0.75, 0.0, 0.75, 1.5, 2.5]))
STRENGTHS = np.array([0.25, 0.5, 1.0, 2.0, 4.0, 8.0])


class HistoryAndText(Predictor):
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
        batch, k, n = _select(batch, seen), successes[seen], rollouts[seen]
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


class TextRegression:
    """Bayesian logistic regression of success on features, one Laplace update a step."""

    def __init__(self, *, prior_variance: float = 4.0, memory: float = 0.99) -> None:
        self.prior_variance, self.memory = prior_variance, memory
        self._mean: FloatArray | None = None  # [d + 1], the last for the intercept
        self._precision: FloatArray | None = None

    def predict(self, features: FloatArray | None, prompts: int) -> FloatArray:
        """[Q] E[sigmoid], by the probit approximation; a constant .5 before anything is known."""
        if features is None or self._mean is None or self._precision is None:
            return np.full(prompts, 0.5)
        x = self._design(features)
        variance = np.einsum("qd,dq->q", x, cho_solve(cho_factor(self._precision, lower=True), x.T))
        return np.clip(expit(x @ self._mean / np.sqrt(1 + np.pi / 8 * variance)), 1e-3, 1 - 1e-3)

    def observe(self, features: FloatArray, k: FloatArray, n: FloatArray, strength: float) -> None:
        """Move to the mode of the posterior by damped Newton steps; `n` counts less where rollouts share a prompt."""
        x = self._design(features)
        if self._mean is None or self._precision is None:
            self._mean = np.zeros(x.shape[1])
            self._precision = np.eye(x.shape[1]) / self.prior_variance
        # forgetting pulls towards the prior, so that the precision never falls below it
        start = self._mean
        prior = self.memory * self._precision + (1 - self.memory) * np.eye(len(start)) / self.prior_variance
        effective = n * (strength + 1) / (strength + n)
        rate = k / n

        def loss(mean: FloatArray) -> float:
            z = x @ mean
            move = mean - start
            return float(effective @ (np.logaddexp(0, z) - rate * z) + 0.5 * move @ prior @ move)

        mean, value = start, loss(start)
        for _ in range(20):
            p = expit(x @ mean)
            gradient = x.T @ (effective * (p - rate)) + prior @ (mean - start)
            precision = prior + (x.T * (effective * p * (1 - p))) @ x
            step = cho_solve(cho_factor(precision, lower=True), gradient)
            scale = 1.0
            while (new := loss(mean - scale * step)) > value and scale > 1e-4:
                scale /= 2  # undamped Newton can cycle for ever on logistic losses
            if value - new < 1e-6:
                break
            mean, value = mean - scale * step, new
        p = expit(x @ mean)
        self._mean, self._precision = mean, prior + (x.T * (effective * p * (1 - p))) @ x

    def _design(self, features: FloatArray) -> FloatArray:
        """[Q, d + 1] features with a column of ones."""
        if self._mean is not None and features.shape[1] + 1 != len(self._mean):
            raise ValueError(
                f"features have {features.shape[1]} columns, but the text regression learned from "
                f"{len(self._mean) - 1}; use the same `features` as before"
            )
        return np.column_stack([features, np.ones(len(features))])

    def state_dict(self) -> State:
        return {"mean": self._mean, "precision": self._precision}

    def load_state_dict(self, state: State) -> None:
        self._mean, self._precision = state["mean"], state["precision"]


def _select(batch: Batch, mask: np.ndarray) -> Batch:
    keys = tuple(key for key, keep in zip(batch.keys, mask, strict=True) if keep)
    return Batch(keys, None if batch.features is None else batch.features[mask])
