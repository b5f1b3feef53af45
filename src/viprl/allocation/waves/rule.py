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
    trust: float = 0.0
    """Share of kappa by which baselines are shrunk towards the expected reward; 0 for baselines of the group."""
    signal: float = SIGNAL
    """rho."""

    @property
    def mean(self) -> FloatArray:
        """[Q] mu."""
        return self.chance @ self.p

    @property
    def pseudocounts(self) -> FloatArray:
        """[Q] kappa = E[p(1-p)] / Var(p), as far as it is trusted."""
        mean, variance = self.mean, self.chance @ (self.p * (1 - self.p))
        return self.trust * variance / np.maximum(mean * (1 - mean) - variance, 1e-9)

    def shares(self, n: FloatArray | IntArray | float) -> FloatArray:
        """theta of baselines with n >= 2 rollouts, for n of the shape [], [Q] or [Q, ...]."""
        kappa = self.pseudocounts.reshape(-1, *[1] * (np.ndim(n) - 1))
        return kappa / (kappa + n - 1)

    def at(self, rows: IntArray) -> Beliefs:
        """Of some of the prompts."""
        return replace(self, chance=self.chance[rows], scale=self.scale[rows])


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
        return np.where(self.looks, self.share, self.beliefs.shares(counts))


@dataclass(frozen=True)
class _Look:
    """First waves of one size, for R different beliefs."""

    table: LookTable
    n: IntArray
    """[N] group sizes that are looked at."""
    value: FloatArray
    """[R, I, N] expected variance that falls to each label, in 32 bits."""
    chance: FloatArray
    """[R, I] probability of each label."""
    theta: FloatArray
    """[R]."""


@dataclass(frozen=True)
class _Options:
    """The plans that R different beliefs can have."""

    alone: FloatArray
    """[R, U + 1] expected variance of one wave; infinity where n is not allowed."""
    looks: Sequence[_Look]


@dataclass(frozen=True)
class _Choice:
    """What R different beliefs choose at a price."""

    variance: FloatArray
    """[R] expected."""
    rollouts: FloatArray
    """[R] expected."""
    look: IntArray
    """[R] position among the looks; -1 for one wave."""
    count: IntArray
    """[R] rollouts of one wave."""
    last: Sequence[IntArray]
    """[R, w + 1] for each look: the label that ends at each value in the cheapest cut."""

    def runs(self, row: int, looks: Sequence[_Look]) -> Runs:
        """The labels of a belief; one if it has no look."""
        which = int(self.look[row])
        if which < 0:
            return ((0, int(self.count[row])),)
        table, last = looks[which].table, self.last[which][row]
        runs: list[tuple[int, int]] = []
        end = table.size
        while end >= 0:
            label = int(last[end])
            runs.append((int(table.low[label]), end))
            end = runs[-1][0] - 1
        return tuple(runs[::-1])


def plan_looks(
    beliefs: Beliefs, budget: Budget, rng: np.random.Generator, *, multiple: int = 1, sizes: Sequence[int] = SIZES
) -> LookPlan:
    """The first wave of each prompt.

    Prompts without a look have one label; if no prompt has a look, the first wave is the whole budget.

    Args:
        beliefs: of the Q prompts.
        budget: C and the bounds. At most six average groups are planned for a prompt.
        rng: source of ties, used before anything is sampled.
        multiple: of which C and the rollouts of the first wave are one.
        sizes: of first waves.
    """
    rows, inverse = _distinct(beliefs)
    part = beliefs.at(rows)
    least, most = _limits(budget)
    average = budget.total / len(inverse)
    possible = [w for w in sizes if w < 2 * average and w <= most and w * len(inverse) <= budget.total]
    options = _options(part, possible, least, most, average)
    order = rng.permutation(len(inverse))
    alone = _at_budget(part, replace(options, looks=()), inverse, budget, order)
    chosen, which = _at_budget(part, options, inverse, budget, order)
    ratio = _variance(part, chosen, which, inverse) / max(_variance(part, *alone, inverse), 1e-300)
    runs = tuple(chosen[c].runs(r, options.looks) for c, r in zip(which.tolist(), inverse.tolist(), strict=True))
    if ratio > 1 - LEAST_GAIN or all(len(labels) == 1 for labels in runs):
        return _one_wave(beliefs, options, inverse, budget, rng)
    first = np.array([labels[-1][1] for labels in runs], dtype=np.int64)
    first, runs = _rounded(first, runs, multiple, budget, order)
    return LookPlan(beliefs, first, runs, beliefs.shares(average), ratio)


