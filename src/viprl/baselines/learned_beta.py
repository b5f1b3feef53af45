"""Discounted Beta counts whose prior is learned from the outcomes.

The belief about a prompt is that of `viprl.baselines.beta_counts` with lam = .9. The success probabilities of prompts
at their first visit are modelled as draws from Beta(a0, b0), so that k of n follows a beta-binomial distribution and

    (a0, b0) = argmax  sum over first visits  log B(a0 + k, b0 + n - k) - log B(a0, b0)   + log prior

(maximum marginal likelihood, empirical Bayes). On real runs it is U-shaped, with a0 and b0 below 1, which matters at
visits 2 to 5: one visit without success is stronger evidence than under a uniform prior.

Chosen here: log a0 and log b0 have standard normal priors (without them a first batch without any success would send a0
to 0); each new prompt multiplies the weight of the earlier ones by .999, because the policy changes; only first visits
are used, since later ones depend on the history of the prompt.
"""

from __future__ import annotations

import numpy as np

from viprl.baselines.beta_counts import BetaCounts
from viprl.predictors.base import Batch
from viprl.utils.arrays import FloatArray
from viprl.utils.state_checks import array_entry, entry
from viprl.utils.state_file import State


class LearnedBeta(BetaCounts):
    """Discounted Beta counts of each prompt with a prior fitted to the first visits of all prompts.

    A fit costs the distinct pairs (k, n) of first visits, not the prompts. Equations: `viprl.baselines.learned_beta`.

    Args:
        forgetting_factor: share of a prompt's history that a visit keeps, in [0, 1].
        prior_forgetting_factor: factor of the weight of earlier first visits at each new prompt.
    """

    def __init__(self, *, forgetting_factor: float = 0.9, prior_forgetting_factor: float = 0.999) -> None:
        super().__init__(forgetting_factor=forgetting_factor)
        self.prior_forgetting_factor = prior_forgetting_factor
        self._visits = np.empty((0, 2))  # distinct (k, n) of first visits
        self._weights: FloatArray = np.empty(0)  # how many prompts showed each, slowly forgotten

    def observe(self, batch: Batch, successes: FloatArray, rollouts: FloatArray) -> None:
        first = (rollouts > 0) & ~self._excess.knows(batch.keys)
        if first.any():
            self._remember(np.column_stack([successes, rollouts])[first])
            self.prior = fit_prior(self._visits[:, 0], self._visits[:, 1], self._weights, self.prior)
        super().observe(batch, successes, rollouts)

    def _remember(self, visits: FloatArray) -> None:
        weights = np.concatenate([self._weights * self.prior_forgetting_factor ** len(visits), np.ones(len(visits))])
        self._visits, group = np.unique(np.concatenate([self._visits, visits]), axis=0, return_inverse=True)
        self._weights = np.bincount(group.ravel(), weights).astype(float)

    def state_dict(self) -> State:
        return {
            "counts": super().state_dict(),
            "prior": self.prior.copy(),
            "visits": self._visits.copy(),
            "weights": self._weights.copy(),
        }

    def load_state_dict(self, state: State) -> None:
        prior, visits = array_entry(state, "prior", 2, least=1e-300), array_entry(state, "visits", None, 2, least=0)
        weights = array_entry(state, "weights", len(visits), least=0)
        super().load_state_dict(entry(state, "counts"))
        self.prior, self._visits, self._weights = prior, visits, weights


def fit_prior(k: FloatArray, n: FloatArray, weights: FloatArray, start: FloatArray) -> FloatArray:
    """[2] a0 and b0 that maximise the penalised marginal likelihood of k [M] of n [M], searched from `start`."""

    from scipy.optimize import minimize
    from scipy.special import betaln, digamma

    def loss(log_prior: FloatArray) -> tuple[float, FloatArray]:
        a, b = np.exp(log_prior)
        value = -weights @ (betaln(a + k, b + n - k) - betaln(a, b))
        common = digamma(a + b + n) - digamma(a + b)
        slope = -np.array(
            [
                a * (weights @ (digamma(a + k) - digamma(a) - common)),
                b * (weights @ (digamma(b + n - k) - digamma(b) - common)),
            ]
        )
        return float(value + log_prior @ log_prior / 2), slope + log_prior

    bounds = [(-10.0, 10.0)] * 2  # far beyond what the penalty leaves likely; keeps exp and betaln finite
    return np.exp(minimize(loss, np.log(start), jac=True, method="L-BFGS-B", bounds=bounds).x)
