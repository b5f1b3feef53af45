"""How many rollouts each prompt gets: minimise sum_q a_q f(n_q) under a hard budget (arXiv 2602.01601, Section 5).

    symbol   meaning                                              shape
    Q, C     prompts in the batch, rollouts to spend (all of them) scalars
    a        variance weight of each prompt, p(1-p) for p          [Q]
    L, U     least and most rollouts of each prompt                [Q]
    n        rollouts of each prompt, integers                     [Q]

The problem is separable and convex, so its integer optimum takes the C - sum(L) largest drops a_q d(n). Finding
the threshold on the drops by bisection needs no loop over rollouts; `round_like_paper` keeps the published
rounding (floor of the relaxation, then the largest drops), which is near the optimum but not always on it.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from viprl.variance import Estimator, FloatArray, get_estimator

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Allocation:
    """What to sample, and what it is expected to buy."""

    counts: IntArray
    """[Q] rollouts of each prompt; sums to the budget."""
    success_probability: FloatArray | None
    """[Q] success probability each count is based on; None when only weights were given."""
    expected_variance: float
    """sum_q a_q f(n_q): the predicted variance of the batch gradient, times Q^2 and in units of the score variance."""
    uniform_variance: float
    """The same when the budget is spread evenly (linear between integers where C/Q is not whole)."""

    @property
    def variance_ratio(self) -> float:
        """Predicted variance against uniform; 1 where both are zero."""
        return self.expected_variance / self.uniform_variance if self.uniform_variance > 0 else 1.0


@dataclass(frozen=True)
class Budget:
    """A validated budget: `total` rollouts for Q prompts within `low` and `high` [Q], under one estimator's law."""

    total: int
    low: IntArray
    high: IntArray
    estimator: Estimator

    @classmethod
    def check(
        cls, prompts: int, budget: int, low: ArrayLike | None, high: ArrayLike | None, estimator: str | Estimator
    ) -> Budget:
        """Fill in the defaults (low: the smallest legal group, high: the budget) and refuse what cannot be met."""
        law = get_estimator(estimator)
        total = _integer("budget", budget)
        if prompts == 0:
            raise ValueError("no prompts were given; an allocation needs at least one")
        lows = _bounds("low", law.smallest_group if low is None else low, prompts)
        highs = _bounds("high", max(total, 1) if high is None else high, prompts)
        if (lows < law.smallest_group).any():
            raise ValueError(
                f"low is {lows.min()}, but estimator {law.name!r} needs groups of at least {law.smallest_group} "
                f"(its law is not a convex variance below that); raise low to {law.smallest_group}"
            )
        if high is not None and (lows > highs).any():
            q = int(np.argmax(lows > highs))
            raise ValueError(f"low exceeds high for prompt {q}: low={lows[q]}, high={highs[q]}")
        if not lows.sum() <= total <= highs.sum():
            side = "lower low or raise the budget" if total < lows.sum() else "raise high or lower the budget"
            most = highs.sum() if high is not None else "any number of"
            raise ValueError(
                f"the budget cannot be met: Q={prompts} prompts with L={_span(lows)} and "
                f"U={_span(highs) if high is not None else 'no limit'} take {lows.sum()} to {most} rollouts, "
                f"but C={total}; {side}"
            )
        highs = np.maximum(np.minimum(highs, total), lows)  # nobody can get more than there is
        return cls(total, lows, highs, law)


def allocate(
    success_probability: ArrayLike,
    *,
    budget: int,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    estimator: str | Estimator = "rloo",
    rng: np.random.Generator | None = None,
) -> Allocation:
    """Exact optimum for known success probabilities.

    Args:
        success_probability: [Q] numbers in [0, 1]; exactly 0 or 1 means weight 0.
        budget: C, rollouts to spend, every one of them.
        low, high: L and U, scalars or [Q]. Defaults: the estimator's smallest legal group, and no limit.
        estimator: "rloo" or "dr_grpo".
        rng: decides ties; a fixed generator when None, so that equal input gives equal output.

    Returns: an `Allocation`.

    Raises: ValueError for probabilities outside [0, 1] or NaN, and for a budget that the bounds cannot meet.
    """
    p = np.asarray(success_probability, dtype=float)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        bad = p[~((p >= 0) & (p <= 1))][:3] if p.ndim == 1 else p.shape
        raise ValueError(f"success_probability must be one row of numbers in [0, 1]; got {bad}")
    plan = allocate_weights(p * (1 - p), budget=budget, low=low, high=high, estimator=estimator, rng=rng)
    return Allocation(plan.counts, p, plan.expected_variance, plan.uniform_variance)


