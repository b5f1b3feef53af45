"""What the text alone says about success: online Bayesian logistic regressions on the features.

One Laplace approximation a step. The n rollouts of one prompt count as n (strength+1)/(strength+n) independent ones,
since they share what is that prompt's own (the variance of a beta-binomial).

How much a text tells differs from task to task, and no prior variance suits all. `TextMixture` averages the predictions
of regressions that expect little and much, weighted by how well they predicted so far.

    symbol     meaning                                                    shape
    x          features, projected to at most `columns` random directions  [Q, d]
    w          coefficients, the last one for the intercept                [d + 1]
    precision  of the Gaussian belief about w                              [d + 1, d + 1]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike
from scipy.linalg import cho_factor, cho_solve, cholesky, solve_triangular
from scipy.special import expit, softmax

from viprl.predictors.protocol import State
from viprl.variance import FloatArray


class TextRegression:
    """The regression above. A step costs O(Q d^2 + d^3), whatever the number of prompts seen.

    `dtype` is that of all arithmetic; float32 is there to be compared (`make bench`).
    """

    def __init__(
        self,
        *,
        prior_variance: float = 4.0,
        memory: float = 0.99,
        columns: int = 128,
        dtype: DTypeLike = np.float64,
    ) -> None:
        self.prior_variance, self.memory, self.columns, self.dtype = prior_variance, memory, columns, np.dtype(dtype)
        self._width: int | None = None  # columns of the features before the projection
        self._projection: FloatArray | None = None
        self._mean: FloatArray | None = None  # [d + 1], the last for the intercept
        self._precision: FloatArray | None = None

    def predict(self, features: FloatArray | None, prompts: int) -> FloatArray:
        """[Q] E[sigmoid], by the probit approximation; a constant .5 before anything is known."""
        return np.full(prompts, 0.5) if features is None else self.expected(self.design(features))

    def observe(self, features: FloatArray, k: FloatArray, n: FloatArray, strength: float) -> FloatArray:
        """Move to the mode of the posterior by damped Newton steps; `n` counts less where rollouts share a prompt.

        Returns: [Q] what `predict` said of these prompts before.
        """
        x = self.design(features)
        before = self.expected(x)
        self.learn(x, k, n, strength)
        return before

    def learn(self, x: FloatArray, k: FloatArray, n: FloatArray, strength: float) -> None:
        """`observe` for what `design` made of the features."""
        if self._mean is None or self._precision is None:
            self._mean = np.zeros(x.shape[1], self.dtype)
            self._precision = np.eye(x.shape[1], dtype=self.dtype) / self.prior_variance
        # forgetting pulls towards the prior, so that the precision never falls below it
        prior = self.memory * self._precision
        np.einsum("ii->i", prior)[:] += (1 - self.memory) / self.prior_variance
        rate, effective = (k / n).astype(self.dtype), (n * (strength + 1) / (strength + n)).astype(self.dtype)
        self._mean, self._precision = _posterior(self._mean, prior, x, rate, effective)

    def expected(self, x: FloatArray) -> FloatArray:
        """`predict` for what `design` made of the features."""
        if self._mean is None or self._precision is None:
            return np.full(len(x), 0.5)
        white = solve_triangular(cholesky(self._precision, lower=True), x.T, lower=True)
        variance = np.einsum("dq,dq->q", white, white)  # x^T precision^-1 x
        return np.clip(expit(x @ self._mean / np.sqrt(1 + np.pi / 8 * variance)), 1e-3, 1 - 1e-3)

    def design(self, features: FloatArray) -> FloatArray:
        """[Q, d + 1] projected features with a column of ones."""
        width = features.shape[1]
        if self._width is None:
            self._set_width(width)
        if width != self._width:
            raise ValueError(
                f"features have {width} columns, but the text regression learned from {self._width}; use the same "
                "`features` as before"
            )
        features = features.astype(self.dtype, copy=False)
        x = np.ones((len(features), 1 + min(width, self.columns)), self.dtype)
        if self._projection is None:
            x[:, :-1] = features
        else:
            np.matmul(features, self._projection, out=x[:, :-1])
        return x

    def _set_width(self, width: int) -> None:
        """Random orthogonal directions, the same for every run; inner products are kept on average."""
        self._width = width
        if width > self.columns:
            normal = np.random.default_rng(0).normal(size=(width, self.columns))
            directions = np.linalg.qr(normal)[0] * np.sqrt(width / self.columns)
            self._projection = directions.astype(self.dtype, copy=False)

    def state_dict(self) -> State:
        return {"width": self._width, "mean": self._mean, "precision": self._precision}

    def load_state_dict(self, state: State) -> None:
        self._mean, self._precision = state["mean"], state["precision"]
        self._width = None
        if state["width"] is not None:
            self._set_width(state["width"])


class TextMixture:
    """Regressions of several prior variances, weighted by their predictive likelihood, which is slowly forgotten."""

    def __init__(
        self,
        *,
        prior_variances: Sequence[float] = (0.25, 64.0),
        memory: float = 0.95,
        dtype: DTypeLike = np.float64,
    ) -> None:
        self.memory = memory
        self.members = [TextRegression(prior_variance=variance, dtype=dtype) for variance in prior_variances]
        self._log_weights = np.zeros(len(self.members))
        self._asked: tuple[FloatArray, FloatArray, FloatArray] | None = None  # features, their design, what was said

    def predict(self, features: FloatArray) -> FloatArray:
        """[Q] mean of the members' predictions."""
        return softmax(self._log_weights) @ self._answer(features)[1]

    def observe(self, features: FloatArray, k: FloatArray, n: FloatArray, strength: float) -> FloatArray:
        """As `TextRegression.observe`, for all members and their weights."""
        x, before = self._answer(features)
        self._asked = None
        for member in self.members:
            member.learn(x, k, n, strength)
        mean = softmax(self._log_weights) @ before
        evidence = (np.log(before) * k + np.log1p(-before) * (n - k)) @ ((strength + 1) / (strength + n))
        self._log_weights = self.memory * self._log_weights + evidence
        self._log_weights -= self._log_weights.max()
        return mean

    def _answer(self, features: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Their design [Q, d + 1] by the first member, the same for all, and each one's prediction [members, Q]. Those
        asked about last are usually the ones observed next."""
        if self._asked is None or self._asked[0] is not features:
            x = self.members[0].design(features)
            self._asked = features, x, np.array([member.expected(x) for member in self.members])
        return self._asked[1:]

    def state_dict(self) -> State:
        members = [member.state_dict() for member in self.members]
        return {"log_weights": self._log_weights.copy(), "members": members}

    def load_state_dict(self, state: State) -> None:
        self._log_weights, self._asked = np.array(state["log_weights"]), None
        for member, saved in zip(self.members, state["members"], strict=True):
            member.load_state_dict(saved)


def _posterior(
    start: FloatArray, prior: FloatArray, x: FloatArray, rate: FloatArray, rollouts: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Mode [d + 1] of the posterior and the precision [d + 1, d + 1] there, for a Gaussian prior of mean `start` and
    precision `prior`; `rate` [Q] of `rollouts` [Q] were solved."""

    def loss(mean: FloatArray) -> float:
        z, move = x @ mean, mean - start
        return float(rollouts @ (np.logaddexp(0, z) - rate * z) + 0.5 * move @ (prior @ move))

    def curvature(p: FloatArray) -> FloatArray:
        root = np.sqrt(rollouts * p * (1 - p))[:, None] * x
        return prior + root.T @ root  # a product with its own transpose: half the work, and exactly symmetric

    mean, value = start, loss(start)
    for _ in range(20):
        p = expit(x @ mean)
        precision = curvature(p)
        gradient = x.T @ (rollouts * (p - rate)) + prior @ (mean - start)
        step = cho_solve(cho_factor(precision, lower=True), gradient)
        scale = 1.0
        while (new := loss(mean - scale * step)) > value and scale > 1e-4:
            scale /= 2  # undamped Newton can cycle for ever on logistic losses
        if value - new < 1e-6:
            return mean, precision
        mean, value = mean - scale * step, new
    return mean, curvature(expit(x @ mean))
