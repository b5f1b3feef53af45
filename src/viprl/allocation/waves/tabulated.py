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

    def __init__(self, values: FloatArray, decreases: FloatArray) -> None:
        self.values, self._decreases = values, decreases

    @classmethod
    def of(cls, values: FloatArray, least: IntArray) -> TabulatedVariance:
        """The largest convex decreasing function below values [Q, U + 1], from `least` [Q] rollouts on.

        Where nothing decreases, a negligible decrease remains, the same for all prompts: they share evenly what the
        others cannot take.
        """
        n = np.arange(values.shape[1])
        unit = float(np.max(values, initial=0, where=np.isfinite(values))) or 1.0
        negligible = 1e-12 * unit / ((n + 1) * (n + 2))
        convex, decreases = np.empty_like(values), np.zeros_like(values)
        for q, (row, low) in enumerate(zip(values, least.tolist(), strict=True)):
            drops = _pooled(-np.diff(row[low:], append=row[-1]))
            drops = np.maximum(drops, negligible[low:])
            drops *= 1 + 1e-7 * np.arange(len(drops), 0, -1)  # the path of decreases has no ties within a prompt
            decreases[q, low:] = drops
            convex[q, : low + 1] = row[low]
            convex[q, low + 1 :] = row[low] - np.cumsum(drops[:-1])
        return cls(convex, decreases)

    def factor(self, n: ArrayLike) -> FloatArray:
        return self.values[np.arange(len(self.values)), self._index(n)]

    def marginal(self, n: ArrayLike) -> FloatArray:
        return self._decreases[np.arange(len(self.values)), self._index(n)]

    def count_at_threshold(self, ratio: ArrayLike) -> FloatArray:
        above = self._decreases * np.broadcast_to(np.asarray(ratio, dtype=float), len(self.values))[:, None] > 1
        # below its least size a prompt has no decrease: the last large one counts
        return np.where(above.any(axis=1), above.shape[1] - np.argmax(above[:, ::-1], axis=1), 0.0)

    def continuous_count(self, ratio: ArrayLike) -> FloatArray:
        raise NotImplementedError("a table has no continuous relaxation")

    def _approximate_count(self, ratio: FloatArray) -> FloatArray:
        return self.count_at_threshold(ratio)

    def part(self, mask: np.ndarray) -> VarianceModel:
        return TabulatedVariance(self.values[mask], self._decreases[mask])

    def _index(self, n: ArrayLike) -> IntArray:
        return np.broadcast_to(np.asarray(n, dtype=np.int64), len(self.values))


def _pooled(decreases: FloatArray) -> FloatArray:
    """Decreases of the largest convex function below: those that grow are pooled (Ayer et al., 1955)."""
    means: list[float] = []
    sizes: list[int] = []
    for decrease in decreases:
        mean, size = float(decrease), 1
        while means and mean > means[-1]:
            mean = (means[-1] * sizes[-1] + mean * size) / (sizes[-1] + size)
            size += sizes.pop()
            means.pop()
        means.append(mean)
        sizes.append(size)
    return np.repeat(means, sizes)