def allocate_weights(
    weights: ArrayLike,
    *,
    budget: int,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    estimator: str | Estimator = "rloo",
    rng: np.random.Generator | None = None,
) -> Allocation:
    """`allocate` for variance weights a [Q] >= 0 of any scale, such as E[p(1-p)] under a posterior."""
    a = check_weights(weights)
    spec = Budget.check(len(a), budget, low, high, estimator)
    counts = exact_counts(a, spec, np.random.default_rng(0) if rng is None else rng)
    return describe(counts, a, spec)


def describe(counts: IntArray, weights: FloatArray, spec: Budget, p: FloatArray | None = None) -> Allocation:
    """An `Allocation` with the variance that `weights` predict for `counts` and for the even spread."""
    law = spec.estimator
    return Allocation(
        counts=counts,
        success_probability=p,
        expected_variance=float(weights @ law.factor(counts)),
        uniform_variance=float(weights @ law.interpolated(even_share(spec))),
    )


def check_weights(weights: ArrayLike) -> FloatArray:
    """`weights` as float64 [Q]; ValueError for anything negative, infinite or NaN."""
    a = np.asarray(weights, dtype=float)
    if a.ndim != 1 or not (np.isfinite(a) & (a >= 0)).all():
        bad = a[~(np.isfinite(a) & (a >= 0))][:3] if a.ndim == 1 else a.shape
        raise ValueError(f"weights must be one row of finite numbers >= 0; got {bad}")
    return a


def exact_counts(weights: FloatArray, spec: Budget, rng: np.random.Generator) -> IntArray:
    """The integer optimum; ties are broken by `rng`. Prompts of weight 0 share evenly what the others cannot take."""
    positive = weights > 0
    if not positive.any():
        return exact_counts(np.ones_like(weights), spec, rng)
    if not positive.all():
        most = int(spec.high[positive].sum() + spec.low[~positive].sum())
        counts = np.where(positive, spec.high, spec.low)
        part = positive if spec.total < most else ~positive
        rest = Budget(spec.total - int(counts[~part].sum()), spec.low[part], spec.high[part], spec.estimator)
        counts[part] = exact_counts(weights[part] if spec.total < most else np.ones(part.sum()), rest, rng)
        return counts
    a = _scaled(weights)
    below, above = _bracket(a, spec)
    many, few = _sizes(a, below, spec), _sizes(a, above, spec)
    while (many - few > 1).any():  # bisection of the logarithm, until no prompt has two drops between the thresholds
        middle = np.sqrt(below) * np.sqrt(above)
        if not below < middle < above:
            break
        sizes = _sizes(a, middle, spec)
        if sizes.sum() >= spec.total:
            below, many = middle, sizes
        else:
            above, few = middle, sizes
    return _spend_rest(few, many, a * spec.estimator.drop(few), spec, rng)


def relaxed_counts(weights: FloatArray, spec: Budget) -> FloatArray:
    """Real n with sum C: bisection on the multiplier (Theorems 5.1, 5.2, Algorithm 2); even spread if all a = 0."""
    a, law = np.asarray(weights, dtype=float), spec.estimator
    if not (a > 0).any():
        return even_share(spec)
    a = _scaled(a)  # weight 0 stays at L until every other prompt has U

    def counts(multiplier: float) -> FloatArray:
        return np.clip(law.relaxed(a / multiplier), spec.low, spec.high)

    low, high = float(a.min()) / (4.0 * float(spec.high.max()) ** 2), 1.0  # everyone at U; everyone at L
    for _ in range(200):
        middle = np.sqrt(low) * np.sqrt(high)
        if not low < middle < high:
            break
        if counts(middle).sum() >= spec.total:
            low = middle
        else:
            high = middle
    few, many = counts(high), counts(low)
    gap = many.sum() - few.sum()  # both ends of the last interval: meet the budget between them
    return few if gap <= 0 else few + (many - few) * (spec.total - few.sum()) / gap


