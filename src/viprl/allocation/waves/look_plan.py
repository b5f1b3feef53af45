"""The first waves of a batch, and what the second ones may depend on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from viprl.allocation.waves.beliefs import Beliefs
from viprl.allocation.waves.estimator import FirstLook
from viprl.allocation.waves.options import Runs
from viprl.errors import InputError
from viprl.utils.arrays import FloatArray, IntArray


@dataclass(frozen=True)
class LookPlan:
    """The first waves of Q prompts, and what the second ones may depend on."""

    beliefs: Beliefs
    first: IntArray
    """[Q] rollouts of the first wave."""
    runs: tuple[Runs, ...]
    """[Q] labels; one that holds all of 0..w for a prompt without a look."""
    share: FloatArray
    """[Q] theta of prompts with a look."""
    variance_ratio: float
    """Expected variance relative to one wave of the same budget."""
    cost_ratio: float = 1.0
    """Expected cost relative to one wave of the same budget."""

    @property
    def looks(self) -> np.ndarray:
        """[Q] whether each prompt gets a first look."""
        return np.array([len(runs) > 1 for runs in self.runs])

    def labels(self, successes: IntArray) -> list[FirstLook]:
        """[Q] labels after [Q] successes in the first waves."""
        found = []
        for w, runs, k in zip(self.first.tolist(), self.runs, np.asarray(successes).tolist(), strict=True):
            if not 0 <= k <= w:
                raise InputError(f"a first wave of {w} rollouts has {k} successes; expected 0 to {w}")
            low, high = next(run for run in runs if run[0] <= k <= run[1])
            found.append(FirstLook.of(w, range(low, high + 1)))
        return found

    def shares(self, counts: IntArray) -> FloatArray:
        """[Q] theta of the pooled groups: fixed in advance for prompts with a look; that of n rollouts for the others,
        whose n tells nothing about their rewards."""
        return np.where(self.looks, self.share, self.beliefs.shares(counts))
