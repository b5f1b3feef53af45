"""An exact Bayesian filter for the reward variance of each prompt, for rewards that are no few values.

The latent number of `viprl.predictors.grid_belief` is z = log(variance/unit). What is seen of a group is its sample
variance s2. The likelihood is a mixture of candidates, weighted by how well they have predicted, and each has

    c   effective degrees of freedom of a rollout: 1 for Gaussian rewards, fewer for heavy tails
    J   height of a jump: a group of rewards that jump by sqrt(J) has s2 = 0 with probability p^n + (1-p)^n, where
        p(1-p) = variance/J; with J = 0 only prompts of the smallest variance have it

    P(s2 = 0) = p^n + (1-p)^n,    s2 given s2 > 0: chi-square with c(n-1) degrees of freedom and
                                  mean variance/(1 - P(s2 = 0))

so that a group of equal rewards is informative, not impossible.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from viprl.predictors.base import Batch
from viprl.predictors.grid_belief import Grid, GridBelief, normalised, walk
from viprl.predictors.text_regression import TextMixture
from viprl.reward_groups import RewardGroups
from viprl.utils.arrays import FloatArray
from viprl.utils.numerics import logit
from viprl.utils.state_checks import array_entry, entry, number_entry
from viprl.utils.state_file import State
from viprl.utils.threads import single_threaded

Z = np.linspace(-10.0, 4.0, 36)
WALKS = tuple((variance, trend) for variance in (0.001, 0.01, 0.03, 0.1, 0.3, 1.0) for trend in (-0.1, 0.0, 0.1))
"""(variance, trend) of z between two visits."""
CANDIDATES = tuple((c, jump) for c in (0.25, 0.5, 1.0) for jump in (0.0, 1.0, 4.0, 16.0))
"""(c, J) of the likelihood, J in units."""


@functools.cache
def variance_grid() -> Grid:
    """The grid of z = log(variance/unit), with a flat prior."""
    walks = [walk(Z, *pair, np.ones(len(Z))) for pair in WALKS]
    return Grid(Z, np.array(walks), np.ones(len(Z)))


class VarianceFilter:
    """Beliefs about the variance of each prompt's reward.

    Args:
        forgetting_factor: share of the log weights of transitions and candidates that a step keeps.
    """

    def __init__(self, *, forgetting_factor: float = 0.95) -> None:
        self.forgetting_factor = forgetting_factor
        self.belief = GridBelief(variance_grid(), forgetting_factor=forgetting_factor)
        self.text = TextMixture()
        self._unit = 0.0  # the mean sample variance of the first batch that has any
        self._log_weights = np.zeros(len(CANDIDATES))

    @property
    def ready(self) -> bool:
        """Whether it has seen rewards that differ within a group."""
        return self._unit > 0

    def knows(self, batch: Batch) -> np.ndarray:
        """[Q] whether each prompt was observed."""
        return self.belief.knows(batch.keys)

    def predict(self, batch: Batch) -> FloatArray:
        """[Q] expected reward variance."""
        return self.moments(batch)[0]

    @single_threaded
    def moments(self, batch: Batch) -> tuple[FloatArray, FloatArray]:
        """[Q] expected reward variance, and [Q] the root of its expected square."""
        belief, variance = self.belief.before(batch.keys, self._scores(batch)), np.exp(Z)
        return self._unit * (belief @ variance), self._unit * np.sqrt(belief @ variance**2)

    @single_threaded
    def pass_over(self, batch: Batch) -> None:
        """Let the beliefs of prompts drift that were not sampled."""
        self.belief.pass_over(batch.keys)

    @single_threaded
    def observe(self, batch: Batch, groups: RewardGroups) -> None:
        """Learn from the rewards of Q distinct prompts."""
        variance = groups.variance
        usable = ~np.isnan(variance)
        if not self.ready:
            positive = variance[usable & (variance > 0)]
            if len(positive) == 0:
                return
            self._unit = float(variance[usable].mean())
        if not usable.any():
            return
        batch, n, y = batch.select(usable), groups.rollouts[usable], variance[usable] / self._unit
        score = self._scores(batch)
        before = self.belief.before(batch.keys, score)
        log_likelihood = _log_likelihood(n, y)
        likelihood = np.exp(log_likelihood - log_likelihood.max(axis=(0, 2), keepdims=True))  # [candidates, Q, G]
        mixture = np.tensordot(normalised(np.exp(self._log_weights)), likelihood, axes=1)
        predicted = np.einsum("jqg,qg->jq", likelihood, before)
        self.belief.observe(batch.keys, score, mixture)
        evidence = np.log(np.maximum(predicted, 1e-300)).sum(axis=1)
        self._log_weights = self.forgetting_factor * self._log_weights + evidence
        self._log_weights -= self._log_weights.max()
        if batch.features is not None:
            ones = np.ones(len(y))
            self.text.observe(batch.features, y / (1 + y), ones, prior_pseudocounts=1.0)

    def state_dict(self) -> State:
        return {
            **self.belief.state_dict(),
            "text": self.text.state_dict(),
            "unit": self._unit,
            "candidates": self._log_weights.copy(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises StateError for a damaged state."""
        unit, log_weights = number_entry(state, "unit", least=0), array_entry(state, "candidates", len(CANDIDATES))
        self.belief.load_state_dict(state)
        self.text.load_state_dict(entry(state, "text"))
        self._unit, self._log_weights = float(unit), log_weights

    def _scores(self, batch: Batch) -> FloatArray:
        """[Q] log(variance/unit) that the text suggests: the logit of variance/(variance + unit)."""
        if batch.features is None:
            return np.zeros(len(batch))
        return logit(self.text.predict(batch.features)).astype(np.float32)


def _log_likelihood(n: FloatArray, y: FloatArray) -> FloatArray:
    """[candidates, Q, G] log likelihood of sample variances y [Q] of groups of n [Q] rollouts, in units."""
    from scipy.special import gammaln

    n, y = n[:, None], y[:, None]
    equal, y = y <= 1e-12, np.maximum(y, 1e-12)
    variance = np.exp(Z)
    result = []
    for c, jump in CANDIDATES:
        if jump > 0:
            p = (1 - np.sqrt(1 - 4 * np.minimum(variance / jump, 0.25))) / 2
            zero = np.logaddexp(n * np.log(p), n * np.log1p(-p))
        else:
            zero = np.broadcast_to(np.log(np.where(np.arange(len(Z)) == 0, 0.99, 1e-4)), (len(n), len(Z)))
        rest = np.log(np.maximum(-np.expm1(zero), 1e-12))
        shape, log_mean = c * (n - 1) / 2, np.log(variance) - rest
        density = shape * (np.log(shape) - log_mean + np.log(y) - y * np.exp(-log_mean)) - gammaln(shape)
        result.append(np.where(equal, zero, rest + density))
    return np.array(result)
