"""Pooled groups of two waves: unbiased for every rule, every size, and every outcome."""

from __future__ import annotations

import functools
import itertools
from math import comb

import numpy as np
import pytest
from waves_enumerated import RULES, Rule, expected_scale, sums

from viprl.advantages import RewardPrior, group_advantages
from viprl.allocation.waves.estimator import (
    FirstLook,
    first_wave_mean,
    group_weight,
    split_advantages,
    split_factor,
    wave_advantages,
)
from viprl.errors import InputError

PROBABILITIES = (0.02, 0.3, 0.5, 0.9)


def _look(w: int, rule: Rule, k1: int) -> FirstLook:
    """The coarsest label that the size of the second wave allows."""
    return FirstLook.of(w, [k for k in range(w + 1) if rule(k) == rule(k1)])


def _rewards(k: int, n: int) -> np.ndarray:
    return np.repeat([1.0, 0.0], [k, n - k])


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("w", range(2, 9))
def test_unbiased_for_every_rule_and_size(name: str, w: int) -> None:
    for most in range(0, 24 - w + 1):
        rule = RULES[name](w, most)

        @functools.cache
        def weight(k: int, m: int, k1: int, rule: Rule = rule) -> float:
            return group_weight(_look(w, rule, k1), k, w + m)

        for p in PROBABILITIES:
            scale = expected_scale(w, rule, lambda k1, k2, m: (c := weight(k1 + k2, m, k1), -c), p)
            assert scale == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(("share", "mean"), [(0.0, 0.0), (0.3, 0.2), (1.0, 0.9), (0.7, -3.0)])
def test_unbiased_with_a_share_of_the_expected_reward(name: str, share: float, mean: float) -> None:
    for w, most in itertools.product((2, 3, 5, 8), (0, 1, 4, 16)):
        rule = RULES[name](w, most)

        def coefficients(k1: int, k2: int, m: int, w: int = w, rule: Rule = rule) -> tuple[float, float]:
            r = _rewards(k1 + k2, w + m)
            return sums(wave_advantages(r, _look(w, rule, k1), share=share, mean=mean), r)

        for p in PROBABILITIES:
            assert expected_scale(w, rule, coefficients, p) == pytest.approx(1, abs=1e-9)


def test_the_pooled_baseline_is_biased_and_by_how_much() -> None:
    w, m, p = 4, 16, 0.05
    rule = RULES["only if mixed"](w, m)

    def pooled(k1: int, k2: int, m: int) -> tuple[float, float]:
        k, n = k1 + k2, w + m
        c = k * (n - k) / (n * (n - 1))
        return c, -c

    n = w + m
    first = (1 - p) ** w + p**w + w / (n - 1) * (p * (1 - p) ** (w - 1) + (1 - p) * p ** (w - 1))
    assert expected_scale(w, rule, pooled, p) == pytest.approx(1 - m / n * first, abs=1e-12)
    assert expected_scale(w, rule, pooled, p) == pytest.approx(0.34, abs=0.005)
    assert expected_scale(
        w, rule, lambda k1, k2, m: (c := group_weight(_look(w, rule, k1), k1 + k2, w + m), -c), p
    ) == (pytest.approx(1, abs=1e-12))


def test_labels_that_other_prompts_decide_about() -> None:
    """Two prompts share a hard budget after their first waves: given the other's outcome each one is unbiased."""
    w, budget, p = 3, 14, (0.2, 0.6)
    mixed = frozenset({1, 2})
    other = frozenset({0, 3})

    def second(k: tuple[int, int]) -> tuple[int, int]:
        share = [4.0 if k1 in mixed else 1.0 for k1 in k]
        m = round((budget - 2 * w) * share[0] / sum(share))
        return m, budget - 2 * w - m

    totals = np.zeros(2)
    for k in itertools.product(range(w + 1), repeat=2):
        m = second(k)
        chance = np.prod([comb(w, k[q]) * p[q] ** k[q] * (1 - p[q]) ** (w - k[q]) for q in (0, 1)])
        for q in (0, 1):
            look = FirstLook(w, mixed if k[q] in mixed else other)
            for k2 in range(m[q] + 1):
                more = comb(m[q], k2) * p[q] ** k2 * (1 - p[q]) ** (m[q] - k2)
                totals[q] += chance * more * group_weight(look, k[q] + k2, w + m[q]) / (p[q] * (1 - p[q]))
    np.testing.assert_allclose(totals, 1, atol=1e-12)


def test_one_label_is_rloo() -> None:
    rewards = np.array([1.0, 0.0, 0.0, 1.0, 0.0, 0.3, 0.0])
    look = FirstLook.of(3, range(4))
    np.testing.assert_allclose(wave_advantages(rewards, look), group_advantages(rewards, [7]), atol=1e-12)


def test_no_second_wave_with_a_share_is_the_shrunk_baseline() -> None:
    rewards, kappa, mu = np.array([1.0, 0.0, 1.0, 0.0]), 2.5, 0.2
    shrunk = group_advantages(rewards, [4], prior=RewardPrior(np.array([mu]), np.array([kappa])))
    look = FirstLook.of(4, range(5))
    np.testing.assert_allclose(wave_advantages(rewards, look, share=kappa / (kappa + 3), mean=mu), shrunk, atol=1e-12)


