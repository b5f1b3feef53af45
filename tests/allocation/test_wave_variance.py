"""The tables of exact variances, against enumeration and simulation."""

from __future__ import annotations

import itertools
from math import comb

import numpy as np
import pytest
from waves_enumerated import sums

from viprl.allocation.variance_models import RLOO, ShrunkRLOO
from viprl.allocation.waves.estimator import FirstLook, wave_advantages
from viprl.allocation.waves.variance import factors, look_table

P = np.array([0.0, 0.03, 0.4, 0.5, 1.0])


@pytest.mark.parametrize(("w", "n"), [(2, 2), (2, 7), (4, 16), (6, 9), (8, 8)])
def test_one_label_is_the_law_of_rloo(w: int, n: int) -> None:
    table = look_table(w, n, P)
    np.testing.assert_allclose(
        table.moments[2, table.label(0, w), n], P * (1 - P) * RLOO().factor(n), rtol=1e-12, atol=1e-15
    )


def test_without_a_second_wave_it_is_the_law_of_shrunk_baselines() -> None:
    """Averaged over a Beta belief, whose mean and pseudocounts the baseline uses."""
    from scipy.special import roots_jacobi

    w, a, b = 5, 0.7, 1.9
    x, weights = roots_jacobi(40, b - 1, a - 1)
    p, belief = (1 + x) / 2, weights / weights.sum()
    mean, kappa = a / (a + b), a + b
    table = look_table(w, w, p)
    share = np.array([kappa / (kappa + w - 1)])
    found = np.einsum("jq,jg,g->q", factors(share, np.array([mean])), table.moments[:, table.label(0, w), w], belief)
    assert found[0] == pytest.approx(belief @ (p * (1 - p)) * ShrunkRLOO(np.array([kappa])).factor(w)[0])


@pytest.mark.parametrize(("share", "mean", "signal"), [(0.0, 0.0, 0.0), (0.4, 0.3, 0.0), (0.4, 0.3, 2.5)])
def test_sum_of_squares_over_all_outcomes(share: float, mean: float, signal: float) -> None:
    w, sizes = 4, {(0, 0): 4, (1, 2): 9, (3, 4): 6}
    table = look_table(w, 10, P, signal)
    for (low, high), n in sizes.items():
        label, m = table.label(low, high), n - w
        found = np.einsum("jq,jg->g", factors(np.array([share]), np.array([mean])), table.moments[:, label, n])
        expected, chance = np.zeros(len(P)), np.zeros(len(P))
        for k1, k2 in itertools.product(range(low, high + 1), range(m + 1)):
            k = k1 + k2
            outcome = comb(w, k1) * comb(m, k2) * P**k * (1 - P) ** (n - k)
            look = FirstLook.of(w, range(low, high + 1))
            rewards = np.repeat([1.0, 0.0], [k, n - k])
            a = wave_advantages(rewards, look, share=share, mean=mean)
            u, t = sums(a, rewards)
            expected += outcome * (float(np.sum((a / n) ** 2)) + signal * ((1 - P) * u - P * t) ** 2)
            chance += outcome
        np.testing.assert_allclose(found, expected, atol=1e-14)
        np.testing.assert_allclose(table.chance[label], chance, atol=1e-14)


def test_the_law_with_a_signal_is_the_exact_one() -> None:
    """A/n + B/(n(n-1)) with A = E[(r-p)^2 |Z|^2] - |g|^2 and B = Var(r) E|Z|^2 + |g|^2."""
    w, n, rho = 3, 7, 1.7
    table = look_table(w, n, P, rho)
    a, squared = P * (1 - P), rho * (P * (1 - P)) ** 2
    # given a success the mean of the score is (1-p) times the difference, given a failure -p times it
    first = a + rho * (P * (1 - P) ** 4 + (1 - P) * P**4) - squared
    second = a * (1 + rho * a) + squared
    law = first / n + second / (n * (n - 1))
    np.testing.assert_allclose(table.moments[2, table.label(0, w), n] - squared, law, atol=1e-14)
