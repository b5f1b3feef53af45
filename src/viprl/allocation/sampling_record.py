"""When each prompt was last offered for selection, and when it was last sampled."""

from __future__ import annotations

import numpy as np

from viprl.predictors.table import RowIndex, grown
from viprl.utils.state_checks import array_entry, keys_entry, number_entry
from viprl.utils.state_file import State

WINDOW = 100
"""Steps after which a prompt that was not sampled counts as neglected."""


class SamplingRecord:
    """Steps of selection by prompt. A million prompts take 8 MB and their keys."""

    def __init__(self) -> None:
        self._step = 0
        self._index = RowIndex()
        self._last = np.empty((0, 2), dtype=np.int32)  # step of the last offer, of the last sample

    def add(self, offered: tuple[str, ...], sampled: tuple[str, ...]) -> None:
        """One step, with the distinct prompts that were offered and those of them that were sampled."""
        self._step += 1
        rows = self._index.add(offered)
        self._last = grown(self._last, len(self._index), fill=-WINDOW)
        self._last[rows, 0] = self._step
        self._last[self._index.find(sampled), 1] = self._step

    @property
    def neglected(self) -> float:
        """Share of the prompts offered in the last `WINDOW` steps that were not sampled in them; NaN before any."""
        offered, sampled = self._last[: len(self._index)].T
        recent = offered > self._step - WINDOW
        return float((sampled[recent] <= self._step - WINDOW).mean()) if recent.any() else float("nan")

    def state_dict(self) -> State:
        return {"step": self._step, "keys": list(self._index.keys), "last": self._last[: len(self._index)].copy()}

    def load_state_dict(self, state: State) -> None:
        keys = keys_entry(state)
        last = array_entry(state, "last", len(keys), 2, dtype=np.int32)
        self._step = int(number_entry(state, "step", least=0, whole=True))
        self._index, self._last = RowIndex(keys), last
