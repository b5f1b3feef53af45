"""Numbers by prompt: growing arrays whose rows are found by key."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

import numpy as np

from viprl.utils.arrays import FloatArray
from viprl.utils.state_checks import array_entry, keys_entry
from viprl.utils.state_file import State


class RowIndex:
    """Rows of growing arrays, one for each prompt key, in the order of arrival."""

    def __init__(self, keys: list[str] | None = None) -> None:
        self.keys: list[str] = list(keys or [])
        self._row = {key: row for row, key in enumerate(self.keys)}

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, keys: tuple[str, ...]) -> np.ndarray:
        """[Q] row of each key, -1 for a new one."""
        return np.fromiter(map(self._row.get, keys, repeat(-1)), dtype=np.int64, count=len(keys))

    def add(self, keys: tuple[str, ...]) -> np.ndarray:
        """[Q] row of each key, new keys appended."""
        rows = self.find(keys)
        if (rows >= 0).all():
            return rows
        for key in keys:
            if key not in self._row:
                self._row[key] = len(self.keys)
                self.keys.append(key)
        return self.find(keys)


def grown(array: np.ndarray, rows: int, fill: float = 0.0) -> np.ndarray:
    """`array` with at least `rows` rows. The capacity doubles, so that appending costs little on average."""
    if len(array) >= rows:
        return array
    bigger = np.full((max(rows, 2 * len(array), 64), *array.shape[1:]), fill, dtype=array.dtype)
    bigger[: len(array)] = array
    return bigger


class PromptTable:
    """A row of numbers for each prompt key; a key that was never written reads as `default`.

    Reading and writing cost the prompts involved, whatever the size of the table.
    """

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
        """[Q] whether each key was ever written."""
        return self._index.find(keys) >= 0

    def write(self, keys: tuple[str, ...], values: FloatArray, which: np.ndarray) -> None:
        """Set the rows of `keys` to `values` [Q, columns] where `which` [Q]."""
        rows = self._index.add(tuple(key for key, chosen in zip(keys, which, strict=True) if chosen))
        self._values = grown(self._values, len(self._index))
        self._values[rows] = values[which]

    def state_dict(self) -> State:
        return {"keys": list(self._index.keys), "values": self._values[: len(self._index)].copy()}

    def load_state_dict(self, state: State) -> None:
        keys = keys_entry(state)
        self._index, self._values = RowIndex(keys), array_entry(state, "values", len(keys), len(self.default))