def _rounded(
    first: IntArray, runs: tuple[Runs, ...], multiple: int, budget: Budget, order: IntArray
) -> tuple[IntArray, tuple[Runs, ...]]:
    """First waves whose sum is a multiple: prompts in this order get rollouts more at once, those without a look first;
    a prompt with a look is then sampled in one wave."""
    missing, first, changed = -int(first.sum()) % multiple, first.copy(), list(runs)
    for q in sorted(order.tolist(), key=lambda q: len(runs[q]) > 1):
        more = min(missing, int(budget.max_rollouts[q]) - int(first[q]))
        if more > 0:
            first[q] += more
            changed[q] = ((0, int(first[q])),)
            missing -= more
    return first, tuple(changed)


def second_counts(plan: LookPlan, successes: IntArray, budget: Budget, rng: np.random.Generator) -> IntArray:
    """[Q] rollouts of both waves, of sum C, after [Q] successes in the first ones."""
    if not plan.looks.any():
        return plan.first.copy()
    least, most = _limits(budget)
    labels, beliefs = plan.labels(successes), plan.beliefs
    mean, values = beliefs.mean, _one_wave_values(beliefs, most)
    for q in np.flatnonzero(plan.looks):
        table = look_table(labels[q].size, most, beliefs.p, beliefs.signal)
        row = table.label(min(labels[q].marked), max(labels[q].marked))
        posterior = table.chance[row] @ beliefs.chance[q]
        moments = table.moments[:, row] @ beliefs.chance[q]  # [6, U+1]
        values[q] = beliefs.scale[q] * factors(plan.share[q], mean[q]) @ moments / max(posterior, 1e-12)
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
    n = np.broadcast_to(np.maximum(np.arange(most + 1), 2), (len(beliefs.scale), most + 1))
    share = beliefs.shares(n)
    terms = factors(share, beliefs.mean[:, None])
    moments = table.moments[:, table.label(0, 2)] @ beliefs.chance.T  # [6, U+1, R]
    values = beliefs.scale[:, None] * np.einsum("jrn,jnr->rn", terms, moments)
    values[:, :2] = np.inf
    return values


def _options(beliefs: Beliefs, sizes: Sequence[int], least: int, most: int, average: float) -> _Options:
    theta = beliefs.shares(average)
    terms = factors(theta, beliefs.mean)  # [6, R]
    looks = []
    for w in sizes:
        table = look_table(w, most, beliefs.p, beliefs.signal)
        n = _some_sizes(max(w, least), most)
        value = np.zeros((len(theta), len(table.low), len(n)))
        for moment, term in zip(table.moments, terms, strict=True):
            if term.any():
                value += term[:, None, None] * np.moveaxis(moment[:, n] @ beliefs.chance.T, -1, 0)
        value *= beliefs.scale[:, None, None]
        looks.append(_Look(table, n, value.astype(np.float32), beliefs.chance @ table.chance.T, theta))
    alone = _one_wave_values(beliefs, most)
    alone[:, :least] = np.inf
    return _Options(alone, looks)


