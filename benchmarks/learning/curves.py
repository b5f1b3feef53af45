"""From learning curves to what they show: areas, rollouts to a level, and their intervals over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from viprl.analysis.statistics import Estimate, ratio_of_means
from viprl.utils.arrays import FloatArray

POOL, HELD_OUT = 2, 3
"""Columns of a curve, after step and spent rollouts."""
LEVELS = (0.60, 0.80, 0.95)
"""Of what uniform sampling gains in the whole run with the same seed."""

Curve = Sequence[Sequence[float]]
"""Rows (step, spent rollouts, success on the pool, success on held-out problems)."""


def by_seed(rows: Sequence[Mapping[str, Any]], arm: str, regime: str) -> dict[int, Curve]:
    """The curves of one arm."""
    return {row["seed"]: row["curve"] for row in rows if row["arm"] == arm and row["regime"] == regime}


def at(curve: Curve, spent: FloatArray, column: int) -> FloatArray:
    """Success after these numbers of rollouts, linear between evaluations."""
    points = np.array(curve, dtype=float)
    return np.interp(spent, points[:, 1], points[:, column])


def area(curve: Curve, budget: float, column: int) -> float:
    """Mean gain over the run: the area between the curve and its start, over the budget."""
    spent = np.linspace(0, budget, 241)
    return float(np.mean(at(curve, spent, column)) - curve[0][column])


def rollouts_to(curve: Curve, level: float, budget: float, column: int = POOL) -> float:
    """Rollouts until the success first reaches the level; the budget if it does not."""
    spent = np.linspace(0, budget, 1921)
    reached = np.flatnonzero(at(curve, spent, column) >= level)
    return float(spent[reached[0]]) if len(reached) else float(budget)


def area_ratio(arm: Mapping[int, Curve], uniform: Mapping[int, Curve], budget: float, column: int) -> Estimate | None:
    """Mean area of the arm over that of uniform, paired by seed; the interval is that of a ratio of means."""
    seeds = sorted(arm.keys() & uniform.keys())
    gains = (np.array([area(curves[seed], budget, column) for seed in seeds]) for curves in (arm, uniform))
    return ratio_of_means(*gains)


def speed_ups(arm: Mapping[int, Curve], uniform: Mapping[int, Curve], budget: float) -> list[Estimate | None]:
    """For each of `LEVELS`: rollouts that uniform needs over those of the arm, geometric mean over seeds.

    An arm that does not reach the level counts as if it reached it with its last rollout, so its ratio is an upper
    bound.
    """
    return [_speed_up(arm, uniform, budget, share) for share in LEVELS]


def mean_speed_up(arm: Mapping[int, Curve], uniform: Mapping[int, Curve], budget: float) -> Estimate | None:
    """The geometric mean over seeds and levels."""
    logs = np.mean([_logs(arm, uniform, budget, share) for share in LEVELS], axis=0)
    return _exponential(Estimate.of(logs))


def _speed_up(arm: Mapping[int, Curve], uniform: Mapping[int, Curve], budget: float, share: float) -> Estimate | None:
    return _exponential(Estimate.of(_logs(arm, uniform, budget, share)))


def _logs(arm: Mapping[int, Curve], uniform: Mapping[int, Curve], budget: float, share: float) -> list[float]:
    logs = []
    for seed in sorted(arm.keys() & uniform.keys()):
        reference = uniform[seed]
        start, end = reference[0][POOL], float(at(reference, np.array([budget]), POOL)[0])
        level = start + share * (end - start)
        needed = rollouts_to(reference, level, budget), rollouts_to(arm[seed], level, budget)
        logs.append(math.log(needed[0] / needed[1]))
    return logs


@dataclass(frozen=True)
class Matched:
    """How an arm that spends less compares with uniform sampling, step by step."""

    gain: Estimate
    """Area under the curve over steps on the pool, relative to uniform's mean area; paired by seed."""
    equivalent: bool
    """Whether the area is within `MARGIN` of uniform's: two one-sided t tests at 5 %."""
    held_out: Estimate
    """The same area on held-out prompts."""
    saved: Estimate
    """Share of uniform's rollouts that is not spent, from step `FIRST` on."""


MARGIN = 0.1
"""Of the area under uniform's curve."""
FIRST = 20
"""The first evaluation after the first epoch of uniform sampling."""


def matched(arm: Mapping[int, Curve], uniform: Mapping[int, Curve]) -> Matched | None:
    """None with fewer than two seeds."""
    seeds = sorted(arm.keys() & uniform.keys())
    if len(seeds) < 2:
        return None

    def relative(column: int) -> FloatArray:
        own, reference = (np.array([_area_by_step(curves[s], column) for s in seeds]) for curves in (arm, uniform))
        return (own - reference) / reference.mean() + 1

    gains = relative(POOL)
    half = float(gains.std(ddof=1) / math.sqrt(len(seeds)) * student_t.ppf(0.95, len(seeds) - 1))
    inside = abs(float(gains.mean()) - 1) + half < MARGIN
    saved = [1 - _spent_from(arm[seed], FIRST) / _spent_from(uniform[seed], FIRST) for seed in seeds]
    return Matched(_estimate(gains), inside, _estimate(relative(HELD_OUT)), _estimate(saved))


def _estimate(values: Sequence[float] | FloatArray) -> Estimate:
    found = Estimate.of(values)
    if found is None:
        raise ValueError("no values")
    return found


def _area_by_step(curve: Curve, column: int) -> float:
    """Mean gain over the steps of a run."""
    points = np.array(curve, dtype=float)
    return float(np.trapezoid(points[:, column] - points[0, column], points[:, 0]) / points[-1, 0])


def _spent_from(curve: Curve, step: int) -> float:
    points = np.array(curve, dtype=float)
    return float(points[-1, 1] - np.interp(step, points[:, 0], points[:, 1]))


def _exponential(estimate: Estimate | None) -> Estimate | None:
    """exp of a mean of logarithms and of its interval."""
    if estimate is None:
        return None
    ends = (None if end is None else math.exp(end) for end in (estimate.low, estimate.high))
    return Estimate(math.exp(estimate.mean), estimate.n, None, *ends)
