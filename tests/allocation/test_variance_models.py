"""The variance laws: f, its drops, their inverse and the relaxed root, each against arithmetic of its own."""

from __future__ import annotations

import itertools
import warnings
from fractions import Fraction

import numpy as np
import pytest
from scipy.optimize import brentq

from viprl.allocation.variance_models import VARIANCE_MODELS, get_variance_model
from viprl.errors import InputError

LAWS = {
    "rloo": (2, lambda n: Fraction(1, n - 1)),
    "dr_grpo": (3, lambda n: Fraction(n - 1, n * n)),
}


@pytest.fixture(params=LAWS)
def law(request):
    return get_variance_model(request.param)


def exact(law, n: int) -> Fraction:
    return LAWS[law.name][1](n)


def test_the_smallest_legal_groups_and_the_published_factors(law) -> None:
    assert law.min_rollouts == LAWS[law.name][0]
    for n in [*range(law.min_rollouts, 60), 1000, 10**6]:
        assert law.factor(n) == pytest.approx(float(exact(law, n)), rel=1e-14)


def test_values_by_hand() -> None:
    rloo, dr = get_variance_model("rloo"), get_variance_model("dr_grpo")
    np.testing.assert_allclose(rloo.factor([2, 3, 5]), [1, 1 / 2, 1 / 4])
    np.testing.assert_allclose(dr.factor([3, 4, 5]), [2 / 9, 3 / 16, 4 / 25])
    assert rloo.marginal(2) == pytest.approx(1 / 2)
    assert dr.marginal(3) == pytest.approx(2 / 9 - 3 / 16)


def test_drops_are_differences(law) -> None:
    n = np.array([*range(law.min_rollouts, 200), 10**4, 10**6])
    expected = [float(exact(law, int(m)) - exact(law, int(m) + 1)) for m in n]
    np.testing.assert_allclose(law.marginal(n), expected, rtol=1e-13)


def test_convex_and_decreasing_from_the_min_rollouts(law) -> None:
    drops = [exact(law, n) - exact(law, n + 1) for n in range(law.min_rollouts, 400)]
    assert all(one > other > 0 for one, other in itertools.pairwise(drops))
    assert (np.diff(law.marginal(np.arange(law.min_rollouts, 5000))) < 0).all()


def test_dr_grpo_is_not_convex_from_two() -> None:
    law = get_variance_model("dr_grpo")
    assert law.marginal(2) < law.marginal(3)
    assert law.marginal(2) == pytest.approx(1 / 4 - 2 / 9)


def test_size_is_the_inverse_of_the_drops_on_both_sides_of_each_threshold(law) -> None:
    for n in [*range(law.min_rollouts, 600), 5000, 10**5]:
        turn = 1 / float(exact(law, n) - exact(law, n + 1))  # ratio at which the drop n -> n+1 is worth its price
        assert law.count_at_threshold(turn * (1 - 1e-9)) == n
        assert law.count_at_threshold(turn * (1 + 1e-9)) == n + 1


def test_size_against_brute_force(law) -> None:
    ratio = np.concatenate([[0.0], np.geomspace(1e-3, 3e5, 700)])
    n = np.arange(law.min_rollouts, 700)
    brute = [int(n[np.argmax(r * law.marginal(n) <= 1)]) for r in ratio]
    np.testing.assert_array_equal(law.count_at_threshold(ratio), brute)


def test_size_of_huge_ratios_stays_within_one_of_the_threshold(law) -> None:
    for ratio in (1e10, 1e14):
        n = law.count_at_threshold(ratio)
        assert ratio * law.marginal(n) <= 1 < ratio * law.marginal(n - 1)


def slope(law, n: float) -> float:
    return 1 / (n - 1) ** 2 if law.name == "rloo" else (n - 2) / n**3


def test_relaxed_root_against_a_numeric_solver(law) -> None:
    smallest = 1 / slope(law, law.min_rollouts)
    for ratio in np.geomspace(smallest * 1.0001, 1e9, 120):
        root = brentq(lambda n, r=ratio: r * slope(law, n) - 1, law.min_rollouts, 1e6, xtol=1e-12, rtol=1e-14)
        assert law.continuous_count(ratio) == pytest.approx(root, rel=1e-8)


def test_relaxed_dr_grpo_never_leaves_the_convex_part() -> None:
    np.testing.assert_allclose(get_variance_model("dr_grpo").continuous_count([1e-9, 1.0, 26.999, 27.0]), 3, rtol=1e-7)


def test_interpolation_is_linear_between_integers(law) -> None:
    for n in (law.min_rollouts, 7, 30):
        for share in (0.0, 0.25, 0.9):
            straight = (1 - share) * float(exact(law, n)) + share * float(exact(law, n + 1))
            assert law.interpolated_factor(n + share) == pytest.approx(straight, rel=1e-12)


def test_everything_is_elementwise(law) -> None:
    n = np.array([[3, 4, 5], [6, 7, 8]])
    for function in (law.factor, law.marginal, law.count_at_threshold, law.continuous_count, law.interpolated_factor):
        whole = function(n)
        assert whole.shape == n.shape
        np.testing.assert_array_equal(whole[1], function(n[1]))


def test_plain_grpo_warns_and_the_others_do_not() -> None:
    with pytest.warns(UserWarning, match="standard deviation"):
        assert get_variance_model("grpo").min_rollouts == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert get_variance_model("rloo") is VARIANCE_MODELS["rloo"]
        assert get_variance_model(VARIANCE_MODELS["dr_grpo"]) is VARIANCE_MODELS["dr_grpo"]


@pytest.mark.parametrize("name", ["RLOO", "reinforce", "", None])
def test_unknown_estimators_are_refused_with_the_list(name) -> None:
    with pytest.raises(InputError, match="'rloo'"):
        get_variance_model(name)
