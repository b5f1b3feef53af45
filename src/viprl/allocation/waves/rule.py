"""Which prompts get a first look, how large it is, and what follows from it.

    symbol  meaning                                                                      shape
    b       belief over the success probability of each prompt, before sampling          [Q, G]
    s       variance of a score of each prompt, relative to the others                   [Q]
    l       price of a rollout
    w       rollouts of the first wave
    S       labels: 0..w cut into runs, which decide what the second wave depends on
    V       share of the expected variance that falls to a label, with n rollouts in all

For a price, the best plan of a prompt minimises its expected variance plus l times its expected rollouts. It is either
one wave,

    min_n s V(n) + l n,

or a first look, the minimum over w and over all cuts of 0..w into runs of

    sum_S min_n (s V(S, n) + l P(S) n),

which is found exactly, by dynamic programming over the runs. The price is that at which the expected rollouts are the
budget. So a look is taken where it pays under the belief, and never has a larger expected variance than one wave.

After the first wave the rest of the budget goes by the posterior of each label along the exact path of
`viprl.allocation.exact`, with all of C spent. The second wave of a prompt then depends on its own first wave through
its label alone, given the labels of the others: exactly what the estimator allows (`viprl.allocation.waves.estimator`).
No price has to be fixed in advance, and none has to leave out the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from viprl.allocation.budget import Budget
from viprl.allocation.exact import exact_counts
from viprl.allocation.waves.estimator import FirstLook
from viprl.allocation.waves.tabulated import TabulatedVariance
from viprl.allocation.waves.variance import LookTable, factors, look_table
from viprl.errors import InputError
from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.numerics import bisect

SIZES = (2, 3, 4, 5, 6, 8)
"""Sizes of a first wave."""
LEAST_GAIN = 0.02
"""Of the variance of one wave, which a second call must save."""
SIGNAL = 1.0
"""rho, where nobody knows better: a strong signal, for which first waves are large."""

Runs = tuple[tuple[int, int], ...]
"""The labels: fewest and most successes of each."""


@dataclass(frozen=True)
class Beliefs:
    """What is believed of Q prompts before sampling."""

    p: FloatArray
    """[G] success probabilities."""
    chance: FloatArray
    """[Q, G] of each of them; rows sum to 1."""
    scale: FloatArray
    """[Q] s."""
    shrunk: bool = False
    """Whether baselines are shrunk towards the expected reward."""
    signal: float = SIGNAL
    """rho."""

    @property
    def mean(self) -> FloatArray:
        """[Q] mu."""
        return self.chance @ self.p

    @property
    def pseudocounts(self) -> FloatArray:
        """[Q] kappa = E[p(1-p)] / Var(p)."""
        mean, variance = self.mean, self.chance @ (self.p * (1 - self.p))
        return variance / np.maximum(mean * (1 - mean) - variance, 1e-9)

    def shares(self, n: FloatArray | IntArray | float) -> FloatArray:
        """[Q, ...] theta of baselines with n rollouts; 0 if they are not shrunk."""
        kappa = self.pseudocounts.reshape(-1, *[1] * np.ndim(n))
        return kappa / (kappa + n - 1) if self.shrunk else np.zeros(np.broadcast_shapes(kappa.shape, np.shape(n)))


@dataclass(frozen=True)
class LookPlan:
    """The first waves of Q prompts, and what the second ones may depend on."""

    beliefs: Beliefs
    first: IntArray
    """[Q] rollouts of the first wave."""
    runs: tuple[Runs, ...]
    """[Q] labels; one that holds all of 0..w for a prompt without a look."""
    share: FloatArray
    """[Q] theta of prompts with a look."""
    variance_ratio: float
    """Expected variance relative to one wave of the same budget."""

    @property
    def looks(self) -> np.ndarray:
        """[Q] whether each prompt gets a first look."""
        return np.array([len(runs) > 1 for runs in self.runs])

    def labels(self, successes: IntArray) -> list[FirstLook]:
        """[Q] labels after [Q] successes in the first waves."""
        found = []
        for w, runs, k in zip(self.first.tolist(), self.runs, np.asarray(successes).tolist(), strict=True):
            if not 0 <= k <= w:
                raise InputError(f"a first wave of {w} rollouts has {k} successes; expected 0 to {w}")
            low, high = next(run for run in runs if run[0] <= k <= run[1])
            found.append(FirstLook.of(w, range(low, high + 1)))
        return found

    def shares(self, counts: IntArray) -> FloatArray:
        """[Q] theta of the pooled groups: fixed in advance for prompts with a look; that of n rollouts for the others,
        whose n tells nothing about their rewards."""
        return np.where(self.looks, self.share, np.diagonal(self.beliefs.shares(counts)))


@dataclass(frozen=True)
class _Options:
    """The plans that prompts can have: P looks and labels each with one table of V [R, P, U + 1]."""

    value: list[FloatArray]
    """For each size, and then for one wave: [R, I, U + 1] expected variance; infinity where n is not allowed."""
    chance: list[FloatArray]
    """[R, I] probability of each label."""
    tables: list[LookTable]
    theta: list[FloatArray]
    """[R] of each size."""


@dataclass(frozen=True)
class _Choice:
    """What R different beliefs choose at a price."""

    variance: FloatArray
    """[R] expected."""
    rollouts: FloatArray
    """[R] expected."""
    size: IntArray
    """[R] w; 0 for one wave."""
    runs: list[Runs]
    count: IntArray
    """[R] rollouts of one wave."""
    theta: FloatArray
    """[R] of a look."""


def plan_looks(beliefs: Beliefs, budget: Budget, rng: np.random.Generator, sizes: Sequence[int] = SIZES) -> LookPlan:
    """The first wave of each prompt.

    Prompts without a look have one label; if no prompt has a look, the first wave is the whole budget.

    Args:
        beliefs: of the Q prompts.
        budget: C and the bounds. At most six average groups are planned for a prompt.
        rng: source of ties, used before anything is sampled.
        sizes: of first waves.
    """
    rows, inverse = _distinct(beliefs)
    part = Beliefs(beliefs.p, beliefs.chance[rows], beliefs.scale[rows], beliefs.shrunk, beliefs.signal)
    least, most = _limits(budget)
    average = budget.total / len(inverse)
    looks = [w for w in sizes if w < average * 2 and w <= most and w * len(inverse) <= budget.total]
    options = _options(part, looks, least, most, average)
    order = rng.permutation(len(inverse))
    alone = _at_budget(part, _Options(options.value[-1:], [], [], []), inverse, budget, order)
    chosen = _at_budget(part, options, inverse, budget, order)
    ratio = _variance(part, chosen, inverse) / max(_variance(part, alone, inverse), 1e-300)
    if not looks or ratio > 1 - LEAST_GAIN or not any(len(runs) > 1 for choice in chosen[0] for runs in choice.runs):
        return _one_wave(beliefs, part, options, inverse, budget, rng)
    pick = [chosen[0][which] for which in chosen[1]]
    first = np.array([c.size[r] or c.count[r] for c, r in zip(pick, inverse, strict=True)], dtype=np.int64)
    runs = tuple(c.runs[r] if c.size[r] else ((0, int(c.count[r])),) for c, r in zip(pick, inverse, strict=True))
    share = np.array([c.theta[r] for c, r in zip(pick, inverse, strict=True)])
    return LookPlan(beliefs, first, runs, share, float(ratio))


def second_counts(plan: LookPlan, successes: IntArray, budget: Budget, rng: np.random.Generator) -> IntArray:
    """[Q] rollouts of both waves, of sum C, after [Q] successes in the first ones."""
    if not plan.looks.any():
        return plan.first.copy()
    least, most = _limits(budget)
    labels = plan.labels(successes)
    values = np.empty((len(labels), most + 1))
    for q, (look, runs) in enumerate(zip(labels, plan.runs, strict=True)):
        belief = plan.beliefs.chance[q]
        if len(runs) == 1:
            values[q] = _one_wave_values(Beliefs(plan.beliefs.p, belief[None], plan.beliefs.scale[q : q + 1],
                                                 plan.beliefs.shrunk, plan.beliefs.signal), most)[0]
            continue
        table = look_table(look.size, most, plan.beliefs.p, plan.beliefs.signal)
        row = table.label(min(look.marked), max(look.marked))
        terms = factors(plan.share[q], plan.beliefs.mean[q])
        chance = max(float(table.chance[row] @ belief), 1e-12)
        values[q] = plan.beliefs.scale[q] * np.einsum("j,jng,g->n", terms, table.moments[:, row], belief) / chance
    model = TabulatedVariance.of(values, np.maximum(plan.first, least))
    rest = replace(
        budget.hard,
        min_rollouts=np.maximum(plan.first, least),
        max_rollouts=np.maximum(np.minimum(budget.max_rollouts, most), plan.first),
        model=model,
    )
    return exact_counts(np.ones(len(labels)), rest, rng)


def _limits(budget: Budget) -> tuple[int, int]:
    """L and U of the plans: no more than six average groups."""
    least = int(budget.min_rollouts.max())
    average = -(-budget.total // len(budget.min_rollouts))
    return least, max(min(int(budget.max_rollouts.max()), 6 * average), least, average)


def _distinct(beliefs: Beliefs) -> tuple[IntArray, IntArray]:
    """Rows of different beliefs, and [Q] the position of each prompt's among them."""
    keys = np.round(np.column_stack([beliefs.chance, np.log(beliefs.scale)]), 9)
    _, rows, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return rows, inverse.ravel()


