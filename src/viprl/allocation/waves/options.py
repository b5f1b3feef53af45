"""The plans that a prompt can have, one wave or a first look, and the cheapest of them at a price.

    symbol  meaning                                                                      shape
    b       belief over the success probability of each prompt, before sampling          [R, G]
    s       variance of a score of each prompt, relative to the others                   [R]
    l       price of a rollout
    w       rollouts of the first wave
    S       labels: 0..w cut into runs, which decide what the second wave depends on
    V       share of the expected variance that falls to a label, with n rollouts in all

For a price, the best plan minimises its expected variance plus l times its expected rollouts. It is either one wave,

    min_n s V(n) + l n,

or a first look, the minimum over w and over all cuts of 0..w into runs of

    sum_S min_n (s V(S, n) + l P(S) n),

which is found exactly, by dynamic programming over the runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from viprl.allocation.waves.beliefs import Beliefs
from viprl.allocation.waves.variance import LookTable, factors, look_table
from viprl.utils.arrays import FloatArray, IntArray

Runs = tuple[tuple[int, int], ...]
"""The labels: fewest and most successes of each."""


@dataclass(frozen=True)
class Look:
    """First waves of one size, for R different beliefs."""

    table: LookTable
    n: IntArray
    """[N] group sizes that are looked at."""
    value: FloatArray
    """[R, I, N] expected variance that falls to each label, in 32 bits."""
    chance: FloatArray
    """[R, I] probability of each label."""


@dataclass(frozen=True)
class Options:
    """The plans that R different beliefs can have."""

    alone: FloatArray
    """[R, U + 1] expected variance of one wave; infinity where n is not allowed."""
    looks: Sequence[Look]

    @classmethod
    def of(cls, beliefs: Beliefs, sizes: Sequence[int], least: int, most: int, average: float) -> Options:
        """All plans with first waves of these sizes and groups of L to U rollouts; `average` is C/Q, for theta."""
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
            looks.append(Look(table, n, value.astype(np.float32), beliefs.chance @ table.chance.T))
        alone = one_wave_values(beliefs, most)
        alone[:, :least] = np.inf
        return cls(alone, looks)

    def cheapest(self, price: FloatArray) -> Choice:
        """The best plan of each belief at the price [R] of its rollouts."""
        n, every = np.arange(self.alone.shape[1]), np.arange(len(self.alone))
        count = np.argmin(self.alone + price[:, None] * n, axis=1)
        variance, rollouts = self.alone[every, count], count.astype(np.float64)
        which, last = np.full(len(every), -1), []
        for position, look in enumerate(self.looks):
            found, of_look, ends = _cheapest_cut(look, price)
            better = found + price * of_look < (variance + price * rollouts) * (1 - 1e-9)
            variance, rollouts = np.where(better, found, variance), np.where(better, of_look, rollouts)
            which[better] = position
            last.append(ends)
        return Choice(variance, rollouts, which, count, last)


@dataclass(frozen=True)
class Choice:
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

    def runs(self, row: int, looks: Sequence[Look]) -> Runs:
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


def one_wave_values(beliefs: Beliefs, most: int) -> FloatArray:
    """[R, U + 1] expected variance of one wave; infinity below two rollouts."""
    table = look_table(2, most, beliefs.p, beliefs.signal)
    n = np.broadcast_to(np.maximum(np.arange(most + 1), 2), (len(beliefs.scale), most + 1))
    share = beliefs.shares(n)
    terms = factors(share, beliefs.mean[:, None])
    moments = table.moments[:, table.label(0, 2)] @ beliefs.chance.T  # [6, U+1, R]
    values = beliefs.scale[:, None] * np.einsum("jrn,jnr->rn", terms, moments)
    values[:, :2] = np.inf
    return values


def _some_sizes(least: int, most: int) -> IntArray:
    """Group sizes from `least` to `most`, neighbours at most an eighth apart: enough for a plan."""
    sizes = [least]
    while sizes[-1] < most:
        sizes.append(min(max(sizes[-1] + 1, sizes[-1] * 9 // 8), most))
    return np.array(sizes)


def _cheapest_cut(look: Look, price: FloatArray) -> tuple[FloatArray, FloatArray, IntArray]:
    """The cheapest cut of 0..w into runs: [R] its variance, [R] its rollouts, and [R, w + 1] the run that ends at each
    value."""
    w, every = look.table.size, np.arange(len(look.chance))
    cost = (price[:, None] * look.chance).astype(np.float32)[:, :, None] * look.n.astype(np.float32)
    best = np.argmin(look.value + cost, axis=2)  # [R, I]
    variance = np.take_along_axis(look.value, best[:, :, None], axis=2)[:, :, 0]
    rollouts = look.chance * look.n[best]
    totals = np.zeros((2, len(every), w + 2))  # up to each value: variance, rollouts
    last = np.zeros((len(every), w + 1), dtype=np.int64)
    for high in range(w + 1):
        ending = np.flatnonzero(look.table.high == high)
        before = totals[:, :, look.table.low[ending]]
        so_far = before + np.array([variance[:, ending], rollouts[:, ending]])
        least = np.argmin(so_far[0] + price[:, None] * so_far[1], axis=1)
        totals[:, :, high + 1] = so_far[:, every, least]
        last[:, high] = ending[least]
    return totals[0, :, -1], totals[1, :, -1], last
