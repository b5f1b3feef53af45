"""BOTS: Beta counts from explicit and implicit evidence (arXiv 2510.26374).

    a <- (1 - l) a + l a0 + (1 - r) k + r k~          l = forgetting, r = share of implicit evidence, both .2
    b <- (1 - l) b + l b0 + (1 - r)(n - k) + r (n - k~)           a0 = b0 = 1

k, n: successes and rollouts of the visit; k~ = n p~: the successes that the outcomes of the *other* prompts suggest.

The paper interpolates p~ between the success rates of a weak and a strong reference model, measured beforehand for
every prompt, according to the average success of the batch. A training run does not have these. Chosen here: the belief
before the step in place of the reference, and the mean error of the batch in place of the progress:

    p~ = clip(m + mean over the batch of (k/n - m), 0, 1),   m = a/(a+b).

Counts age and grow only at a prompt's own visits (the paper updates every prompt of the pool at every step, which
without reference models would forget everything between two visits). E[p(1-p)] goes into the exact allocation (the
paper draws p from the belief to choose prompts).
"""

from __future__ import annotations

import numpy as np

from viprl.baselines.beta_counts import BetaCounts
from viprl.errors import InputError
from viprl.predictors.base import Batch
from viprl.utils.arrays import FloatArray


class ImplicitEvidence(BetaCounts):
    """Beta counts that also learn from the outcomes of the other prompts (BOTS, arXiv 2510.26374).

    Equations: `viprl.baselines.bots`.

    Args:
        forgetting_factor: 1 - l, the share of the history that a visit keeps, in [0, 1].
        implicit: r, the share of implicit evidence, in [0, 1].
        prior: a0 and b0, positive.
    """

    def __init__(
        self, *, forgetting_factor: float = 0.8, implicit: float = 0.2, prior: tuple[float, float] = (1.0, 1.0)
    ) -> None:
        super().__init__(forgetting_factor=forgetting_factor, prior=prior)
        if not 0 <= implicit <= 1:
            raise InputError(f"implicit is {implicit}; expected a number in [0, 1]")
        self.implicit = implicit

    def observe(self, batch: Batch, successes: FloatArray, rollouts: FloatArray) -> None:
        seen = rollouts > 0
        if not seen.any():
            return
        belief = self.predict(batch).success_probability
        error = float((successes[seen] / rollouts[seen] - belief[seen]).mean())
        suggested = rollouts * np.clip(belief + error, 0, 1)
        super().observe(batch, (1 - self.implicit) * successes + self.implicit * suggested, rollouts)
