"""Estimates with their 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from viprl.utils.arrays import FloatArray
from viprl.utils.numerics import number


@dataclass(frozen=True)
class Estimate:
    """A mean of `n` values, with their standard deviation and the 95 % interval of the mean.

    `sd`, `low` and `high` are None if the values do not determine them (n < 2).
    """

    mean: float
    n: int
    sd: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def from_moments(cls, mean: float, sd: float | None, n: int) -> Estimate:
        """Student's t interval, mean +- t(.975; n - 1) sd / sqrt(n), from the moments of n values."""
        if sd is None or n < 2:
            return cls(mean, n)
        half = float(stdtrit(n - 1, 0.975)) * sd / math.sqrt(n)
        return cls(mean, n, sd, mean - half, mean + half)

    @classmethod
    def of(cls, values: ArrayLike) -> Estimate | None:
        """The estimate from the finite entries of `values`; None if there are none."""
        known = finite(values)
        if known.size == 0:
            return None
        sd = float(np.std(known, ddof=1)) if known.size > 1 else None
        return cls.from_moments(float(np.mean(known)), sd, known.size)

    @classmethod
    def read(cls, entry: object) -> Estimate | None:
        """The estimate in an entry of summary.json, `{"mean", "sd", "n"}` or `{"mean", "low", "high", "n"}`.

        None if it has no mean.
        """
        if not isinstance(entry, Mapping) or not math.isfinite(mean := number(entry.get("mean"))):
            return None
        low, high, sd, count = (number(entry.get(key)) for key in ("low", "high", "sd", "n"))
        n = int(count) if math.isfinite(count) else 1
        spread = sd if math.isfinite(sd) else None
        if math.isfinite(low) and math.isfinite(high):
            return cls(mean, n, spread, low, high)
        return cls.from_moments(mean, spread, n)

    @property
    def interval(self) -> tuple[float, float] | None:
        """`low` and `high`; None if the values do not determine them."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def scaled(self, factor: float) -> Estimate:
        """The same estimate in another unit (factor > 0)."""
        sd, low, high = (None if v is None else factor * v for v in (self.sd, self.low, self.high))
        return Estimate(factor * self.mean, self.n, sd, low, high)

    def against(self, reference: float) -> str:
        """ "lower" or "higher" than `reference`, "within noise" of it, or "unknown" without an interval."""
        if self.interval is None:
            return "unknown"
        low, high = self.interval
        return "lower" if high < reference else "higher" if low > reference else "within noise"


def known(estimates: Mapping[str, Estimate | None]) -> dict[str, Estimate]:
    """The estimates that exist."""
    return {name: estimate for name, estimate in estimates.items() if estimate is not None}


def difference(left: Estimate, right: Estimate) -> Estimate:
    """left - right of independent estimates, with Welch's interval; n is the smaller of the two."""
    mean, n = left.mean - right.mean, min(left.n, right.n)
    if left.sd is None or right.sd is None:
        return Estimate(mean, n)
    a, b = left.sd**2 / left.n, right.sd**2 / right.n
    if a + b == 0:
        return Estimate(mean, n, 0.0, mean, mean)
    freedom = (a + b) ** 2 / (a**2 / (left.n - 1) + b**2 / (right.n - 1))
    half = float(stdtrit(freedom, 0.975)) * math.sqrt(a + b)
    return Estimate(mean, n, None, mean - half, mean + half)


def paired_difference(left: Mapping[int, float], right: Mapping[int, float]) -> Estimate | None:
    """Mean of left - right over the seeds that both have; None if there are none."""
    return Estimate.of([left[seed] - right[seed] for seed in sorted(left.keys() & right.keys())])


def ratio_of_means(x: FloatArray, y: FloatArray) -> Estimate | None:
    """mean(x)/mean(y) of paired values [n], with the interval of the linearised ratio; None if there are none, and for
    a denominator of 0."""
    if len(x) == 0 or y.mean() == 0:
        return None
    ratio = float(x.mean() / y.mean())
    residual = Estimate.of((x - ratio * y) / y.mean())
    sd = None if residual is None else residual.sd
    return Estimate.from_moments(ratio, sd, len(x))


def over_blocks(values: FloatArray, blocks: int = 8) -> Estimate | None:
    """Mean of correlated steps [seeds, T], with an interval from the means of consecutive blocks.

    Neighbouring steps share prompts and a policy, so an interval from single steps would be too narrow.
    Batch means: Conway, "Some tactical problems in digital simulation", 1963.
    """
    pieces = [piece for row in values for piece in np.array_split(finite(row), blocks) if piece.size]
    return Estimate.of([float(np.mean(piece)) for piece in pieces])


def smooth(values: FloatArray, window: int) -> FloatArray:
    """[T] centred moving mean over the finite entries within `window` steps; shorter at the ends."""
    known = np.isfinite(values)
    kernel = np.ones(max(1, min(window, values.size)))
    totals = np.convolve(np.where(known, values, 0.0), kernel, mode="same")
    counts = np.convolve(known.astype(np.float64), kernel, mode="same")
    return np.divide(totals, counts, out=np.full(values.shape, np.nan), where=counts > 0.5)


def finite(values: ArrayLike) -> FloatArray:
    """The finite entries, in one dimension."""
    array = np.asarray(values, dtype=np.float64).ravel()
    return array[np.isfinite(array)]
