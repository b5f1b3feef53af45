"""Which prompts get a first look, and how large it is.

The plans of a prompt and the cheapest of them at a price are in `viprl.allocation.waves.options`. The price is that at
which the budget ends in expectation:

    hard      the expected rollouts are C
    limited   the expected cost is the limit, or the expected rollouts are C
    match     the expected variance is the share of that of uniform counts, or the expected rollouts are C

So a look is taken where it pays under the belief, and never has a larger expected variance, or cost, than one wave. The
price decides the first waves alone; what follows from their labels is in `viprl.allocation.waves.second_wave`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from viprl.allocation.budget import Budget
from viprl.allocation.waves.beliefs import Beliefs
from viprl.allocation.waves.look_plan import LookPlan
from viprl.allocation.waves.options import Choice, Options, Runs, one_wave_values
from viprl.allocation.waves.second_wave import limits, spend, uniform_variances
from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.numerics import bisect

SIZES = (2, 3, 4, 5, 6, 8)
"""Sizes of a first wave."""
LEAST_GAIN = 0.03
"""Of the variance, or the cost, of one wave, which a second call must save."""


def plan_looks(beliefs: Beliefs, budget: Budget, rng: np.random.Generator, *, sizes: Sequence[int] = SIZES) -> LookPlan:
    """The first wave of each prompt.

    Prompts without a look have one label; if no prompt has a look, the first wave is the whole batch.

    Args:
        beliefs: of the Q prompts.
        budget: hard, limited or of a match, with the same bounds for all prompts. The first wave is a multiple of
            `budget.multiple`.
        rng: source of ties, used before anything is sampled.
        sizes: of first waves.
    """
    least, most = limits(budget)
    average = budget.total / len(beliefs.scale)
    possible = [w for w in sizes if w < 2 * average and w <= most and w * len(beliefs.scale) <= budget.total]
    batch = _Batch.of(beliefs, budget)
    options = Options.of(batch.beliefs, possible, least, most, average)
    order = rng.permutation(len(beliefs.scale))
    one, two = (batch.at_the_end(own, order) for own in (replace(options, looks=()), options))
    constant = float(beliefs.constant.sum())
    variance_ratio = (two.variance - constant) / max(one.variance - constant, 1e-300)
    cost_ratio = two.cost / one.cost
    runs = two.runs(options)
    # of a match the cost falls, or the variance where C rollouts are too few for it; other budgets are spent anyway
    ratio = variance_ratio if budget.match is None else min(variance_ratio, cost_ratio)
    if ratio > 1 - LEAST_GAIN or all(len(labels) == 1 for labels in runs):
        return _one_wave(beliefs, budget, rng)
    first = np.array([labels[-1][1] for labels in runs], dtype=np.int64)
    first, runs = _rounded(first, runs, budget, order)
    return LookPlan(beliefs, first, runs, beliefs.shares(average), variance_ratio, cost_ratio)


def _one_wave(beliefs: Beliefs, budget: Budget, rng: np.random.Generator) -> LookPlan:
    """Everything at once."""
    least, most = limits(budget)
    counts = spend(one_wave_values(beliefs, most), beliefs, np.full(len(beliefs.scale), least), budget, rng)
    runs: tuple[Runs, ...] = tuple(((0, n),) for n in counts.tolist())
    return LookPlan(beliefs, counts, runs, np.zeros(len(counts)), 1.0)


def _rounded(
    first: IntArray, runs: tuple[Runs, ...], budget: Budget, order: IntArray
) -> tuple[IntArray, tuple[Runs, ...]]:
    """First waves whose sum is a multiple: prompts in this order get rollouts more at once. Those without a look get
    one each, in turns. If they are not enough, prompts with a look are sampled in one wave, of an average group if that
    is enough."""
    missing, first, changed = -int(first.sum()) % budget.multiple, first.copy(), list(runs)
    _, most = limits(budget)

    def give(q: int, rollouts: int) -> None:
        nonlocal missing
        more = max(min(missing, rollouts, most - int(first[q])), 0)
        missing -= more
        if more:
            first[q] += more
            changed[q] = ((0, int(first[q])),)

    alone = [q for q in order.tolist() if len(runs[q]) == 1]
    while missing and any(first[q] < most for q in alone):
        for q in alone:
            give(q, 1)
    for enough in (-(-budget.total // len(runs)), most):
        for q in order.tolist():
            give(q, enough - int(first[q]))
    return first, tuple(changed)


@dataclass(frozen=True)
class _Mixture:
    """What the prompts of a batch do: some choose at one price, the others at the next one."""

    chosen: tuple[Choice, Choice]
    which: IntArray
    """[Q] 0 or 1."""
    rows: IntArray
    """[Q] the belief of each prompt among the distinct ones."""
    costs: FloatArray
    """[Q]."""

    @property
    def variance(self) -> float:
        """Expected, of the batch."""
        return float(self._each("variance").sum())

    @property
    def cost(self) -> float:
        """Expected, of the batch."""
        return float(self.costs @ self._each("rollouts"))

    def _each(self, name: str) -> FloatArray:
        values = np.array([getattr(choice, name)[self.rows] for choice in self.chosen])
        return values[self.which, np.arange(len(self.which))]

    def runs(self, options: Options) -> tuple[Runs, ...]:
        """[Q] the labels."""
        pairs = zip(self.which.tolist(), self.rows.tolist(), strict=True)
        return tuple(self.chosen[choice].runs(row, options.looks) for choice, row in pairs)


@dataclass(frozen=True)
class _Batch:
    """Q prompts with R different beliefs and costs, and where their budget ends."""

    beliefs: Beliefs
    """The R different ones."""
    rows: IntArray
    """[Q] positions among them."""
    costs: FloatArray
    """[R]."""
    rollouts: int
    """C."""
    limit: float
    """Most cost."""
    goal: float
    """Variance that is enough."""

    @classmethod
    def of(cls, beliefs: Beliefs, budget: Budget) -> _Batch:
        costs = np.ones(len(beliefs.scale)) if budget.costs is None else budget.costs
        keys = np.round(np.column_stack([beliefs.chance, np.log(beliefs.scale), np.log(costs)]), 9)
        _, distinct, rows = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        goal = -np.inf
        if budget.match is not None:
            goal = float(budget.match * uniform_variances(beliefs, budget).sum() + beliefs.constant.sum())
        limit = np.inf if budget.limit is None else budget.limit
        return cls(beliefs.at(distinct), rows.ravel(), costs[distinct], budget.total, limit, goal)

    def at_the_end(self, options: Options, order: IntArray) -> _Mixture:
        """The choices at the two prices around the end of the budget: as many prompts, in the order [Q], as it allows
        in expectation choose at the lower price."""
        scale, weights = self.beliefs.scale.max(), np.bincount(self.rows)
        low, high = 1e-9 * scale / self.costs.max(), 10 * scale / self.costs.min()
        few, many = options.cheapest(high * self.costs), options.cheapest(low * self.costs)
        steps = iter(range(24))  # to a relative error of 1e-5

        def goes_on(price: float) -> bool:
            nonlocal few, many
            choice = options.cheapest(price * self.costs)
            rollouts, variance = weights * choice.rollouts, float(weights @ choice.variance)
            if rollouts.sum() > self.rollouts or self.costs @ rollouts > self.limit or variance <= self.goal:
                many = choice
                return True
            few = choice
            return False

        bisect(goes_on, low, high, geometric=True, done=lambda: next(steps, None) is None)
        rows = self.rows[order]
        rollouts = (many.rollouts - few.rollouts)[rows]
        enough = float(weights @ few.variance) - self.goal
        allowed = np.cumsum(rollouts) <= self.rollouts - float(weights @ few.rollouts) + 1e-9
        allowed &= np.cumsum(self.costs[rows] * rollouts) <= self.limit - float(weights * self.costs @ few.rollouts)
        saved = (few.variance - many.variance)[rows]
        allowed &= np.cumsum(saved) - saved < enough
        which = np.zeros(len(rows), dtype=np.int64)
        which[order[allowed]] = 1
        return _Mixture((few, many), which, self.rows, self.costs[self.rows])