def _some_sizes(least: int, most: int) -> IntArray:
    """Group sizes from `least` to `most`, neighbours at most an eighth apart: enough for a plan."""
    sizes = [least]
    while sizes[-1] < most:
        sizes.append(min(max(sizes[-1] + 1, sizes[-1] * 9 // 8), most))
    return np.array(sizes)


def _choose(options: _Options, price: float) -> _Choice:
    """The best plan of each belief at a price."""
    n, every = np.arange(options.alone.shape[1]), np.arange(len(options.alone))
    count = np.argmin(options.alone + price * n, axis=1)
    variance, rollouts = options.alone[every, count], count.astype(np.float64)
    which, last = np.full(len(every), -1), []
    for position, look in enumerate(options.looks):
        found, of_look, ends = _cheapest_cut(look, price)
        better = found + price * of_look < (variance + price * rollouts) * (1 - 1e-9)
        variance, rollouts = np.where(better, found, variance), np.where(better, of_look, rollouts)
        which[better] = position
        last.append(ends)
    return _Choice(variance, rollouts, which, count, last)


def _cheapest_cut(look: _Look, price: float) -> tuple[FloatArray, FloatArray, IntArray]:
    """The cheapest cut of 0..w into runs: [R] its variance, [R] its rollouts, and [R, w + 1] the run that ends at each
    value."""
    w, every = look.table.size, np.arange(len(look.chance))
    cost = (price * look.chance).astype(np.float32)[:, :, None] * look.n.astype(np.float32)
    best = np.argmin(look.value + cost, axis=2)  # [R, I]
    variance = np.take_along_axis(look.value, best[:, :, None], axis=2)[:, :, 0]
    rollouts = look.chance * look.n[best]
    totals = np.zeros((2, len(every), w + 2))  # up to each value: variance, rollouts
    last = np.zeros((len(every), w + 1), dtype=np.int64)
    for high in range(w + 1):
        ending = np.flatnonzero(look.table.high == high)
        before = totals[:, :, look.table.low[ending]]
        so_far = before + np.array([variance[:, ending], rollouts[:, ending]])
        least = np.argmin(so_far[0] + price * so_far[1], axis=1)
        totals[:, :, high + 1] = so_far[:, every, least]
        last[:, high] = ending[least]
    return totals[0, :, -1], totals[1, :, -1], last


def _at_budget(
    beliefs: Beliefs, options: _Options, inverse: IntArray, budget: Budget, order: IntArray
) -> tuple[tuple[_Choice, _Choice], IntArray]:
    """The choices at the two prices around the budget, and [Q] which of them each prompt makes: as many prompts, in a
    random order, as the budget allows in expectation make that of the lower price."""
    weights = np.bincount(inverse)
    unit = float(np.max(beliefs.scale))
    few, many = _choose(options, 10 * unit), _choose(options, 1e-9 * unit)
    steps = iter(range(22))  # to a relative error of 1e-5

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


def _variance(beliefs: Beliefs, chosen: tuple[_Choice, _Choice], which: IntArray, inverse: IntArray) -> float:
    """Expected, without what no rollout can lower."""
    constant = beliefs.signal * beliefs.scale * (beliefs.chance @ (beliefs.p * (1 - beliefs.p)) ** 2)
    each = np.array([choice.variance[inverse] for choice in chosen])[which, np.arange(len(inverse))]
    return float((each - constant[inverse]).sum())


def _one_wave(
    beliefs: Beliefs, options: _Options, inverse: IntArray, budget: Budget, rng: np.random.Generator
) -> LookPlan:
    """All of the budget at once."""
    _, most = _limits(budget)
    model = TabulatedVariance.of(options.alone[inverse], budget.min_rollouts)
    bounded = replace(budget.hard, max_rollouts=np.minimum(budget.max_rollouts, most), model=model)
    counts = exact_counts(np.ones(len(inverse)), bounded, rng)
    runs: tuple[Runs, ...] = tuple(((0, n),) for n in counts.tolist())
    return LookPlan(beliefs, counts, runs, np.zeros(len(inverse)), 1.0)
