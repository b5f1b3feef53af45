"""The plan of one training step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from viprl.prompts import Prompt
from viprl.utils.arrays import IntArray


@dataclass(frozen=True, eq=False)
class PlannedBatch:
    """The prompts of a step and the number of rollouts of each."""

    prompts: list[Prompt]
    """[Q]"""
    counts: IntArray
    """[Q] planned rollouts, sum C."""

    def split(self, values: Any) -> list[list[Any]]:
        """One list for each prompt from `values` [C], an array or a sequence in the order of the prompts."""
        flat: Sequence[Any] = values.tolist() if isinstance(values, np.ndarray) else list(values)
        ends = np.cumsum(self.counts).tolist()
        return [flat[end - n : end] for end, n in zip(ends, self.counts, strict=True)]