def _one_wave_values(beliefs: Beliefs, most: int) -> FloatArray:
    """[R, U + 1] expected variance of one wave; infinity below two rollouts."""
    table = look_table(2, most, beliefs.p, beliefs.signal)
    n = np.arange(most + 1)
    share = beliefs.shares(np.maximum(n, 2))
    terms = factors(share, beliefs.mean[:, None])
    moments = table.moments[:, table.label(0, 2)] @ beliefs.chance.T  # [6, U+1, R]
    values = beliefs.scale[:, None] * np.einsum("jrn,jnr->rn", terms, moments)
    values[:, :2] = np.inf
    return values


def _options(beliefs: Beliefs, sizes: Sequence[int], least: int, most: int, average: float) -> _Options:
    value, chance, tables, theta = [], [], [], []
    for w in sizes:
        table = look_table(w, most, beliefs.p, beliefs.signal)
        share = beliefs.shares(average)
        terms = factors(share, beliefs.mean)  # [6, R]
        found = np.zeros((len(beliefs.scale), len(table.low), most + 1))
        for j, term in enumerate(terms):
            if term.any():
                found += term[:, None, None] * np.moveaxis(table.moments[j] @ beliefs.chance.T, -1, 0)
        found *= beliefs.scale[:, None, None]
        found[:, :, : max(w, least)] = np.inf
        value.append(found)
        chance.append(beliefs.chance @ table.chance.T)
        tables.append(table)
        theta.append(share)
    alone = _one_wave_values(beliefs, most)
    alone[:, :least] = np.inf
    return _Options([*value, alone[:, None]], chance, tables, theta)


