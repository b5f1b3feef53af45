"""A variance model that is a table: any expected variance of each prompt as a function of its rollouts."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from viprl.allocation.variance_models import VarianceModel
from viprl.utils.arrays import FloatArray, IntArray


class TabulatedVariance(VarianceModel):
    """f(n) of each prompt from a table [Q, U + 1], convex and decreasing. Build one with `of`."""

    name = "tabulated"
    min_rollouts = 0

    def __init__(self, values: FloatArray) -> None:
        self.values = values
        drops = -np.diff(values, axis=1)
        self._drops = np.column_stack([drops, drops[:, -1:] / 2])  # positive beyond the table too

    @classmethod
    def of(cls, values: FloatArray, least: IntArray) -> TabulatedVariance:
        """The largest convex decreasing function below values [Q, U + 1], from `least` [Q] rollouts on."""
        convex = np.empty_like(values)
        for q, (row, low) in enumerate(zip(values, least.tolist(), strict=True)):
            convex[q, low:] = _convex(row[low:])
            convex[q, :low] = convex[q, low]
        return cls(convex)

    def factor(self, n: ArrayLike) -> FloatArray:
        return self.values[np.arange(len(self.values)), self._index(n)]

    def marginal(self, n: ArrayLike) -> FloatArray:
        return self._drops[np.arange(len(self.values)), self._index(n)]

    def count_at_threshold(self, ratio: ArrayLike) -> FloatArray:
        above = self._drops * np.broadcast_to(np.asarray(ratio, dtype=float), len(self.values))[:, None] > 1
        # below its least size a prompt has no decrease: the last large one counts
        return np.where(above.any(axis=1), above.shape[1] - np.argmax(above[:, ::-1], axis=1), 0.0)

    def continuous_count(self, ratio: ArrayLike) -> FloatArray:
        raise NotImplementedError("a table has no continuous relaxation")

    def _approximate_count(self, ratio: FloatArray) -> FloatArray:
        return self.count_at_threshold(ratio)

    def part(self, mask: np.ndarray) -> VarianceModel:
        return TabulatedVariance(self.values[mask])

    def _index(self, n: ArrayLike) -> IntArray:
        return np.broadcast_to(np.asarray(n, dtype=np.int64), len(self.values))


def _convex(row: FloatArray) -> FloatArray:
    """The largest convex function below a row, made decreasing: equal decreases are pooled (Ayer et al., 1955)."""
    drops, sizes = [], []
    for drop in -np.diff(row):
        drops.append(float(drop))
        sizes.append(1)
        while len(drops) > 1 and drops[-1] >= drops[-2]:
            size = sizes.pop()
            last = drops.pop()
            drops[-1] = (drops[-1] * sizes[-1] + last * size) / (sizes[-1] + size)
            sizes[-1] += size
    falling = np.maximum(np.repeat(drops, sizes), 1e-12 * max(abs(float(row[0])), 1e-280))
    falling *= 1 + 1e-7 * np.arange(len(falling), 0, -1)  # the path of decreases has no ties within a prompt
    return row[0] - np.concatenate([[0.0], np.cumsum(falling)])
