"""Discounted Beta counts of each prompt, the predictor of MoPPS (arXiv 2507.04632).

    symbol  meaning                                              default
    k, n    successes and scorable rollouts of a visit
    a, b    parameters of the prompt's Beta belief               a0, b0 at first
    lam     share of the history that a visit keeps              1: nothing is forgotten
    a0, b0  prior                                                1, 1

    a <- lam a + (1 - lam) a0 + k         b <- lam b + (1 - lam) b0 + n - k
    E[p] = a/(a+b)                        E[p(1-p)] = ab / ((a+b)(a+b+1))

The state holds the excesses a - a0 and b - b0, whose recursion is s <- lam s + k, so that the prior can change later.

Chosen here: E[p(1-p)] goes into the exact allocation (MoPPS draws p from the belief, picks the prompts nearest to .5
and gives all of them the same number of rollouts); the counts of a prompt age at its own visits, not at every step.
"""

from __future__ import annotations

import numpy as np

from viprl.errors import InputError
from viprl.predictors.base import Batch, Prediction, Predictor
from viprl.predictors.table import PromptTable
from viprl.utils.arrays import FloatArray
from viprl.utils.state_file import State


class BetaCounts(Predictor):
    """Discounted Beta counts of each prompt (MoPPS, arXiv 2507.04632).

    Equations: `viprl.baselines.beta_counts`.

    Args:
        forgetting_factor: lam, the share of the history that a visit keeps, in [0, 1].
        prior: a0 and b0, positive.
    """

    def __init__(self, *, forgetting_factor: float = 1.0, prior: tuple[float, float] = (1.0, 1.0)) -> None:
        if not 0 <= forgetting_factor <= 1:
            raise InputError(f"forgetting_factor is {forgetting_factor}; expected a number in [0, 1]")
        self.forgetting_factor, self.prior = forgetting_factor, _positive_pair(prior)
        self._excess = PromptTable([0.0, 0.0])  # a - a0, b - b0

    def belief(self, batch: Batch) -> FloatArray:
        """[Q, 2] a and b."""
        return self.prior + self._excess.read(batch.keys)

    def predict(self, batch: Batch) -> Prediction:
        return moments(*self.belief(batch).T)

    def observe(self, batch: Batch, successes: FloatArray, rollouts: FloatArray) -> None:
        evidence = np.column_stack([successes, rollouts - successes])
        excess = self.forgetting_factor * self._excess.read(batch.keys) + evidence
        self._excess.write(batch.keys, excess, rollouts > 0)

    def state_dict(self) -> State:
        return self._excess.state_dict()

    def load_state_dict(self, state: State) -> None:
        self._excess.load_state_dict(state)


def moments(a: FloatArray, b: FloatArray) -> Prediction:
    """E[p] and E[p(1-p)] of Beta(a, b), elementwise."""
    total = a + b
    return Prediction(a / total, a / total * (b / (total + 1)))


def _positive_pair(prior: tuple[float, float]) -> FloatArray:
    pair = np.array(prior, dtype=float)
    if pair.shape != (2,) or not (np.isfinite(pair) & (pair > 0)).all():
        raise InputError(f"prior is {prior!r}; expected two positive numbers (a0, b0)")
    return pair
