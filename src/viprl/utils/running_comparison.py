"""Which of several alternatives to use, from their losses in every step of a run."""

from __future__ import annotations

import numpy as np

from viprl.utils.arrays import FloatArray
from viprl.utils.state_checks import array_entry
from viprl.utils.state_file import State


class RunningComparison:
    """The first alternative, unless another has been better by more than the noise of the comparison.

    Args:
        alternatives: how many there are.
        forgetting_factor: share of the evidence that a step keeps.
        caution: standard errors of the paired differences by which another alternative must be better to be used.
    """

    def __init__(self, alternatives: int, *, forgetting_factor: float = 0.98, caution: float = 1.5) -> None:
        self.alternatives, self.forgetting_factor, self.caution = alternatives, forgetting_factor, caution
        self._difference = np.zeros(alternatives)  # loss of each alternative minus that of the first
        self._squares = np.zeros(alternatives)

    @property
    def choice(self) -> int:
        """Index of the alternative to use."""
        return int(np.argmin(self._difference + self.caution * np.sqrt(self._squares)))

    def add(self, difference: FloatArray) -> None:
        """One step: the loss of each alternative minus that of the first."""
        self._difference = self.forgetting_factor * self._difference + difference
        self._squares = self.forgetting_factor**2 * self._squares + difference**2

    def state_dict(self) -> State:
        return {"difference": self._difference.copy(), "squares": self._squares.copy()}

    def load_state_dict(self, state: State) -> None:
        difference = array_entry(state, "difference", self.alternatives)
        self._difference, self._squares = difference, array_entry(state, "squares", self.alternatives, least=0)
