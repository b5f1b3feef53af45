"""Counts that minimise sum_q a_q f(n_q) + price sum_q c_q n_q, for every kind of budget (arXiv 2602.01601, Section 5).

    symbol  meaning                                                       shape
    a       variance weight of each prompt                                [Q]
    c       cost of a rollout of each prompt; 1 if not given              [Q]
    d(n)    f(n) - f(n+1), the decrease that one more rollout brings      [Q]

The problem is separable and convex. For a given price its integer optimum makes every decrease with a_q d(n)/c_q above
the price, so all budgets lie on one path: the decreases in the order of a d/c. Bisection on the price finds where a
budget leaves the path, without a loop over rollouts, and the last decreases are made one by one.

With costs of 1 the result is exact. With other costs the last rollout need not fit (a knapsack problem); then
`optimality_gap` bounds the distance to the optimum by duality.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from viprl.allocation.budget import Budget
from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.numerics import bisect


def exact_counts(weights: FloatArray, budget: Budget, rng: np.random.Generator) -> IntArray:
    """[Q] the counts for weights a [Q] >= 0.

    Ties are broken by `rng`. In a hard budget prompts of weight 0 share evenly what the others cannot take; in other
    budgets they get the fewest rollouts, unless all weights are 0 and count as equal; at a price they never do.
    """
    if budget.price is not None:
        return _counts_at(weights / _costs(budget), budget.price, budget)
    positive = weights > 0
    if not positive.any():
        return exact_counts(np.ones_like(weights), budget, rng)
    if not budget.is_hard:
        return _soft_counts(weights, budget, rng)
    if not positive.all():
        most = int(budget.max_rollouts[positive].sum() + budget.min_rollouts[~positive].sum())
        counts = np.where(positive, budget.max_rollouts, budget.min_rollouts)
        part = positive if budget.total < most else ~positive
        rest = budget.part(part, budget.total - int(counts[~part].sum()))
        counts[part] = exact_counts(weights[part] if budget.total < most else np.ones(part.sum()), rest, rng)
        return counts
    a = scaled(weights)
    few, many = _around(a, budget, lambda counts: counts.sum() >= budget.total)
    order = _next(few, many, a, budget, rng)
    few[order[: budget.total - int(few.sum())]] += 1
    return few


def _soft_counts(weights: FloatArray, budget: Budget, rng: np.random.Generator) -> IntArray:
    """The counts of a budget that is not hard; some weight is positive."""
    c, a = _costs(budget), scaled(weights)
    useful = replace(budget, max_rollouts=np.where(weights > 0, budget.max_rollouts, budget.min_rollouts))
    on_path = _matched(a, _target(a, budget), useful, rng) if budget.match is not None else _limited(a, useful, rng)
    counts = on_path(a / c)
    if counts.sum() > _most(budget):
        # a rollout then has a price of its own, the smallest with which so many are enough
        counts = _with_few_rollouts(lambda extra: on_path(a / (c + extra)), a, useful, rng)
    return _completed(counts, weights, budget)


def _completed(counts: IntArray, weights: FloatArray, budget: Budget) -> IntArray:
    """Counts with the next best rollouts until their sum is a multiple of `budget.multiple`."""
    for _ in range(-int(counts.sum()) % budget.multiple):
        _make_best(counts, weights / _costs(budget), budget, counts < budget.max_rollouts)
    return counts


OnPath = Callable[[FloatArray], IntArray]
"""From the weights [Q] that order the decreases to counts [Q], however many rollouts these are."""


def _matched(a: FloatArray, target: float, budget: Budget, rng: np.random.Generator) -> OnPath:
    """Decreases until the variance is at most `target`. With costs, rollouts that were not needed are taken back, the
    most expensive first: the last one on the path may have been worth more than was missing."""
    c, d = _costs(budget), budget.model.marginal

    def counts(w: FloatArray) -> IntArray:
        few, many = _around(w, budget, lambda n: bool(a @ budget.model.factor(n) <= target))
        order = _next(few, many, w, budget, rng)
        missing = float(a @ budget.model.factor(few)) - target
        if missing > 0:
            few[order[: 1 + int(np.searchsorted(np.cumsum((a * d(few))[order]), missing * (1 - 1e-12)))]] += 1
        while budget.costs is not None:
            spare = target - float(a @ budget.model.factor(few))
            more = few > budget.min_rollouts
            free = more & (a * d(np.where(more, few - 1, few)) <= spare)
            if not free.any():
                break
            few[np.argmax(np.where(free, c, -1.0))] -= 1
        return few

    return counts


def _limited(a: FloatArray, budget: Budget, rng: np.random.Generator) -> OnPath:
    """Decreases as long as the cost is at most the limit. Those that do not fit are passed over, and the path goes on
    with the prompts whose rollouts do, up to the most rollouts of the batch."""
    c, limit = _costs(budget), np.inf if budget.limit is None else budget.limit * (1 + 1e-12)

    def counts(w: FloatArray) -> IntArray:
        n, rows = budget.min_rollouts.copy(), np.inf
        while (fits := (n < budget.max_rollouts) & (c <= limit - c @ n)).any() and n.sum() < rows:
            part = replace(budget.part(fits, budget.total), min_rollouts=n[fits])
            money, places = limit - float(c @ n), rows - int(n.sum())

            def beyond(m: IntArray, fits: np.ndarray = fits, money: float = money, places: float = places) -> bool:
                more = m - n[fits]
                return bool(c[fits] @ more > money or more.sum() > places)

            few, many = _around(w[fits], part, beyond)
            order = _next(few, many, w[fits], part, rng)
            made = few - n[fits]
            last = int(np.searchsorted(np.cumsum(c[fits][order]), money - c[fits] @ made, side="right"))
            few[order[: int(min(last, places - made.sum()))]] += 1
            if (few == n[fits]).all():
                break
            n[fits], rows = few, _most(budget)
        return n

    return counts


def _make_best(counts: IntArray, w: FloatArray, budget: Budget, which: np.ndarray) -> None:
    """Add the rollout with the largest decrease among the prompts where `which` [Q]."""
    counts[np.argmax(np.where(which, w * budget.model.marginal(counts), -1.0))] += 1


def _with_few_rollouts(
    counts_with: Callable[[float], IntArray], a: FloatArray, budget: Budget, rng: np.random.Generator
) -> IntArray:
    """The counts with the smallest extra cost of a rollout for which there are few enough."""
    scale, found, steps = float(_costs(budget).mean()), None, iter(range(20))

    def too_many(extra: float) -> bool:
        nonlocal found
        counts = counts_with(extra)
        few = bool(counts.sum() <= _most(budget))
        found = counts if few else found
        return not few

    if budget.costs is not None:
        bisect(too_many, 1e-3 * scale, 1e6 * scale, geometric=True, done=lambda: next(steps, None) is None)
    return exact_counts(a, budget.hard, rng) if found is None else found


def counts_of_new_and_known(weights: FloatArray, new: np.ndarray, budget: Budget, rng: np.random.Generator) -> IntArray:
    """`exact_counts`, but where a variance is matched, prompts that are `new` [Q] spend their share of C rollouts: what
    is not known cannot be saved on."""
    if budget.match is None or not new.any():
        return exact_counts(weights, budget, rng)
    if new.all():
        return exact_counts(weights, budget.hard, rng)
    least, most = budget.min_rollouts, budget.max_rollouts
    lower = max(least[new].sum(), budget.total - most[~new].sum())
    upper = min(most[new].sum(), budget.total - least[~new].sum())
    share = int(np.clip(round(budget.total * new.mean()), lower, upper))
    counts = np.empty_like(least)
    counts[new] = exact_counts(weights[new], budget.part(new, share).hard, rng)
    known = budget.part(~new, budget.total - share)
    counts[~new] = exact_counts(weights[~new], replace(known, multiple=1), rng)
    return _completed(counts, weights, budget)


def optimality_gap(weights: FloatArray, counts: IntArray, budget: Budget) -> float:
    """Bound on how far counts are from the optimum: of their variance if the cost is limited, of their cost if a
    variance is matched, as a share of it. 0 where they are exact.

    For any price the minimum of variance + price cost, less the price of the limit, is at most the optimum (weak
    duality). The price is that of the best decrease that was not made.
    """
    more = counts < budget.max_rollouts
    if budget.costs is None or budget.price is not None or not (weights > 0).any() or not more.any():
        return 0.0
    a, c, model = scaled(weights), budget.costs, budget.model
    price = float((a * model.marginal(counts) / c)[more].max())
    best = _counts_at(a / c, price, budget)
    value, cost = float(a @ model.factor(counts)), float(c @ counts)
    least = float(a @ model.factor(best)) + price * float(c @ best)
    if budget.match is not None:
        target = _target(a, budget)
        reached = value <= target * (1 + 1e-9)  # otherwise C rollouts were too few
        return float(np.clip(1 - (least - target) / price / cost, 0.0, 1.0)) if reached else 0.0
    return float(np.clip(1 - (least - price * (budget.limit or np.inf)) / value, 0.0, 1.0))


def scaled(weights: FloatArray) -> FloatArray:
    """Weights of maximum 1, none below 1e-100, which keeps the thresholds far from underflow."""
    return np.maximum(weights / weights.max(), 1e-100)


def _target(a: FloatArray, budget: Budget) -> float:
    """The variance to match."""
    return (budget.match or 0.0) * budget.uniform_variance(a)


def _costs(budget: Budget) -> FloatArray:
    """[Q] c."""
    return np.ones(len(budget.min_rollouts)) if budget.costs is None else budget.costs


def _most(budget: Budget) -> int:
    """Most rollouts of the batch."""
    return budget.total if budget.most is None else budget.most


def _counts_at(w: FloatArray, threshold: float, budget: Budget) -> IntArray:
    """[Q] the counts that make every decrease w d(n) above `threshold`."""
    counts = budget.model.count_at_threshold(np.minimum(w / threshold, 1e30))
    return np.clip(counts, budget.min_rollouts, budget.max_rollouts).astype(np.int64)


def _around(w: FloatArray, budget: Budget, beyond: Callable[[IntArray], bool]) -> tuple[IntArray, IntArray]:
    """Two points of the path: the first is not `beyond` where the budget ends, the second is, and between them every
    prompt has at most one decrease. Where the path begins beyond the end, or ends before it, the two are equal."""
    d = budget.model.marginal
    low = float((w * d(budget.max_rollouts)).min()) / 2  # below every decrease that the bounds allow
    high = float((w * d(budget.min_rollouts)).max()) * 2  # above all of them
    few, many = _counts_at(w, high, budget), _counts_at(w, low, budget)
    if beyond(few):
        return few, few
    if not beyond(many):
        return many, many

    def is_below(threshold: float) -> bool:
        nonlocal many, few
        counts = _counts_at(w, threshold, budget)
        if beyond(counts):
            many = counts
            return True
        few = counts
        return False

    bisect(is_below, low, high, geometric=True, done=lambda: not (many - few > 1).any())
    return few, many


def _next(few: IntArray, many: IntArray, w: FloatArray, budget: Budget, rng: np.random.Generator) -> IntArray:
    """The prompts that have a decrease between two points of the path, the largest first, ties in random order."""
    decreases = w * budget.model.marginal(few)
    order = rng.permutation(np.flatnonzero(many > few))
    return order[np.argsort(-decreases[order], kind="stable")]
