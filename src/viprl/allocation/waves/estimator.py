"""Advantages of groups that were sampled in two waves, with an exactly unbiased gradient.

    symbol   meaning
    w, m     rollouts of the first and of the second wave; n = w + m
    k1, K    marked rollouts of the first wave and of all n; with binary rewards the successes
    S        the label of the first wave: a set of values of k1
    theta    share of the expected reward in the baseline; mu the expected reward

The *rule*: before sampling, the values 0..w of k1 are cut into labels. The size m of the second wave may depend on the
own first wave through its label alone. It may depend in any way on other prompts, on their labels, and on what was
known before sampling. So a hard budget can be shared between the prompts after the first wave.

Pooling the waves as if n had been fixed is biased, because n tells something about the rewards. The first wave alone
is not: with its rollouts i in W,

    G1 = (1/w) sum_(i in W) (theta (r_i - mu) + (1 - theta) (r_i - mean of the others in W)) Z_i

has the expectation g for any theta and mu that are fixed before sampling. The expectation of G1 given the n pooled
rollouts without their order, and the label, is unbiased too, and has a smaller variance (Rao-Blackwell). Every choice
of w of the n rollouts whose number of marks is in S is equally likely to have been the first wave, so that

    E[G1 | pooled, S] = sum_i Z_i [theta (r_i - mu) P_i / w + (1 - theta) sum_j (r_i - r_j) P_ij / (w (w-1))]

with P_i and P_ij the probabilities that i, and that i and j, belong to such a choice. They depend on K, n, w, S and on
whether i and j are marked. With binary rewards and theta = 0 this is c(K, n) (mean score of successes - mean score of
failures) with

    c(K, n) = sum_(k1 in S) v(k1) C(w, k1) C(m, K - k1) / sum_(k1 in S) C(w, k1) C(m, K - k1),
    v(k1) = k1 (w - k1) / (w (w - 1)).

If all k1 have one label it is RLOO with n rollouts. Rewards need not be binary: only the marks are, such as "reward
above 0.5", and the rule reads nothing but the marks.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import ArrayLike

from viprl.errors import InputError
from viprl.utils.arrays import FloatArray


@dataclass(frozen=True)
class FirstLook:
    """What the second wave of a group was allowed to depend on."""

    size: int
    """w >= 2, rollouts of the first wave."""
    marked: frozenset[int]
    """S, the numbers of marked rollouts in the first wave with the same label."""

    @classmethod
    def of(cls, size: int, marked: Collection[int]) -> FirstLook:
        """Raises InputError for a size below 2 and for numbers outside 0..size."""
        if size < 2 or not marked or min(marked) < 0 or max(marked) > size:
            raise InputError(
                f"a first wave of {size} rollouts with the label {sorted(marked)} was given; expected at least 2 "
                f"rollouts, and a label of one or more numbers from 0 to {size}"
            )
        return cls(size, frozenset(marked))

    def can_lead_to(self, marked: int, n: int) -> bool:
        """Whether a first wave with this label can be a part of n rollouts of which so many are marked."""
        return any(k <= marked and self.size - k <= n - marked for k in self.marked)


@dataclass(frozen=True)
class Orders:
    """Which rollouts of a pooled group can have been the first wave."""

    count: int
    """Choices of the first wave with the label, out of C(n, w)."""
    single: tuple[float, float]
    """Probability that a rollout is in the first wave: not marked, marked."""
    pair: tuple[tuple[float, float], tuple[float, float]]
    """Probability that two rollouts are both in it, by the marks of the two."""


@functools.lru_cache(maxsize=65536)
def orders(look: FirstLook, marked: int, n: int) -> Orders:
    """The probabilities P_i and P_ij for K = `marked` of n pooled rollouts, exact but for the last division."""
    w, rest = look.size, n - marked

    def choices(ones: int, zeros: int) -> int:
        """Choices of the first wave that contain so many given rollouts of each kind."""
        return sum(
            comb(marked - ones, k - ones) * comb(rest - zeros, w - k - zeros)
            for k in look.marked
            if k >= ones and w - k >= zeros and marked >= ones and rest >= zeros
        )

    total = choices(0, 0)
    if total == 0:
        raise InputError(
            f"{marked} of {n} rollouts are marked, which no first wave of {w} with {sorted(look.marked)} marked can "
            "have led to; give the label of the first wave that was sampled"
        )
    zero, one = choices(0, 1) / total, choices(1, 0) / total
    mixed = choices(1, 1) / total
    return Orders(total, (zero, one), ((choices(0, 2) / total, mixed), (mixed, choices(2, 0) / total)))


def wave_advantages(
    rewards: ArrayLike,
    look: FirstLook,
    marks: ArrayLike | None = None,
    *,
    share: float = 0.0,
    mean: float = 0.0,
) -> FloatArray:
    """Advantages A [n] of a pooled group, for the gradient (1/n) sum_i A_i Z_i.

    Args:
        rewards: [n] of both waves, in any order. NaN is unscorable: not marked, left out of the pairs, and 0 in A.
        look: size and label of the first wave.
        marks: [n] true for marked rollouts. Default: rewards above 0.
        share: theta, fixed before the first wave.
        mean: mu, fixed before the first wave.

    Raises InputError for marks that no first wave with this label can have led to.
    """
    r = np.asarray(rewards, dtype=np.float64)
    known = ~np.isnan(r)
    one = (known & (r > 0 if marks is None else np.asarray(marks, dtype=bool))).astype(np.int64)
    n, w = len(r), look.size
    if not known.any():  # a group that was lost
        return np.zeros(n)
    chance = orders(look, int(one.sum()), n)
    single, pair = np.array(chance.single)[one], np.array(chance.pair)[one][:, one]
    against = np.nansum(pair * (r[:, None] - r), axis=1) * (n - 1) / max(known.sum() - 1, 1)
    return np.where(known, n * (share * (r - mean) * single / w + (1 - share) * against / (w * (w - 1))), 0.0)


def first_wave_mean(values: FloatArray, look: FirstLook, marks: np.ndarray) -> float:
    """sum_i P_i v_i / w: what the mean of the first wave was, expected given the pooled rollouts and the label. It is
    unbiased for E[v]; the mean over all n is not, because n depends on the outcomes.

    Args:
        values: v [n]; NaN is left out. NaN if all are.
        look: size and label of the first wave.
        marks: [n] true for marked rollouts.
    """
    one, known = np.asarray(marks, dtype=bool).astype(np.int64), ~np.isnan(values)
    if not known.any():
        return float("nan")
    weight = np.where(known, np.array(orders(look, int(one.sum()), len(one)).single)[one], 0.0)
    return float(weight @ np.nan_to_num(values) / weight.sum()) if weight.sum() > 0 else float("nan")


def group_weight(look: FirstLook, successes: int, n: int) -> float:
    """c(K, n) of binary rewards: the gradient is c times (mean score of successes - mean score of failures)."""
    chance = orders(look, successes, n).pair[0][1]
    return successes * (n - successes) * chance / (look.size * (look.size - 1))


def split_advantages(rewards: ArrayLike, first: int, weight: float) -> FloatArray:
    """Advantages A [n] for any rule that always samples a second wave, whatever it reads of the first one.

    Each wave has the mean reward of the other one as its baseline:

        G = weight (1/w) sum_(i in first) (r_i - mean of second) Z_i
          + (1 - weight) (1/m) sum_(i in second) (r_i - mean of first) Z_i

    Unbiased, because given the first wave the second one is an ordinary sample. The price: for a fixed m and
    weight = w/n the variance is a (1/n) (1 + w/(m n) + m/(w n)) (`split_factor`) in place of a (1/n) (1 + 1/(n-1)), and
    the weight, unlike a mean over all n, cannot follow m.

    Args:
        rewards: [n], those of the first wave first.
        first: w >= 1.
        weight: of the first wave, fixed before sampling: it must not depend on m.
    """
    r = np.asarray(rewards, dtype=np.float64)
    n = len(r)
    if not 1 <= first < n:
        raise InputError(f"the first wave has {first} of {n} rollouts; expected at least one rollout in each wave")
    own, others = r[:first], r[first:]
    return np.concatenate(
        [
            weight * n / first * (own - others.mean()),
            (1 - weight) * n / (n - first) * (others - own.mean()),
        ]
    )


def split_factor(first: int, second: int, weight: float) -> float:
    """Variance of `split_advantages` in units of a, where RLOO has 1/(n-1)."""
    return weight**2 * (1 + 1 / second) / first + (1 - weight) ** 2 * (1 + 1 / first) / second