def round_like_paper(relaxed: FloatArray, weights: FloatArray, spec: Budget) -> IntArray:
    """The published rounding (Algorithm 2): floor, then one rollout at a time to the largest drop."""
    counts = np.clip(np.floor(relaxed + 1e-9), spec.low, spec.high).astype(np.int64)
    drop = spec.estimator.drop
    queue = [(-weights[q] * float(drop(counts[q])), q) for q in range(len(counts)) if counts[q] < spec.high[q]]
    heapq.heapify(queue)
    for _ in range(spec.total - int(counts.sum())):
        _, q = heapq.heappop(queue)
        counts[q] += 1
        if counts[q] < spec.high[q]:
            heapq.heappush(queue, (-weights[q] * float(drop(counts[q])), q))
    return counts


def even_share(spec: Budget) -> FloatArray:
    """Real counts, as equal as the bounds allow, that sum to C: clip(level, L, U)."""
    low, high = float(spec.low.min()), float(spec.high.max())
    for _ in range(200):
        level = (low + high) / 2
        if not low < level < high:
            break
        if np.clip(level, spec.low, spec.high).sum() >= spec.total:
            high = level
        else:
            low = level
    few, many = np.clip(low, spec.low, spec.high), np.clip(high, spec.low, spec.high)
    gap = many.sum() - few.sum()
    share = few if gap <= 0 else few + (many - few) * (spec.total - few.sum()) / gap
    nearest = np.round(share)  # a level of 7.999999999 is 8
    return np.where(np.abs(share - nearest) < 1e-9, nearest, share)


def _sizes(a: FloatArray, threshold: float, spec: Budget) -> IntArray:
    """Counts that take every drop above `threshold`."""
    return np.clip(spec.estimator.size(np.minimum(a / threshold, 1e30)), spec.low, spec.high).astype(np.int64)


def _bracket(a: FloatArray, spec: Budget) -> tuple[float, float]:
    """Thresholds that take every rollout that the bounds allow, and none beyond `low`."""
    drop = spec.estimator.drop
    return float((a * drop(spec.high)).min()) / 2, float((a * drop(spec.low)).max()) * 2


def _spend_rest(few: IntArray, many: IntArray, drops: FloatArray, spec: Budget, rng: np.random.Generator) -> IntArray:
    """Between `few` (at most C rollouts) and `many` (at least C) every prompt has one drop: take the largest, ties by
    `rng`."""
    rest = spec.total - int(few.sum())
    order = rng.permutation(np.flatnonzero(many > few))
    order = order[np.argsort(-drops[order], kind="stable")]
    counts = few.copy()
    counts[order[:rest]] += 1
    return counts


def _scaled(weights: FloatArray) -> FloatArray:
    """Weights of maximum 1; below 1e-100 all count alike, which keeps the thresholds far from underflow."""
    return np.maximum(weights / weights.max(), 1e-100)


def _integer(name: str, value: Any) -> int:
    array = np.asarray(value)
    if array.ndim or array.dtype.kind not in "iuf" or not np.isfinite(array) or array != np.floor(array):
        raise ValueError(f"{name} is {value!r}; expected a whole number")
    return int(array)


def _bounds(name: str, value: ArrayLike, prompts: int) -> IntArray:
    array = np.asarray(value)
    if array.ndim > 1 or (array.ndim == 1 and len(array) != prompts):
        raise ValueError(f"{name} has shape {array.shape}; expected one number or one for each of {prompts} prompts")
    if array.dtype.kind not in "iuf" or not np.isfinite(array).all() or (array != np.floor(array)).any():
        raise ValueError(f"{name} is {value!r}; expected whole numbers")
    return np.broadcast_to(array.astype(np.int64), (prompts,))


def _span(bounds: IntArray) -> str:
    return str(bounds[0]) if (bounds == bounds[0]).all() else f"{bounds.min()}..{bounds.max()}"
