"""The laboratory: what the gradients of a pool of prompts say about a training step, with 95 % intervals.

`Measurement` holds what was measured at a fixed policy. `compare` gives the second moment of the batch gradient of
several designs, and R, that of a design relative to uniform allocation (`viprl.analysis.second_moment`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from viprl.analysis.designs import (
    Design,
    best_counts,
    best_selection,
    cheapest_counts,
    expected_terms,
    expected_tokens,
    uniform,
)
from viprl.analysis.gradient_variance import VarianceLaw
from viprl.analysis.second_moment import SecondMoment, Terms, estimate, second_moment
from viprl.analysis.statistics import Estimate
from viprl.errors import DataError
from viprl.utils.arrays import FloatArray, IntArray

RESAMPLES = 300
STEPS_OF_A_RESAMPLE = 4
"""Random steps of each resample; too few would widen the intervals."""
PARTS = tuple(f.name for f in fields(SecondMoment))


@dataclass(frozen=True)
class VarianceBelief:
    """What some rollouts say about the reward variance v of each of N prompts."""

    mean: FloatArray
    """[N] E[v]."""
    square: FloatArray
    """[N] E[v^2]. A prompt that is probably settled, but perhaps not, has a mean near 0 but a larger root of this."""

    @classmethod
    def of(cls, rewards: Sequence[FloatArray]) -> VarianceBelief:
        """From the rewards of each prompt.

        With two values of the reward: under the posterior of the prior Beta(1/2, 1/2). With more: the variance of the
        rewards and half an observation at each end of their range, and its square.
        """
        values = np.unique(np.concatenate([np.asarray(r, dtype=np.float64) for r in rewards]))
        low, high = values[0], values[-1]
        sizes, sums, squares = (
            np.array([np.sum((np.asarray(r) - low) ** k) for r in rewards]) / (high - low or 1.0) ** k for k in range(3)
        )
        a, b = sums + 0.5, sizes - sums + 0.5
        n = a + b
        if len(values) <= 2:
            mean = a * b / (n * (n + 1))
            square = mean * (a + 1) * (b + 1) / ((n + 2) * (n + 3))
        else:
            mean = ((squares + 0.5) / n - (a / n) ** 2) * n / (n + 1)
            square = mean**2
        return cls((high - low) ** 2 * mean, (high - low) ** 4 * square)


@dataclass(frozen=True)
class Measurement:
    """The gradients of N prompts at a fixed policy."""

    laws: VarianceLaw
    """Of the N prompts, arrays [N]."""
    cross: FloatArray
    """[N, N] products of their gradients, see `viprl.analysis.second_moment.gradient_products`."""
    pool: float
    """P, the prompts from which a step draws its candidates without replacement, and from which the N were drawn."""
    belief: VarianceBelief
    """What designs know of the N prompts, from other, independent rollouts."""
    lengths: FloatArray | None = None
    """[N] mean length of the rollouts, in tokens; None if it is unknown."""


@dataclass(frozen=True)
class Step:
    """A training step."""

    prompts: int
    """Q, prompts that uniform allocation samples."""
    budget: int
    """C, rollouts."""
    candidates: int
    """M, prompts that a selection chooses from."""
    min_rollouts: int = 2
    max_rollouts: float = np.inf
    floor: float = 0.05
    """Smallest probability that a candidate is sampled."""


@dataclass(frozen=True)
class Outcome:
    """The second moment of the batch gradient with one design."""

    name: str
    parts: dict[str, Estimate]
    """signal, prompts, selection, rollouts and total."""
    shares: dict[str, Estimate]
    """The same, divided by the total of the uniform design; that of total is R."""
    rollouts_ratio: Estimate
    """rho, the part of the rollouts divided by that of the uniform design."""
    tokens: float | None = None
    """Tokens of a step divided by those of the uniform design; None if lengths are unknown."""

    @property
    def ratio(self) -> Estimate:
        """R, the second moment relative to the uniform design."""
        return self.shares["total"]


def usual_designs(measured: Measurement, step: Step) -> list[Design]:
    """Uniform; the best counts; the cheapest counts with uniform's variance, if lengths are known; the best selection
    with counts. All but the first know `measured.belief`.

    The selection takes |g|^2 proportional to E[v^2] and A to E[v] (of rewards 0 and 1, g = p(1-p) times a difference of
    mean scores), with factors fitted to the laws of all prompts.
    """
    belief, laws, bounds = measured.belief, measured.laws, (step.min_rollouts, step.max_rollouts)
    designs = [uniform(step.prompts, step.budget)]
    designs.append(best_counts("counts", belief.mean, step.prompts, step.budget, *bounds))
    if measured.lengths is not None:
        known = belief.mean, measured.lengths
        designs.append(cheapest_counts("match", *known, step.prompts, step.budget, *bounds))
    squared, noise = _fitted(laws.squared_gradient, belief.square), _fitted(laws.A, belief.mean)
    designs.append(best_selection("selection", squared, noise, step.candidates, step.budget, *bounds, step.floor))
    return designs


def _fitted(law: Any, shape: FloatArray) -> FloatArray:
    """[N] multiples of `shape` with the mean of `law`, or 0 if that is negative."""
    return max(float(np.mean(law)), 0.0) / (float(np.mean(shape)) or 1.0) * shape


def compare(measured: Measurement, designs: Sequence[Design], rng: np.random.Generator) -> list[Outcome]:
    """The outcome of each design. The first is what the others are compared with.

    Intervals are percentiles of a bootstrap over prompts, with the same resamples and random steps for all designs.

    Raises DataError if the second moment of the first design is not positive: the rewards hardly vary.
    """
    laws, n = measured.laws, len(measured.cross)
    seed, again = rng.integers(2**62), _resamples(n, rng)
    weights = np.array([np.bincount(rows, minlength=n) for rows in again])
    base: tuple[SecondMoment, SecondMoment] | None = None
    outcomes = []
    for design in designs:
        steps = np.random.default_rng(seed)
        point = second_moment(measured.cross, expected_terms(design, laws, steps), measured.pool)
        each = [expected_terms(design, laws, steps, rows, STEPS_OF_A_RESAMPLE) for rows in again]
        terms = Terms(design.candidates, np.array([t.selection for t in each]), np.array([t.rollouts for t in each]))
        drawn = second_moment(measured.cross, terms, measured.pool, weights)
        base = base or (point, drawn)
        if not base[0].total > 0:
            raise DataError(
                "the gradients cannot be told from zero: nearly all rewards of a prompt are equal; measure more "
                "prompts or rollouts, or check the reward"
            )
        outcomes.append(_outcome(design.name, point, drawn, *base, n))
    if measured.lengths is None:
        return outcomes
    tokens = [expected_tokens(design, measured.lengths, np.random.default_rng(seed)) for design in designs]
    return [replace(outcome, tokens=spent / tokens[0]) for outcome, spent in zip(outcomes, tokens, strict=True)]


def _resamples(n: int, rng: np.random.Generator) -> list[IntArray]:
    """Bootstrap resamples of n prompts, with at least two different ones each."""
    drawn = [rng.integers(n, size=n) for _ in range(RESAMPLES)]
    return [rows for rows in drawn if len(np.unique(rows)) > 1]


def _outcome(
    name: str, point: SecondMoment, drawn: SecondMoment, base: SecondMoment, base_drawn: SecondMoment, n: int
) -> Outcome:
    total, total_drawn = base.total, np.where(base_drawn.total > 0, base_drawn.total, np.nan)
    rollouts_drawn = np.where(base_drawn.rollouts > 0, base_drawn.rollouts, np.nan)
    parts, shares = {}, {}
    for part in (*PARTS, "total"):
        value, values = getattr(point, part), getattr(drawn, part)
        parts[part] = estimate(value, values, n)
        shares[part] = estimate(value / total, values / total_drawn, n)
    rho = estimate(point.rollouts / base.rollouts, drawn.rollouts / rollouts_drawn, n)
    return Outcome(name, parts, shares, rho)
