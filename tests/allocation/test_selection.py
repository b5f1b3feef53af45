"""Inclusion probabilities against their conditions of optimality, and samples by enumeration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from bandits import Policy
from sampled_orders import Scripted, scripts
from viprl.allocation.selection import FLOOR, inclusion_probabilities, systematic_sample

ORDINARY = st.floats(1e-6, 1.0)
EXTREME = st.sampled_from([0.0, 5e-324, 1e-300, 1e-150, 1e-12, 1.0, 1e150, 1e300])


def objective(size: np.ndarray, pi: np.ndarray) -> float:
    return float((size**2 / pi).sum())


@st.composite
def cases(draw, sizes):
    size = np.array(draw(st.lists(sizes, min_size=1, max_size=12)))
    return size, draw(st.integers(1, len(size))), draw(st.sampled_from([1e-3, 0.1, 0.5, 1.0]))


class TestInclusion:
    @settings(deadline=None)
    @given(cases(ORDINARY | EXTREME))
    def test_they_sum_to_m_within_floor_and_one(self, case) -> None:
        size, m, floor = case
        pi = inclusion_probabilities(size, m, floor)
        assert pi.sum() == pytest.approx(m, rel=1e-12)
        assert (pi >= floor * m / len(size) * (1 - 1e-12)).all()
        assert (pi <= 1).all()
        order = np.argsort(size, kind="stable")
        assert (np.diff(pi[order]) >= -1e-12).all()  # a larger gradient is not sampled less

    @settings(deadline=None)
    @given(cases(ORDINARY | st.sampled_from([0.0, 1e-140, 1e-12, 1e140])))
    def test_they_are_optimal(self, case) -> None:
        """Kuhn and Tucker: size/pi is the same for all between the bounds, larger at 1, smaller at the floor."""
        size, m, floor = case
        pi = inclusion_probabilities(size, m, floor)
        ratio, least = size / pi, floor * m / len(size)
        below, above = pi < 1 - 1e-9, pi > least * (1 + 1e-9)
        if below.any() and above.any():
            assert ratio[below].max() <= ratio[above].min() * (1 + 1e-6)

    @pytest.mark.parametrize("seed", range(8))
    def test_scipy_finds_nothing_better(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        size, m = rng.uniform(0.05, 1, 7), int(rng.integers(1, 7))
        least = FLOOR * m / 7
        pi = inclusion_probabilities(size, m)
        found = minimize(
            lambda x: objective(size, x), np.full(7, m / 7), method="SLSQP", bounds=[(least, 1.0)] * 7,
            constraints={"type": "eq", "fun": lambda x: x.sum() - m}, options={"maxiter": 500, "ftol": 1e-12},
        )  # fmt: skip
        assert found.success
        assert objective(size, pi) <= found.fun * (1 + 1e-7)
        np.testing.assert_allclose(pi, found.x, atol=2e-3)

    def test_by_hand(self) -> None:
        np.testing.assert_allclose(inclusion_probabilities(np.array([6.0, 2, 1, 1]), 2, 0.1), [1, 0.5, 0.25, 0.25])
        np.testing.assert_allclose(inclusion_probabilities(np.array([1.0, 1, 1, 0]), 2, 0.1), [0.65, 0.65, 0.65, 0.05])

    @pytest.mark.parametrize("size", [0.0, 5e-324, 0.3, 1e300])
    def test_equal_sizes_are_equally_likely(self, size: float) -> None:
        for m in (1, 3, 8):
            np.testing.assert_allclose(inclusion_probabilities(np.full(8, size), m), m / 8)

    @pytest.mark.parametrize("scale", [1e-300, 1e-9, 1e9, 1e300])
    def test_the_unit_does_not_matter(self, scale: float) -> None:
        size = np.random.default_rng(0).random(20)
        expected = inclusion_probabilities(size, 6)
        np.testing.assert_allclose(inclusion_probabilities(size * scale, 6), expected, rtol=1e-9)

    @pytest.mark.parametrize("huge", [1.0, 1e12])
    def test_huge_sizes_leave_the_others_as_they_are(self, huge: float) -> None:
        for tiny in (1e-3, 1e-280):
            size = np.array([huge, 2 * tiny, tiny, tiny, huge, tiny])
            np.testing.assert_allclose(inclusion_probabilities(size, 4), [1, 0.8, 0.4, 0.4, 1, 0.4])

    def test_the_only_ones_with_a_gradient_are_certain(self) -> None:
        pi = inclusion_probabilities(np.array([0, 1e-290, 0, 7, 0]), 4)
        np.testing.assert_allclose(pi, [2 / 3, 1, 2 / 3, 1, 2 / 3])

    def test_a_hundred_thousand_candidates(self) -> None:
        size = np.random.default_rng(0).exponential(size=100_000)
        pi = inclusion_probabilities(size, 512)
        assert pi.sum() == pytest.approx(512, rel=1e-12)
        assert len(systematic_sample(pi, np.random.default_rng(1))) == 512


class TestSample:
    @pytest.mark.parametrize(
        ("size", "m"), [([1, 1, 1, 1], 2), ([9, 3, 1, 0], 2), ([5, 1, 1, 1, 2], 3), ([3, 2, 1], 1)]
    )
    def test_each_is_sampled_with_its_probability(self, size, m: int) -> None:
        """Exactly, by enumeration."""
        pi = inclusion_probabilities(np.array(size, dtype=float), m)
        included, total = np.zeros(len(pi)), 0.0
        for chance, script in scripts(pi):
            positions = systematic_sample(pi, script)
            assert len(set(positions.tolist())) == m
            included[positions] += chance
            total += chance
        assert total == pytest.approx(1)
        np.testing.assert_allclose(included, pi, atol=1e-12)

    def test_the_generator_draws_as_enumerated(self) -> None:
        pi, rng = inclusion_probabilities(np.array([9.0, 3, 1, 0, 2, 2]), 3), np.random.default_rng(0)
        draws = np.zeros((4000, 6))
        for draw in draws:
            draw[systematic_sample(pi, rng)] = 1
        assert (draws.sum(axis=1) == 3).all()
        error = np.sqrt(pi * (1 - pi) / len(draws))
        assert (np.abs(draws.mean(axis=0) - pi) <= 4 * error).all()

    @settings(deadline=None)
    @given(cases(ORDINARY | EXTREME), st.integers(0, 2**32 - 1))
    def test_its_size_is_m(self, case, seed: int) -> None:
        size, m, floor = case
        pi = inclusion_probabilities(size, m, floor)
        positions = systematic_sample(pi, np.random.default_rng(seed))
        assert len(positions) == m
        assert (np.diff(positions) > 0).all()
        assert np.isin(np.flatnonzero(pi >= 1), positions).all()

    @pytest.mark.parametrize("start", [0.0, 1e-17, 0.5, np.nextafter(1, 0)])
    def test_starts_at_the_edges(self, start: float) -> None:
        pi = np.full(10, 0.3)  # their sum rounds to a number below 3
        assert len(systematic_sample(pi, Scripted(tuple(range(10)), start))) == 3


class TestEstimate:
    """(1/m) sum v_q g_hat_q over the sampled q, where the rollouts of q depend on who else is sampled."""

    @staticmethod
    def expectation(policy: Policy, pi: np.ndarray, m: int, weights: np.ndarray) -> np.ndarray:
        mean = np.zeros(policy.score.shape[2])
        for chance, script in scripts(pi):
            positions = systematic_sample(pi, script)
            for rank, q in enumerate(positions):
                n = 2 + (int(positions.sum()) + rank) % 3
                outcomes, values = policy.estimates(q, n)
                mean += chance / m * weights[q] * (outcomes @ values)
        return mean

    @pytest.mark.parametrize("m", [1, 2, 3])
    def test_it_is_unbiased(self, m: int) -> None:
        policy = Policy(3, 4, 3, 5)
        pi = inclusion_probabilities(np.array([5.0, 1, 0, 2]), m)
        whole = policy.gradient().mean(axis=0)
        right = self.expectation(policy, pi, m, m / 4 / pi)
        np.testing.assert_allclose(right, whole, atol=1e-13)
        for wrong in (np.ones(4), (m / 4 / pi) ** 2, np.sqrt(m / 4 / pi)):
            assert np.abs(self.expectation(policy, pi, m, wrong) - whole).max() > 0.02