def test_advantages_of_binary_rewards_are_the_group_weight() -> None:
    look, rewards = FirstLook.of(4, [1, 2, 3]), _rewards(3, 12)
    u, t = sums(wave_advantages(rewards, look), rewards)
    c = group_weight(look, 3, 12)
    assert (u, t) == pytest.approx((c, -c), abs=1e-12)
    v = [k * (4 - k) / 12 for k in range(5)]
    orders = [comb(4, k) * comb(8, 3 - k) for k in (1, 2, 3)]
    assert c == pytest.approx(sum(v[k] * o for k, o in zip((1, 2, 3), orders, strict=True)) / sum(orders))


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_rewards_of_several_values_where_the_rule_reads_marks(share: float) -> None:
    """All outcomes of rewards in {0, .5, 1} with scores of their own: the expectation is E[(r - E r) Z]."""
    values, chances = np.array([0.0, 0.5, 1.0]), np.array([0.5, 0.2, 0.3])
    score = np.array([-0.7, 1.1, 0.0])
    score = score - chances @ score
    w, most = 3, 3
    label = {0: frozenset({0}), 1: frozenset({1, 2}), 2: frozenset({1, 2}), 3: frozenset({3})}
    total = 0.0
    for first in itertools.product(range(3), repeat=w):
        k1 = int((values[list(first)] > 0.25).sum())
        m = most if k1 in (1, 2) else (1 if k1 == 3 else 0)
        for second in itertools.product(range(3), repeat=m):
            drawn = list(first + second)
            r = values[drawn]
            a = wave_advantages(r, FirstLook(w, label[k1]), r > 0.25, share=share, mean=0.6)
            total += chances[drawn].prod() * float(a @ score[drawn]) / len(drawn)
    assert total == pytest.approx(chances @ (values * score), abs=1e-12)


def test_split_estimator_for_a_rule_that_reads_everything() -> None:
    values, chances = np.array([0.0, 0.5, 2.0]), np.array([0.5, 0.2, 0.3])
    score = np.array([-0.7, 1.1, 0.3])
    score = score - chances @ score
    total = 0.0
    for first in itertools.product(range(3), repeat=2):
        m = 1 + int(2 * np.ptp(values[list(first)]) + values[first[0]]) % 4
        for second in itertools.product(range(3), repeat=m):
            drawn = list(first + second)
            a = split_advantages(values[drawn], 2, weight=0.4)
            total += chances[drawn].prod() * float(a @ score[drawn]) / len(drawn)
    assert total == pytest.approx(chances @ (values * score), abs=1e-12)


def test_price_of_the_split_estimator() -> None:
    """Scores of variance 1 that are independent of the rewards: the law of the paper."""
    w, m, p, weight = 3, 5, 0.3, 3 / 8
    total = 0.0
    for k1, k2 in itertools.product(range(w + 1), range(m + 1)):
        chance = comb(w, k1) * comb(m, k2) * p ** (k1 + k2) * (1 - p) ** (w + m - k1 - k2)
        r = np.concatenate([_rewards(k1, w), _rewards(k2, m)])
        total += chance * float(np.sum(split_advantages(r, w, weight) ** 2)) / (w + m) ** 2
    factor = split_factor(w, m, weight)
    assert total == pytest.approx(p * (1 - p) * factor, abs=1e-12)
    assert factor == pytest.approx(1 / 8 * (1 + 3 / 40 + 5 / 24))
    assert factor > 1 / 7


def test_refuses_what_cannot_have_been() -> None:
    with pytest.raises(InputError):
        FirstLook.of(1, [0])
    with pytest.raises(InputError):
        FirstLook.of(4, [5])
    with pytest.raises(InputError):
        wave_advantages([0.0, 0.0, 0.0, 0.0], FirstLook.of(4, [1, 2, 3]))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("w", [2, 4, 6])
def test_means_of_the_first_wave_are_unbiased(name: str, w: int) -> None:
    rule = RULES[name](w, 10)
    for p in (0.03, 0.5, 0.9):
        mean = pooled = 0.0
        for k1, k2 in itertools.product(range(w + 1), range(11)):
            m = rule(k1)
            if k2 > m:
                continue
            look = FirstLook.of(w, [k for k in range(w + 1) if rule(k) == m])
            k, n = k1 + k2, w + m
            chance = comb(w, k1) * comb(m, k2) * p**k * (1 - p) ** (n - k)
            marks = np.arange(n) < k
            mean += chance * first_wave_mean(10 + 5.0 * marks, look, marks)
            pooled += chance * (10 + 5 * k / n)
        assert mean == pytest.approx(10 + 5 * p)
        if name == "only if mixed" and p == 0.03:
            assert abs(pooled - 10 - 5 * p) > 0.01
    assert np.isnan(first_wave_mean(np.array([np.nan, np.nan]), FirstLook.of(2, [0]), np.zeros(2, dtype=bool)))
