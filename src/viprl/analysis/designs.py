"""Designs of a step: how many candidates it has, with which probability each is sampled, and with how many rollouts.

`optimal_selection` minimises the second moment of the batch gradient (`viprl.analysis.second_moment`, equation (1)) for
a known squared gradient G = |g|^2 and rollout variance A / (n - 1) of each candidate:

    minimise  sum_q (1/pi_q - 1) G_q + A_q / ((n_q - 1) pi_q)    with  sum_q pi_q n_q = C.

With the multiplier l of the budget, the best probability and count of a candidate are

    pi = sqrt(G / l),  n = 1 + sqrt(A / G)      where that is below 1; pi = sqrt((G + V(n)) / (l n)) if n is at a bound
    pi = b,            n = 1 + sqrt(A / l) / b  where pi is at a bound b, 1 or the floor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from viprl.allocation.optimum import allocate_weights
from viprl.analysis.gradient_variance import VarianceLaw
from viprl.analysis.second_moment import Terms, terms
from viprl.errors import InputError
from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.numerics import bisect

BATCHES = 256
"""Simulated steps of a design."""

Choice = tuple[FloatArray, FloatArray]
"""[M] inclusion probabilities and [M] rollouts of each candidate if it is sampled."""


@dataclass(frozen=True)
class Design:
    """What a step does with its candidates."""

    name: str
    candidates: int
    """M."""
    choose: Callable[[IntArray], Choice]
    """From the rows [M] of the candidates among the measured prompts."""


def uniform(prompts: int, budget: int) -> Design:
    """Equal counts for Q prompts; those in front get one more if Q does not divide the budget C."""
    counts = budget // prompts + (np.arange(prompts) < budget % prompts).astype(np.float64)
    return Design("uniform", prompts, lambda rows: (np.ones(prompts), counts))


def best_counts(
    name: str, weights: FloatArray, prompts: int, budget: int, min_rollouts: int, max_rollouts: float
) -> Design:
    """The best counts for variance weights [N] of the measured prompts; all Q candidates are sampled."""

    def choose(rows: IntArray) -> Choice:
        plan = allocate_weights(weights[rows], budget=budget, min_rollouts=min_rollouts, max_rollouts=max_rollouts)
        return np.ones(prompts), plan.counts.astype(np.float64)

    return Design(name, prompts, choose)


def cheapest_counts(
    name: str,
    weights: FloatArray,
    lengths: FloatArray,
    prompts: int,
    budget: int,
    min_rollouts: int,
    max_rollouts: float,
) -> Design:
    """The counts with the fewest tokens whose variance is that of uniform counts; lengths [N] as `expected_tokens`."""

    def choose(rows: IntArray) -> Choice:
        plan = allocate_weights(
            weights[rows],
            match_uniform=budget,
            costs=lengths[rows],
            min_rollouts=min_rollouts,
            max_rollouts=max_rollouts,
        )
        return np.ones(prompts), plan.counts.astype(np.float64)

    return Design(name, prompts, choose)


def best_selection(
    name: str,
    squared_gradient: FloatArray,
    rollout_variance: FloatArray,
    candidates: int,
    budget: int,
    min_rollouts: int,
    max_rollouts: float,
    floor: float = 0.05,
) -> Design:
    """`optimal_selection` with the given G [N] and A [N] of the measured prompts."""

    def choose(rows: IntArray) -> Choice:
        known = squared_gradient[rows], rollout_variance[rows]
        return optimal_selection(
            *known, budget=budget, min_rollouts=min_rollouts, max_rollouts=max_rollouts, floor=floor
        )

    return Design(name, candidates, choose)


def optimal_selection(
    squared_gradient: ArrayLike,
    rollout_variance: ArrayLike,
    *,
    budget: float,
    min_rollouts: float = 2,
    max_rollouts: float = np.inf,
    floor: float = 0.05,
) -> Choice:
    """Inclusion probabilities pi [M] and counts n [M] that minimise the second moment, sum pi n = budget.

    Args:
        squared_gradient: [M] G = |g|^2 of each candidate, at least 0.
        rollout_variance: [M] A, where A / (n - 1) is the variance of the candidate's gradient; at least 0.
        budget: C, expected rollouts of the step.
        min_rollouts, max_rollouts: bounds on the count of a candidate that is sampled; min_rollouts >= 2.
        floor: smallest inclusion probability.

    Returns: pi and n; counts are not whole numbers.

    Raises InputError for a budget that the bounds cannot meet, and for other arguments out of range.
    """
    G, A = (np.asarray(x, dtype=np.float64) for x in (squared_gradient, rollout_variance))
    if G.ndim != 1 or G.shape != A.shape or not (np.all(G >= 0) and np.all(A >= 0)):
        raise InputError("squared_gradient and rollout_variance must be [M], both at least 0")
    if not (2 <= min_rollouts <= max_rollouts and 0 < floor <= 1):
        raise InputError(
            f"min_rollouts={min_rollouts}, max_rollouts={max_rollouts}, floor={floor}; expected "
            "2 <= min_rollouts <= max_rollouts and 0 < floor <= 1"
        )
    least, most = floor * min_rollouts * len(G), max_rollouts * len(G)
    if not least <= budget <= most:
        raise InputError(f"budget is {budget}, but {len(G)} candidates take {least:g} to {most:g} rollouts")

    def at(multiplier: float) -> Choice:
        with np.errstate(divide="ignore", invalid="ignore"):
            free = 1 + np.sqrt(np.where(A > 0, A / G, 0.0))
            n = np.minimum(np.maximum(free, min_rollouts), np.minimum(max_rollouts, budget / floor))
            pi = np.clip(np.sqrt((G + A / (n - 1)) / (multiplier * n)), floor, 1)
        bound = (pi <= floor) | (pi >= 1)
        at_bound = np.clip(1 + np.sqrt(A / multiplier) / pi, min_rollouts, max_rollouts)
        return pi, np.where(bound, at_bound, n)

    scale = float(max(G.max(), A.max()))
    if scale == 0:  # nothing to gain anywhere: spread evenly
        n = np.full(len(G), np.clip(budget / len(G), min_rollouts, max_rollouts))
        return np.minimum(budget / (n * len(G)), 1.0), n
    cost = np.inf

    def too_much(multiplier: float) -> bool:
        nonlocal cost
        pi, n = at(multiplier)
        cost = float(pi @ n)
        return cost > budget

    ends = bisect(too_much, scale * 1e-18, scale * 1e18, geometric=True, done=lambda: abs(cost / budget - 1) < 1e-9)
    return min(map(at, ends), key=lambda choice: abs(float(choice[0] @ choice[1]) - budget))


def expected_terms(
    design: Design, laws: VarianceLaw, rng: np.random.Generator, rows: IntArray | None = None, batches: int = 0
) -> Terms:
    """The terms of a design, averaged over at least `batches` random steps of M of the measured prompts.

    The probability and the count of a prompt depend on the other candidates, because they share a budget.

    Args:
        design: what a step does.
        laws: of the N measured prompts.
        rng: source of the steps.
        rows: draw from these prompts, which may repeat. Default: all, once.
        batches: fewest steps. Default: `BATCHES`.

    Raises InputError for more candidates than measured prompts.
    """
    rows = np.arange(len(np.atleast_1d(laws.A))) if rows is None else rows
    M, steps = design.candidates, random_steps(design, rows, rng, batches or BATCHES)
    found = [terms(laws.at(chosen), M, counts, pi) for chosen, pi, counts in steps]
    return Terms(M, *(np.mean([getattr(one, part) for one in found]) for part in ("selection", "rollouts")))


def expected_tokens(design: Design, lengths: FloatArray, rng: np.random.Generator) -> float:
    """Tokens of a step, averaged as in `expected_terms`; `lengths` [N] are the mean lengths of the rollouts."""
    steps = random_steps(design, np.arange(len(lengths)), rng, BATCHES)
    return float(np.mean([pi * counts @ lengths[chosen] for chosen, pi, counts in steps]))


def random_steps(
    design: Design, rows: IntArray, rng: np.random.Generator, batches: int
) -> Iterator[tuple[IntArray, FloatArray, FloatArray]]:
    """At least `batches` random steps: the candidates [M] among `rows`, their probabilities and counts.

    Raises InputError for more candidates than rows.
    """
    M = design.candidates
    if len(rows) < M:
        raise InputError(f"{design.name} has {M} candidates a step, but only {len(rows)} prompts are measured")
    steps = len(rows) // M  # of one pass, in which no prompt takes part twice
    for _ in range(-(-batches // steps)):
        for chosen in rng.permutation(rows)[: steps * M].reshape(steps, M):
            yield chosen, *design.choose(chosen)
