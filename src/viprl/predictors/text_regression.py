"""What the features alone say about success: online Bayesian logistic regressions.

    symbol     meaning                                                     shape
    x          features, projected to at most `columns` random directions   [Q, d]
    b          coefficients, the last one for the intercept                 [d + 1]
    precision  of the Gaussian belief about b                               [d + 1, d + 1]

Each step is one Laplace approximation. The n rollouts of a prompt count as n (c+1)/(c+n) independent ones, c the
`prior_pseudocounts`, because they share what is specific to that prompt (the variance of a beta-binomial).

How much a text tells differs between tasks, and no prior variance suits all of them. `TextMixture` averages the
predictions of regressions with different prior variances, weighted by how well they have predicted so far.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from viprl.errors import StateError
from viprl.utils.arrays import FloatArray
from viprl.utils.numerics import expit, laplace
from viprl.utils.state_checks import array_entry, entry, number_entry, precision_entry
from viprl.utils.state_file import State


class TextRegression:
    """One logistic regression. A step costs O(Q d^2 + d^3), whatever the number of prompts seen.

    Args:
        prior_variance: of each coefficient.
        forgetting_factor: share of the precision that a step keeps.
        columns: largest number of projected features.
    """

    def __init__(self, *, prior_variance: float = 4.0, forgetting_factor: float = 0.99, columns: int = 128) -> None:
        self.prior_variance, self.forgetting_factor, self.columns = prior_variance, forgetting_factor, columns
        self._width: int | None = None  # columns of the features before the projection
        self._projection: FloatArray | None = None
        self._mean: FloatArray | None = None  # [d + 1], the last for the intercept
        self._precision: FloatArray | None = None

    def expected(self, x: FloatArray) -> FloatArray:
        """[Q] E[sigmoid(x b)] for `design(features)`, by the probit approximation; .5 before anything is known."""
        from scipy.linalg import cholesky, solve_triangular

        if self._mean is None or self._precision is None:
            return np.full(len(x), 0.5)
        white = solve_triangular(cholesky(self._precision, lower=True), x.T, lower=True)
        variance = np.einsum("dq,dq->q", white, white)  # x^T precision^-1 x
        return np.clip(expit(x @ self._mean / np.sqrt(1 + np.pi / 8 * variance)), 1e-3, 1 - 1e-3)

    def learn(self, x: FloatArray, k: FloatArray, n: FloatArray, prior_pseudocounts: float) -> None:
        """Move to the posterior given [Q] successes k of n rollouts; `x` is `design(features)`."""
        if self._mean is None or self._precision is None:
            self._mean = np.zeros(x.shape[1])
            self._precision = np.eye(x.shape[1]) / self.prior_variance
        # forgetting moves the precision towards the prior's, below which it never falls
        prior = self.forgetting_factor * self._precision
        np.einsum("ii->i", prior)[:] += (1 - self.forgetting_factor) / self.prior_variance
        rate, effective = k / n, n * (prior_pseudocounts + 1) / (prior_pseudocounts + n)

        def loss(z: FloatArray) -> float:
            return float(effective @ (np.logaddexp(0, z) - rate * z))

        def derivatives(z: FloatArray) -> tuple[FloatArray, FloatArray]:
            p = expit(z)
            return effective * (p - rate), effective * p * (1 - p)

        self._mean, self._precision = laplace(self._mean, prior, x, loss, derivatives)

    def design(self, features: FloatArray) -> FloatArray:
        """[Q, d + 1] projected features with a column of ones."""
        width = features.shape[1]
        if self._width is None:
            self._set_width(width)
        if width != self._width:
            raise StateError(
                f"features have {width} columns, but the text regression was trained on {self._width}; use the same "
                "features as before"
            )
        x = np.ones((len(features), 1 + min(width, self.columns)))
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
            self._projection = np.linalg.qr(normal)[0] * np.sqrt(width / self.columns)

    def state_dict(self) -> State:
        return {"width": self._width, "mean": self._mean, "precision": self._precision}

    def load_state_dict(self, state: State) -> None:
        self._width = self._projection = self._mean = self._precision = None
        if entry(state, "width") is not None:
            self._set_width(number_entry(state, "width", least=1, most=1e6, whole=True))
        if entry(state, "mean") is not None:
            size = None if self._width is None else 1 + min(self._width, self.columns)
            self._mean = array_entry(state, "mean", size)
            self._precision = precision_entry(state, "precision", len(self._mean))


class TextMixture:
    """Regressions with different prior variances, weighted by their predictive likelihood.

    Args:
        prior_variances: one regression each.
        forgetting_factor: share of the log weights that a step keeps.
    """

    def __init__(self, *, prior_variances: Sequence[float] = (0.25, 64.0), forgetting_factor: float = 0.95) -> None:
        self.forgetting_factor = forgetting_factor
        self.members = [TextRegression(prior_variance=variance) for variance in prior_variances]
        self._log_weights = np.zeros(len(self.members))
        self._last: tuple[FloatArray, FloatArray, FloatArray] | None = None  # features, their design, predictions

    def predict(self, features: FloatArray) -> FloatArray:
        """[Q] weighted mean of the predictions of the members, for features [Q, d]."""
        return self._weights() @ self._answers(features)[1]

    def observe(self, features: FloatArray, k: FloatArray, n: FloatArray, prior_pseudocounts: float) -> FloatArray:
        """Learn from [Q] successes k of n rollouts. Returns [Q] what `predict` gave before."""
        x, before = self._answers(features)
        self._last = None
        for member in self.members:
            member.learn(x, k, n, prior_pseudocounts)
        mean = self._weights() @ before
        effective = (prior_pseudocounts + 1) / (prior_pseudocounts + n)
        evidence = (np.log(before) * k + np.log1p(-before) * (n - k)) @ effective
        self._log_weights = self.forgetting_factor * self._log_weights + evidence
        self._log_weights -= self._log_weights.max()
        return mean

    def _weights(self) -> FloatArray:
        weights = np.exp(self._log_weights - self._log_weights.max())
        return weights / weights.sum()

    def _answers(self, features: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The design [Q, d + 1], which all members share, and the prediction of each [members, Q].

        Kept for the last features, since a batch that was predicted is usually the next one observed.
        """
        if self._last is None or self._last[0] is not features:
            x = self.members[0].design(features)
            self._last = features, x, np.array([member.expected(x) for member in self.members])
        return self._last[1:]

    def state_dict(self) -> State:
        members = [member.state_dict() for member in self.members]
        return {"log_weights": self._log_weights.copy(), "members": members}

    def load_state_dict(self, state: State) -> None:
        log_weights, members = array_entry(state, "log_weights", len(self.members)), entry(state, "members")
        if len(members) != len(self.members):
            raise StateError(f"the entry 'members' has {len(members)} regressions; expected {len(self.members)}")
        for member, saved in zip(self.members, members, strict=True):
            member.load_state_dict(saved)
        sizes = {None if member._mean is None else len(member._mean) for member in self.members}
        if len(sizes) > 1:
            raise StateError(f"the entry 'members' has regressions of different sizes {sizes}")
        self._log_weights, self._last = log_weights, None
