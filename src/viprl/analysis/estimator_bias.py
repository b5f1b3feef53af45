"""The expectation of a gradient estimator relative to the true gradient, for binary rewards.

With success probability p the scores satisfy E[Z | success] = g / p and E[Z | failure] = -g / (1 - p), because E Z = 0
and the gradient of p is g = E[(r - p) Z]. So whatever coefficients c_i an estimator gives the scores of n rollouts, as
long as they depend on the scores through the rewards alone,

    E[sum_i c_i Z_i] = s g,        s = E[sum_i c_i (r_i - p)] / (p (1 - p)),

and the estimator is unbiased if s = 1 for every p.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from viprl.analysis.statistics import Estimate
from viprl.errors import InputError
from viprl.utils.arrays import FloatArray

ENUMERATED = 14
"""Most rollouts of a group of which all sequences of rewards are enumerated."""
DRAWS = 20_000

Coefficients = Callable[[FloatArray], FloatArray]
"""From the rewards [n] of a group, each 0 or 1, to the factor of each rollout's score in the prompt's gradient [n]."""
Sampled = Iterable[tuple[int, FloatArray, FloatArray]]
"""For each prompt that was sampled its index, its rewards and the factors of its scores in the batch gradient."""


def gradient_scale(coefficients: Coefficients, p: float, n: int, rng: np.random.Generator | None = None) -> Estimate:
    """s, the expected gradient of a prompt relative to the true one: 1 if the estimator is unbiased.

    Example:
        gradient_scale(lambda r: group_advantages(r, [8], "mean") / 8, p=0.3, n=8).mean       # 7/8

    Args:
        coefficients: of the scores, such as advantages / n. An estimator that samples in waves gives 0 to the rollouts
            that it would not have sampled.
        p: success probability, 0 < p < 1.
        n: rollouts; with at most `ENUMERATED` the result is exact, otherwise a mean of `DRAWS` draws.
        rng: source of the draws.
    """
    _check([p])
    if n < 1:
        raise InputError(f"n is {n}; expected at least 1")

    def share(rewards: FloatArray) -> float:
        return float(np.asarray(coefficients(rewards)) @ (rewards - p)) / (p * (1 - p))

    if n <= ENUMERATED:
        total = 0.0
        for sequence in itertools.product((0.0, 1.0), repeat=n):
            rewards = np.array(sequence)
            total += float(np.prod(np.where(rewards == 1, p, 1 - p))) * share(rewards)
        return Estimate(total, 2**n, 0.0, total, total)
    rng = np.random.default_rng(0) if rng is None else rng
    drawn = (rng.random((DRAWS, n)) < p).astype(np.float64)
    found = Estimate.of([share(rewards) for rewards in drawn])
    assert found is not None  # there are draws
    return found


def prompt_scales(
    step: Callable[[Callable[[int, int], FloatArray]], Sampled],
    p: Sequence[float],
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> list[Estimate]:
    """[M] the expected weight of each prompt's gradient in the batch gradient, times M, by Monte Carlo.

    1 for every prompt means that the expected batch gradient is the mean over all M prompts, equally weighted.

    Args:
        step: plays one step. It gets a function sample(q, n) that returns n rewards of prompt q, and returns what it
            sampled.
        p: [M] success probabilities, 0 < p < 1.
        rng: source of the rewards.
        draws: number of steps.
    """
    _check(p)
    scales = np.zeros((draws, len(p)))
    for scale in scales:
        for q, rewards, coefficients in step(lambda q, n: (rng.random(n) < p[q]).astype(np.float64)):
            scale[q] += len(p) * float(coefficients @ (rewards - p[q])) / (p[q] * (1 - p[q]))
    return [found for column in scales.T if (found := Estimate.of(column)) is not None]


def _check(p: Sequence[float]) -> None:
    if not all(0 < one < 1 for one in p):
        raise InputError(f"the success probabilities are {list(p)}; expected 0 < p < 1")
