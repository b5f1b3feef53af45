"""Curves and estimates from the rows and the summary of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from viprl.analysis.statistics import Estimate, finite, known
from viprl.runs.reader import Run
from viprl.utils.arrays import FloatArray
from viprl.utils.numerics import number

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Curve:
    """One metric of one strategy over training."""

    steps: FloatArray
    """[T] training steps, ascending."""
    rollouts: FloatArray
    """[T] rollouts generated up to each step; NaN if the run did not log them."""
    values: FloatArray
    """[seeds, T] the metric; NaN where a seed logged nothing."""
    seeds: tuple[int, ...]

    @property
    def mean(self) -> FloatArray:
        """[T] mean over the seeds that logged the step."""
        counts = np.isfinite(self.values).sum(axis=0)
        totals = np.nansum(self.values, axis=0)
        return np.divide(totals, counts, out=np.full(counts.shape, np.nan), where=counts > 0)

    def last(self) -> dict[int, float]:
        """The last finite value of each seed."""
        finals = {seed: finite(row) for seed, row in zip(self.seeds, self.values, strict=True)}
        return {seed: float(row[-1]) for seed, row in finals.items() if row.size}


def curve(run: Run, strategy: str, metric: str) -> Curve | None:
    """A metric of a strategy; None if it was never logged. If a step was logged repeatedly, the last row counts."""
    rows = run.rows_of(strategy)
    logged = {
        (seed_of(row), _drawable(row["step"])): value
        for row in rows
        if math.isfinite(value := _drawable(row.get(metric))) and math.isfinite(_drawable(row["step"]))
    }
    if not logged:
        return None
    seeds = tuple(sorted({seed for seed, _ in logged}))
    steps = np.array(sorted({step for _, step in logged}))
    values = np.array([[logged.get((seed, step), np.nan) for step in steps] for seed in seeds])
    return Curve(steps, _rollouts_at(steps, rows), values, seeds)


def estimates(run: Run, key: str) -> dict[str, Estimate]:
    """`summary[key]` as `{strategy: Estimate}`."""
    return _estimates(run.summary, key)


def estimates_by_step(run: Run, key: str) -> dict[str, list[tuple[float, Estimate]]]:
    """`summary["by_step"][step][key]` as `{strategy: [(step, Estimate), ...]}`, steps ascending."""
    return _numbered(run.summary.get("by_step"), key)


def means_by_seed(run: Run, key: str) -> dict[str, dict[int, float]]:
    """`summary["by_seed"][seed][key]` as `{strategy: {seed: mean}}`, seeds ascending."""
    found = _numbered(run.summary.get("by_seed"), key)
    return {name: {int(seed): estimate.mean for seed, estimate in pairs} for name, pairs in found.items()}


def _numbered(entries: object, key: str) -> dict[str, list[tuple[float, Estimate]]]:
    numbered = [(float(at), entry) for at, entry in mapping(entries).items() if str(at).isdecimal()]
    found: dict[str, list[tuple[float, Estimate]]] = {}
    for at, entry in sorted(numbered, key=lambda pair: pair[0]):
        for name, estimate in _estimates(entry, key).items():
            found.setdefault(name, []).append((at, estimate))
    return found


def _estimates(entry: object, key: str) -> dict[str, Estimate]:
    """The estimates in `{key: {strategy: {"mean", "sd", "n"}}}`, without those that have no mean."""
    return known({str(name): Estimate.read(value) for name, value in mapping(mapping(entry).get(key)).items()})


def mapping(value: object) -> Mapping[str, Any]:
    """`value` if it is a mapping, otherwise an empty one."""
    return value if isinstance(value, Mapping) else {}


def seed_of(row: Mapping[str, Any]) -> int:
    """The seed of the training of a row; 0 if it has none."""
    seed = number(row.get("seed"))
    return int(seed) if math.isfinite(seed) else 0


def _drawable(value: object) -> float:
    """A number as a float; NaN for everything else and for numbers beyond float32, which no axis can show."""
    found = number(value)
    return found if abs(found) <= _LARGEST else math.nan


def _rollouts_at(steps: FloatArray, rows: Sequence[Mapping[str, Any]]) -> FloatArray:
    """[T] rollouts up to `steps`: mean over seeds, interpolated for rows (evaluations) that do not have them."""
    totals: dict[float, list[float]] = {}
    for row in rows:
        if math.isfinite(rollouts := _drawable(row.get("rollouts"))):
            totals.setdefault(number(row["step"]), []).append(rollouts)
    if not totals:
        return np.full(steps.shape, np.nan)
    known = sorted(({0.0: [0.0]} | totals).items())
    return np.interp(steps, [step for step, _ in known], [float(np.mean(at)) for _, at in known])
