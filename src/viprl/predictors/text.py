"""What the text alone says about success: an online Bayesian logistic regression on the features.

One Laplace approximation a step. The n rollouts of one prompt count as n (strength+1)/(strength+n) independent ones,
since they share what is that prompt's own (the variance of a beta-binomial).

    symbol     meaning                                                    shape
    x          features, projected to at most `columns` random directions  [Q, d]
    w          coefficients, the last one for the intercept                [d + 1]
    precision  of the Gaussian belief about w                              [d + 1, d + 1]
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve, cholesky, solve_triangular
from scipy.special import expit

from viprl.predictors.protocol import State
from viprl.variance import FloatArray


class TextRegression:
    """The regression above. A step costs O(Q d^2 + d^3), whatever the number of prompts seen."""

    def __init__(self, *, prior_variance: float = 4.0, memory: float = 0.99, columns: int = 128) -> None:
        self.prior_variance, self.memory, self.columns = prior_variance, memory, columns
        self._width: int | None = None  # columns of the features before the projection
        self._projection: FloatArray | None = None
        self._mean: FloatArray | None = None  # [d + 1], the last for the intercept
        self._precision: FloatArray | None = None

    def predict(self, features: FloatArray | None, prompts: int) -> FloatArray:
        """[Q] E[sigmoid], by the probit approximation; a constant .5 before anything is known."""
        if features is None or self._mean is None or self._precision is None:
            return np.full(prompts, 0.5)
        x = self._design(features)
        white = solve_triangular(cholesky(self._precision, lower=True), x.T, lower=True)
        variance = (white * white).sum(axis=0)  # x^T precision^-1 x
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
        """[Q, d + 1] projected features with a column of ones."""
        width = features.shape[1]
        if self._width is None:
            self._set_width(width)
        if width != self._width:
            raise ValueError(
                f"features have {width} columns, but the text regression learned from {self._width}; use the same "
                "`features` as before"
            )
        x = features if self._projection is None else features @ self._projection
        return np.column_stack([x, np.ones(len(x))])

    def _set_width(self, width: int) -> None:
        """Random orthogonal directions, the same for every run; inner products are kept on average."""
        self._width = width
        if width > self.columns:
            normal = np.random.default_rng(0).normal(size=(width, self.columns))
            self._projection = np.linalg.qr(normal)[0] * np.sqrt(width / self.columns)

    def state_dict(self) -> State:
        return {"width": self._width, "mean": self._mean, "precision": self._precision}

    def load_state_dict(self, state: State) -> None:
        self._mean, self._precision = state["mean"], state["precision"]
        self._width = None
        if state["width"] is not None:
            self._set_width(state["width"])
