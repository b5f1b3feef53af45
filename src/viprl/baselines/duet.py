"""DUET's allocation: rollouts in proportion to a deviation over the root of the length (arXiv 2605.08441, Section 4).

    symbol  meaning                                                          shape
    s       running mean of the standard deviation within a prompt's groups  [Q]
    c       cost of a rollout: the predicted length; 1 in a hard budget      [Q]

    n_q = round(s_q / sqrt(l c_q)) within the bounds, with l such that the budget is met,

the minimum of sum s^2/n for sum c n = B. The second half of DUET, which stops rollouts that have not answered in
time, is no rule for counts; benchmarks/early_stop.py measures it.

Chosen here: s is that of the rewards (theirs: of advantage times log probability), at least .05; a prompt never seen
has the mean of all visits (theirs: a regression on the log probability of the prompt, fitted to an earlier run). A
hard budget is filled by largest remainders.
"""

from __future__ import annotations

import numpy as np

from viprl.allocation.budget import Budget
from viprl.allocation.rules import Rule
from viprl.baselines.proportional import proportional_counts
from viprl.predictors.base import Batch, Prediction, Predictor
from viprl.predictors.table import PromptTable
from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.numerics import bisect
from viprl.utils.state_checks import array_entry
from viprl.utils.state_file import State

LEAST = 0.05
"""Smallest s."""


class DeviationMean(Predictor):
    """Running means of each prompt's success rate and of the standard deviation within its groups."""

    def __init__(self) -> None:
        self._sums = PromptTable([0.0, 0.0, 0.0])  # of rates, of deviations, number of visits
        self._all = np.zeros(2)  # sum of all deviations, number of visits

    def predict(self, batch: Batch) -> Prediction:
        rates, deviations, visits = self._sums.read(batch.keys).T
        known = visits > 0
        s, p = deviations / np.maximum(visits, 1), rates / np.maximum(visits, 1)
        mean = self._all[0] / self._all[1] if self._all[1] > 0 else 0.5
        return Prediction(np.where(known, p, 0.5), np.maximum(np.where(known, s, mean), LEAST) ** 2)

    def observe(self, batch: Batch, successes: FloatArray, rollouts: FloatArray) -> None:
        rate = successes / np.maximum(rollouts, 1)
        new = np.column_stack([rate, np.sqrt(rate * (1 - rate)), np.ones(len(rate))])
        self._sums.write(batch.keys, self._sums.read(batch.keys) + new, rollouts > 0)
        self._all = self._all + new[rollouts > 0, 1:].sum(axis=0)

    def state_dict(self) -> State:
        return {**self._sums.state_dict(), "all": self._all.copy()}

    def load_state_dict(self, state: State) -> None:
        total = array_entry(state, "all", 2, least=0)
        self._sums.load_state_dict(state)
        self._all = total


class CostedDeviation(Rule):
    """n proportional to s/sqrt(c); a limit of the cost is met by bisection on the rounded counts."""

    def __call__(self, prediction: Prediction, budget: Budget, rng: np.random.Generator) -> IntArray:
        s = np.sqrt(np.maximum(prediction.reward_variance, 1e-12))
        if budget.costs is None or budget.limit is None:
            return proportional_counts(s, budget, rng)
        share, limit = s / np.sqrt(budget.costs), budget.limit * (1 + 1e-12)

        def counts(scale: float) -> IntArray:
            whole = np.round(np.minimum(scale * share, 1e15)).astype(np.int64)
            return np.clip(whole, budget.min_rollouts, budget.max_rollouts)

        ends = 1e-3 / float(share.max()), float(budget.max_rollouts.max()) / float(share.min())
        return counts(bisect(lambda scale: budget.cost(counts(scale)) <= limit, *ends, geometric=True)[0])
