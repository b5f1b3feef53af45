"""What a predictor is: beliefs about each prompt's success, before sampling, that outcomes update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from viprl.variance import FloatArray

State = dict[str, Any]


@dataclass(frozen=True)
class Batch:
    """Prompts as predictors see them."""

    keys: tuple[str, ...]
    """[Q] identity of each prompt; distinct within a batch."""
    features: FloatArray | None
    """[Q, d] feature vectors; None when the strategy runs without."""

    def __len__(self) -> int:
        return len(self.keys)

    def select(self, mask: np.ndarray) -> Batch:
        """The prompts where `mask` [Q] is true."""
        keys = tuple(key for key, keep in zip(self.keys, mask, strict=True) if keep)
        return Batch(keys, None if self.features is None else self.features[mask])


@dataclass(frozen=True)
class Prediction:
    """What is believed of a batch before sampling."""

    success_probability: FloatArray
    """[Q] E[p]."""
    reward_variance: FloatArray
    """[Q] E[p(1-p)], the weight of the allocation (the objective is linear in it); p(1-p) for a point prediction."""

    @classmethod
    def of_points(cls, p: FloatArray) -> Prediction:
        """A prediction that knows no doubt."""
        return cls(p, p * (1 - p))


class Predictor(Protocol):
    """The lifecycle of every predictor. `predict` changes nothing; all randomness and history is in the state."""

    uses_features: bool

    def register(self, batch: Batch) -> None:
        """Prompts known in advance; most predictors need no such thing."""
        return None

    def predict(self, batch: Batch) -> Prediction:
        """Beliefs for prompts seen before or new."""

    def observe(self, batch: Batch, successes: FloatArray, rollouts: FloatArray) -> None:
        """Learn from [Q] successes among [Q] scorable rollouts; prompts with none are skipped."""

    def state_dict(self) -> State:
        """Everything needed to go on: arrays, numbers, strings, lists and dicts of those."""

    def load_state_dict(self, state: State) -> None:
        """Take over what `state_dict` gave."""


class RowIndex:
    """Rows of growing arrays, one for each prompt key, in the order of arrival."""

    def __init__(self, keys: list[str] | None = None) -> None:
        self.keys: list[str] = list(keys or [])
        self._row = {key: row for row, key in enumerate(self.keys)}

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, keys: tuple[str, ...]) -> np.ndarray:
        """[Q] row of each key, -1 for a new one."""
        return np.array([self._row.get(key, -1) for key in keys], dtype=np.int64)

    def add(self, keys: tuple[str, ...]) -> np.ndarray:
        """[Q] row of each key, new keys appended."""
        for key in keys:
            if key not in self._row:
                self._row[key] = len(self.keys)
                self.keys.append(key)
        return self.find(keys)


def grown(array: np.ndarray, rows: int, fill: float = 0.0) -> np.ndarray:
    """`array` with at least `rows` rows; capacity doubles, so that appending costs little on average."""
    if len(array) >= rows:
        return array
    bigger = np.full((max(rows, 2 * len(array), 64), *array.shape[1:]), fill, dtype=array.dtype)
    bigger[: len(array)] = array
    return bigger
