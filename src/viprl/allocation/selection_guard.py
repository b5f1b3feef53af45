"""The guard of selection: decides from realised variances how far the predicted sizes of gradients are trusted.

Mixtures of the predicted sizes with equal ones, (1 - t) b + t mean(b), give inclusion probabilities pi_t. The group of
a sampled prompt shows an unbiased estimate y of its variance weight, whatever its size, so that

    sum_(q sampled) y_q / (pi_q pi_tq)        has the expectation        sum_q a_q / pi_tq,

the variance of the rollouts under pi_t with groups of equal size, up to a factor. The guard uses the prediction itself,
t = 0, unless another mixture has been better by more than the noise of the comparison. Sizes that are of no use end at
t = 1, where every candidate has the same probability.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from viprl.allocation.guard import SHARES
from viprl.allocation.selection import inclusion_probabilities, systematic_sample
from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.running_comparison import RunningComparison
from viprl.utils.state_file import State


class Draw(NamedTuple):
    """A sample of candidates."""

    inclusion: FloatArray
    """[M] pi."""
    positions: IntArray
    """[m] of the sampled candidates, ascending."""
    alternatives: FloatArray
    """[mixtures, m] pi_t of the sampled candidates."""


class SelectionGuard:
    """Running comparison of the predicted sizes with their mixtures with equal sizes."""

    def __init__(self) -> None:
        self._comparison = RunningComparison(len(SHARES))

    @property
    def choice(self) -> int:
        """Index into `viprl.allocation.guard.SHARES` of the mixture to use."""
        return self._comparison.choice

    @property
    def trust(self) -> float:
        """1 if the prediction is used as it is, 0 if every candidate has the same probability."""
        return float(1 - SHARES[self.choice])

    def probabilities(self, size: FloatArray, m: int) -> FloatArray:
        """[mixtures, M] the inclusion probabilities of every mixture; arguments as for `inclusion_probabilities`."""
        return np.array([inclusion_probabilities((1 - t) * size + t * size.mean(), m) for t in SHARES])

    def draw(self, size: FloatArray, m: int, rng: np.random.Generator) -> Draw:
        """A sample of m candidates; arguments as for `inclusion_probabilities` and `systematic_sample`."""
        alternatives = self.probabilities(size, m)
        pi = alternatives[self.choice]
        positions = systematic_sample(pi, rng) if m < len(pi) else np.arange(m)
        return Draw(pi, positions, alternatives[:, positions])

    def observe(self, draw: Draw, measured: FloatArray) -> None:
        """Learn from a batch.

        Args:
            draw: the sample. Its mixture need not be the one that is used now.
            measured: [m] the weight that each group showed (`viprl.weights.surprisal.measured_weight`), NaN if none.
        """
        losses = (1 / draw.alternatives) @ (np.nan_to_num(measured) / draw.inclusion[draw.positions])
        self._comparison.add(losses - losses[0])

    def state_dict(self) -> State:
        return self._comparison.state_dict()

    def load_state_dict(self, state: State) -> None:
        self._comparison.load_state_dict(state)
