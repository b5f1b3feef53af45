"""What a predictor is: beliefs about each prompt's success, before sampling, that outcomes update."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import repeat
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
        if mask.all():
            return self
        keys = tuple(key for key, keep in zip(self.keys, mask, strict=True) if keep)
        return Batch(keys, None if self.features is None else self.features[mask])


@dataclass(frozen=True)
class Prediction:
    """What is believed of a batch before sampling."""

    success_probability: FloatArray
    """[Q] E[p]."""
    reward_variance: FloatArray
    """[Q] E[p(1-p)]; p(1-p) for a point prediction."""
    text_score: FloatArray | None = None
    """[Q] logit of what the text alone says; None where the predictor reads none."""
    learned_weight: FloatArray | None = None
    """[Q] what `viprl.weights` made of all this; None where nothing did."""

    @property
    def weight(self) -> FloatArray:
        """[Q] the weights a of the allocation; its objective sum_q a_q f(n_q) is linear in them."""
        return self.reward_variance if self.learned_weight is None else self.learned_weight

    def at(self, rows: np.ndarray) -> Prediction:
        """The prediction for the prompts `rows`."""
        parts = (self.success_probability, self.reward_variance, self.text_score, self.learned_weight)
        return Prediction(*(None if part is None else part[rows] for part in parts))  # type: ignore[arg-type]

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
    """`array` with at least `rows` rows; capacity doubles, so that appending costs little on average."""
    if len(array) >= rows:
        return array
    bigger = np.full((max(rows, 2 * len(array), 64), *array.shape[1:]), fill, dtype=array.dtype)
    bigger[: len(array)] = array
    return bigger