def _choose(options: _Options, price: float) -> _Choice:
    """The best plan of each belief at a price."""
    alone = options.value[-1][:, 0]
    n = np.arange(alone.shape[1])
    count = np.argmin(alone + price * n, axis=1)
    every = np.arange(len(alone))
    best = (alone + price * n)[every, count]
    variance, rollouts = alone[every, count], count.astype(float)
    size, theta = np.zeros(len(alone), dtype=np.int64), np.zeros(len(alone))
    runs: list[Runs] = [()] * len(alone)
    for value, chance, table, share in zip(options.value[:-1], options.chance, options.tables, options.theta, strict=True):
        cost = value + price * chance[:, :, None] * n
        counts = np.argmin(cost, axis=2)  # [R, I]
        least = np.take_along_axis(cost, counts[:, :, None], axis=2)[:, :, 0]
        total, last = _cheapest_cut(least, table)
        for r in np.flatnonzero(total < best * (1 - 1e-9)):
            cut = _cut(last[r], table)
            best[r], size[r], theta[r] = total[r], table.size, share[r]
            runs[r] = tuple((int(table.low[i]), int(table.high[i])) for i in cut)
            variance[r] = sum(value[r, i, counts[r, i]] for i in cut)
            rollouts[r] = sum(chance[r, i] * counts[r, i] for i in cut)
    return _Choice(variance, rollouts, size, runs, count, theta)


