"""What is believed of the prompts of a batch before its first wave."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from viprl.utils.arrays import FloatArray, IntArray

SIGNAL = 1.0
"""rho, where nobody knows better: a strong signal, for which first waves are large."""


@dataclass(frozen=True)
class Beliefs:
    """What is believed of Q prompts before sampling."""

    p: FloatArray
    """[G] success probabilities."""
    chance: FloatArray
    """[Q, G] of each of them; rows sum to 1."""
    scale: FloatArray
    """[Q] s."""
    trust: float = 0.0
    """Share of kappa by which baselines are shrunk towards the expected reward; 0 for baselines of the group."""
    signal: float = SIGNAL
    """rho."""
    new: np.ndarray | None = None
    """[Q] of which nothing was seen; None for no prompt. Where a variance is matched they get their share of C."""

    @property
    def unseen(self) -> np.ndarray:
        """[Q] of which nothing was seen."""
        return np.zeros(len(self.scale), dtype=bool) if self.new is None else self.new

    @property
    def mean(self) -> FloatArray:
        """[Q] mu."""
        return self.chance @ self.p

    @property
    def pseudocounts(self) -> FloatArray:
        """[Q] kappa = E[p(1-p)] / Var(p), as far as it is trusted."""
        mean, variance = self.mean, self.chance @ (self.p * (1 - self.p))
        return self.trust * variance / np.maximum(mean * (1 - mean) - variance, 1e-9)

    @property
    def constant(self) -> FloatArray:
        """[Q] the part of V that is no variance, s rho E[(p(1-p))^2] (`viprl.allocation.waves.variance`)."""
        return self.signal * self.scale * (self.chance @ (self.p * (1 - self.p)) ** 2)

    def shares(self, n: FloatArray | IntArray | float) -> FloatArray:
        """theta of baselines with n >= 2 rollouts, for n of the shape [], [Q] or [Q, ...]."""
        kappa = self.pseudocounts.reshape(-1, *[1] * (np.ndim(n) - 1))
        return kappa / (kappa + n - 1)

    def at(self, rows: IntArray) -> Beliefs:
        """Of some of the prompts."""
        return replace(self, chance=self.chance[rows], scale=self.scale[rows], new=None)

    def of_groups(self) -> Beliefs:
        """The same with baselines of the group."""
        return replace(self, trust=0.0)
