"""A few numbers for each prompt: what predictors without features remember."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from viprl.predictors.protocol import RowIndex, State, grown
from viprl.variance import FloatArray


class PromptTable:
    """Rows of numbers by prompt key; a prompt that was never written reads as `default`. Time and memory per prompt
    touched, whatever the pool."""

    def __init__(self, default: Sequence[float]) -> None:
        self.default = np.array(default, dtype=float)
        self._index = RowIndex()
        self._values = np.empty((0, len(self.default)))

    def __len__(self) -> int:
        return len(self._index)

    def read(self, keys: tuple[str, ...]) -> FloatArray:
        """[Q, columns], a copy."""
        rows = self._index.find(keys)
        values = np.tile(self.default, (len(keys), 1))
        values[rows >= 0] = self._values[rows[rows >= 0]]
        return values

    def knows(self, keys: tuple[str, ...]) -> np.ndarray:
        """[Q] whether each prompt was ever written."""
        return self._index.find(keys) >= 0

    def write(self, keys: tuple[str, ...], values: FloatArray, which: np.ndarray) -> None:
        """Set the rows of `keys` to `values` [Q, columns] where `which` [Q]."""
        rows = self._index.add(tuple(key for key, chosen in zip(keys, which, strict=True) if chosen))
        self._values = grown(self._values, len(self._index))
        self._values[rows] = values[which]

    def state_dict(self) -> State:
        return {"keys": list(self._index.keys), "values": self._values[: len(self._index)].copy()}

    def load_state_dict(self, state: State) -> None:
        self._index, self._values = RowIndex(state["keys"]), np.array(state["values"], dtype=float)