def _cheapest_cut(cost: FloatArray, table: LookTable) -> tuple[FloatArray, IntArray]:
    """[R] least cost of cutting 0..w into runs, and [R, w + 1] the run that ends at each value."""
    best = np.zeros((len(cost), table.size + 2))
    last = np.zeros((len(cost), table.size + 1), dtype=np.int64)
    for high in range(table.size + 1):
        ending = np.flatnonzero(table.high == high)
        totals = best[:, table.low[ending]] + cost[:, ending]
        least = np.argmin(totals, axis=1)
        best[:, high + 1] = totals[np.arange(len(cost)), least]
        last[:, high] = ending[least]
    return best[:, -1], last


def _cut(last: IntArray, table: LookTable) -> list[int]:
    """The runs of the cheapest cut, in order."""
    runs, end = [], table.size
    while end >= 0:
        runs.append(int(last[end]))
        end = int(table.low[runs[-1]]) - 1
    return runs[::-1]


def _at_budget(
    beliefs: Beliefs, options: _Options, inverse: IntArray, budget: Budget, order: IntArray
) -> tuple[tuple[_Choice, _Choice], IntArray]:
    """The choices at the two prices around the budget, and [Q] which of them each prompt makes: as many prompts, in a
    random order, as the budget allows in expectation make that of the lower price."""
    weights = np.bincount(inverse, minlength=len(beliefs.scale))
    unit = float(np.max(beliefs.scale))
    few, many = _choose(options, 10 * unit), _choose(options, 1e-9 * unit)
    steps = iter(range(40))

    def is_low(price: float) -> bool:
        nonlocal few, many
        choice = _choose(options, price)
        if weights @ choice.rollouts > budget.total:
            many = choice
            return True
        few = choice
        return False

    bisect(is_low, 1e-9 * unit, 10 * unit, geometric=True, done=lambda: next(steps, None) is None)
    extra = (many.rollouts - few.rollouts)[inverse[order]]
    room = budget.total - float(weights @ few.rollouts)
    which = np.zeros(len(inverse), dtype=np.int64)
    which[order[np.cumsum(extra) <= room + 1e-9]] = 1
    return (few, many), which


def _variance(beliefs: Beliefs, chosen: tuple[tuple[_Choice, _Choice], IntArray], inverse: IntArray) -> float:
    """Expected, without what no rollout can lower."""
    constant = beliefs.signal * beliefs.scale * (beliefs.chance @ (beliefs.p * (1 - beliefs.p)) ** 2)
    (few, many), which = chosen
    each = np.where(which == 1, many.variance[inverse], few.variance[inverse])
    return float((each - constant[inverse]).sum())


def _one_wave(
    beliefs: Beliefs, part: Beliefs, options: _Options, inverse: IntArray, budget: Budget, rng: np.random.Generator
) -> LookPlan:
    """All of the budget at once."""
    least, most = _limits(budget)
    values = options.value[-1][inverse, 0]
    model = TabulatedVariance.of(values, np.full(len(inverse), least))
    bounded = replace(budget.hard, max_rollouts=np.minimum(budget.max_rollouts, most), model=model)
    counts = exact_counts(np.ones(len(inverse)), bounded, rng)
    return LookPlan(beliefs, counts, tuple(((0, int(n)),) for n in counts), np.zeros(len(inverse)), 1.0)
