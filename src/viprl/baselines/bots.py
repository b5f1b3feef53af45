"""BOTS: Beta counts from explicit and implicit evidence (arXiv 2510.26374).

    a <- (1 - l) a + l a0 + (1 - r) k + r k~          l = forgetting, r = share of implicit evidence, both .2
    b <- (1 - l) b + l b0 + (1 - r)(n - k) + r (n - k~)           a0 = b0 = 1

k, n: successes and rollouts of the visit; k~ = n p~: the successes that the outcomes of the *other* prompts suggest.

Chosen here, where the paper needs what a training run does not have: it finds p~ between the success rates of a weak
and a strong reference model, measured beforehand for every prompt, at the place that the batch's average success has
reached. Here the belief before the step stands in for the reference and the batch's average surprise for the progress:

    p~ = clip(m + mean over the batch of (k/n - m), 0, 1),   m = a/(a+b).

Counts age and grow at a prompt's own visits only (the paper updates every prompt of the pool at every step, which
without reference models would forget everything between two visits). E[p(1-p)] goes into the exact allocation (the
paper draws p from the belief to choose prompts).
"""

from __future__ import annotations

import numpy as np

from viprl.baselines.beta_counts import BetaCounts
from viprl.predictors.base import Batch
from viprl.utils.arrays import FloatArray


class ImplicitEvidence(BetaCounts):
    """The update above on the counts of `BetaCounts`, lam = 1 - l."""

    def __init__(
        self, *, forgetting: float = 0.2, implicit: float = 0.2, prior: tuple[float, float] = (1.0, 1.0)
    ) -> None:
        super().__init__(discount=1 - forgetting, prior=prior)
        if not 0 <= implicit <= 1:
            raise ValueError(f"implicit is {implicit}; expected a number in [0, 1], the share of implicit evidence")
        self.implicit = implicit

    def observe(self, batch: Batch, successes: FloatArray, rollouts: FloatArray) -> None:
        seen = rollouts > 0
        if not seen.any():
            return
        belief = self.predict(batch).success_probability
        surprise = float((successes[seen] / rollouts[seen] - belief[seen]).mean())
        suggested = rollouts * np.clip(belief + surprise, 0, 1)
        super().observe(batch, (1 - self.implicit) * successes + self.implicit * suggested, rollouts)
