"""Knapsack RL: the budget as a knapsack of prompts, each worth the chance of a mixed group (arXiv 2509.25849)."""

from __future__ import annotations

import numpy as np

from viprl.allocation.budget import Budget
from viprl.allocation.published import spend_greedily
from viprl.allocation.rules import Rule
from viprl.predictors.base import Prediction
from viprl.utils.arrays import FloatArray, IntArray


class Knapsack(Rule):
    """maximise sum_q [1 - p^n - (1-p)^n] p (1-p)^2 over whole n within the bounds; exact.

    One more rollout adds [p^n (1-p) + (1-p)^n p] p (1-p)^2, which falls with n, so the optimum makes the C - sum(L)
    largest increases (the paper solves it by dynamic programming).

    Chosen here: L at least 2 (the paper allows 0), p as predicted, without its uncertainty; equal increases go to the
    prompt with fewer rollouts, then by the generator, so that prompts without any increase share what is left.
    """

    def __call__(self, prediction: Prediction, budget: Budget, rng: np.random.Generator) -> IntArray:
        p = prediction.success_probability
        tie = rng.permutation(len(p))
        return spend_greedily(budget.min_rollouts, lambda q, n: (-increase(p[q], n), n, tie[q]), budget)


def value(p: FloatArray, n: IntArray) -> FloatArray:
    """[1 - p^n - (1-p)^n] p (1-p)^2, elementwise: the chance of a mixed group times its worth."""
    return (1 - p**n - (1 - p) ** n) * p * (1 - p) ** 2


def increase(p: FloatArray, n: IntArray | int) -> FloatArray:
    """value(p, n + 1) - value(p, n), without cancellation."""
    return (p**n * (1 - p) + (1 - p) ** n * p) * p * (1 - p) ** 2
