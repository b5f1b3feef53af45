"""The allocation against dynamic programming, a convex solver, and what must hold for every input."""

from __future__ import annotations

import heapq

import cvxpy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from viprl.allocation.budget import Budget, even_counts
from viprl.allocation.exact import exact_counts
from viprl.allocation.optimum import allocate, allocate_weights
from viprl.allocation.published import continuous_counts, rounded_counts
from viprl.allocation.variance_models import get_variance_model
from viprl.errors import InputError

ESTIMATORS = ["rloo", "dr_grpo"]
SMALLEST = {"rloo": 2, "dr_grpo": 3}


def factor(estimator: str, n: np.ndarray) -> np.ndarray:
    n = np.asarray(n, dtype=float)
    return 1 / (n - 1) if estimator == "rloo" else (n - 1) / n**2


def objective(estimator: str, a: np.ndarray, n: np.ndarray) -> float:
    return float(np.sum(np.asarray(a) * factor(estimator, n)))


def dynamic_programme(estimator: str, a, budget: int, low, high) -> float:
    """The least sum a f(n) with sum n = budget: best[c] after each prompt, no convexity used."""
    best = np.full(budget + 1, np.inf)
    best[0] = 0
    for weight, least, most in zip(a, low, high, strict=True):
        after = np.full(budget + 1, np.inf)
        for n in range(int(least), min(int(most), budget) + 1):
            after[n:] = np.minimum(after[n:], best[: budget + 1 - n] + weight * float(factor(estimator, n)))
        best = after
    return float(best[budget])


def published(estimator: str, a, budget: int, low, high) -> np.ndarray:
    spec = Budget.of(len(a), budget, low, high, estimator)
    return rounded_counts(continuous_counts(np.asarray(a, float), spec), np.asarray(a, float), spec)


def random_case(rng: np.random.Generator, estimator: str):
    """Weights of many kinds (ties, levels, zeros, orders of magnitude) and, half of the time, own bounds."""
    prompts = int(rng.integers(1, 8))
    kind = rng.integers(5)
    if kind == 0:
        p = rng.beta(0.4, 0.4, prompts)
        a = p * (1 - p)
    elif kind == 1:
        a = rng.choice([0.0, 0.009, 0.052, 0.25], prompts)
    elif kind == 2:
        a = 10.0 ** rng.uniform(-8, 3, prompts)
    elif kind == 3:
        a = rng.choice([1.0, 4.0, 9.0, 100.0], prompts)
    else:
        k = rng.integers(0, 9, prompts)
        a = k * (8 - k) / 64
    if rng.random() < 0.5:
        low = rng.integers(SMALLEST[estimator], 6, prompts)
        high = low + rng.integers(0, 12, prompts)
    else:
        low = np.full(prompts, rng.integers(SMALLEST[estimator], 5))
        high = low + rng.integers(0, 16)
    return a, int(rng.integers(low.sum(), high.sum() + 1)), low, high


def check_feasible(counts, budget, low, high) -> None:
    assert counts.dtype.kind == "i"
    assert counts.sum() == budget
    assert (counts >= low).all()
    assert (counts <= high).all()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_integers_against_dynamic_programming(estimator: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(400):
        a, budget, low, high = random_case(rng, estimator)
        plan = allocate_weights(a, budget=budget, min_rollouts=low, max_rollouts=high, estimator=estimator, rng=rng)
        check_feasible(plan.counts, budget, low, high)
        best = dynamic_programme(estimator, a, budget, low, high)
        assert objective(estimator, a, plan.counts) == pytest.approx(best, rel=1e-12, abs=1e-300), (
            a,
            budget,
            low,
            high,
        )
        assert plan.expected_variance == pytest.approx(best, rel=1e-12, abs=1e-300)


CONSTRUCTED = [
    # weights, budget, low, high, what the paper's rounding gives, its value, the optimum, its value
    (
        [0.25] + [0.009 * 0.991] * 5 + [0.055 * 0.945], 29, 2, 13,
        [10, 3, 3, 3, 3, 2, 5], 0.06753, [9, 3, 3, 3, 3, 3, 5], 0.06654,
    ),
    ([1.0, 1.0, 100.0], 21, 2, 16, [3, 2, 16], 8.1667, [3, 3, 15], 8.1429),
]  # fmt: skip


@pytest.mark.parametrize("case", CONSTRUCTED, ids=["p=.5,.009,.055", "a=1,1,100"])
def test_cases_that_break_floor_and_greedy(case) -> None:
    a, budget, low, high, rounded, rounded_value, optimum, optimal_value = case
    np.testing.assert_array_equal(published("rloo", a, budget, low, high), rounded)
    assert objective("rloo", a, rounded) == pytest.approx(rounded_value, rel=1e-3)
    plan = allocate_weights(a, budget=budget, min_rollouts=low, max_rollouts=high)
    np.testing.assert_array_equal(plan.counts, optimum)
    assert plan.expected_variance == pytest.approx(optimal_value, rel=1e-3)
    assert plan.expected_variance == pytest.approx(
        dynamic_programme("rloo", a, budget, [low] * len(a), [high] * len(a)), rel=1e-12
    )


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_two_levels_of_weight_in_batches_of_64(estimator: str) -> None:
    """Where floor + greedy is often wrong and the exact rule never may be."""
    rng, published_misses, cases = np.random.default_rng(2), 0, 30
    for _ in range(cases):
        a = np.where(np.arange(64) < rng.integers(1, 8), 0.25, rng.uniform(0.005, 0.03))
        low, high = np.full(64, SMALLEST[estimator]), np.full(64, 64)
        best = dynamic_programme(estimator, a, 512, low, high)
        plan = allocate_weights(a, budget=512, min_rollouts=low, max_rollouts=high, estimator=estimator, rng=rng)
        assert plan.expected_variance == pytest.approx(best, rel=1e-12)
        rounded = published(estimator, a, 512, low, high)
        check_feasible(rounded, 512, low, high)
        value = objective(estimator, a, rounded)
        assert best * (1 - 1e-12) <= value < best * 1.03
        published_misses += value > best * (1 + 1e-9)
    assert published_misses > 0


def test_published_rounding_is_floor_plus_greedy() -> None:
    """Against a literal version: floor, then one by one to the largest drop, the first prompt on ties."""
    rng = np.random.default_rng(3)
    for estimator in ESTIMATORS:
        for _ in range(100):
            a, budget, low, high = random_case(rng, estimator)
            spec = Budget.of(len(a), budget, low, high, estimator)
            relaxed = continuous_counts(a, spec)
            counts = np.floor(relaxed + 1e-9).astype(int)
            while counts.sum() < budget:
                saved = a * get_variance_model(estimator).marginal(counts)
                counts[np.argmax(np.where(counts < high, saved, -1))] += 1
            np.testing.assert_array_equal(rounded_counts(relaxed, a, spec), counts)


def convex_solution(estimator: str, a, budget: int, low, high) -> float:
    """The relaxation's value by cvxpy. Dr.GRPO's f is convex from 3 on but no rule of cvxpy's says so, therefore it
    enters as the maximum of its tangents on a fine grid, which is below f by less than 1e-6 of it."""
    n = cvxpy.Variable(len(a))
    bounds = [n >= low, n <= high, cvxpy.sum(n) == budget]
    if estimator == "rloo":
        value = cvxpy.sum(cvxpy.multiply(a, cvxpy.inv_pos(n - 1)))
    else:
        grid = np.geomspace(3, float(np.max(high)), 2000)
        height, slope = (grid - 1) / grid**2, -(grid - 2) / grid**3
        tangents = [cvxpy.max(height - slope * grid + slope * n[q]) for q in range(len(a))]
        value = cvxpy.sum(cvxpy.multiply(a, cvxpy.hstack(tangents)))
    problem = cvxpy.Problem(cvxpy.Minimize(value), bounds)
    problem.solve(solver=cvxpy.CLARABEL)
    return float(problem.value)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_relaxation_against_a_convex_solver(estimator: str) -> None:
    rng = np.random.default_rng(4)
    for _ in range(5):
        prompts = int(rng.integers(2, 7))
        a = rng.uniform(0.01, 0.25, prompts)
        low = rng.integers(SMALLEST[estimator], 5, prompts)
        high = low + rng.integers(1, 24, prompts)
        budget = int(rng.integers(low.sum(), high.sum() + 1))
        spec = Budget.of(prompts, budget, low, high, estimator)
        relaxed = continuous_counts(a, spec)
        assert objective(estimator, a, relaxed) == pytest.approx(
            convex_solution(estimator, a, budget, low, high), rel=3e-5
        )


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_relaxation_is_feasible_and_stationary(estimator: str) -> None:
    """KKT: inside the bounds all a f'(n) agree; at L they are smaller, at U larger in size."""
    rng = np.random.default_rng(5)
    for _ in range(150):
        a, budget, low, high = random_case(rng, estimator)
        relaxed = continuous_counts(a, Budget.of(len(a), budget, low, high, estimator))
        assert relaxed.sum() == pytest.approx(budget, rel=1e-9)
        assert (relaxed >= low - 1e-9).all()
        assert (relaxed <= high + 1e-9).all()
        gain = a / (relaxed - 1) ** 2 if estimator == "rloo" else a * (relaxed - 2) / relaxed**3
        can_give, can_take = relaxed > low + 1e-6, relaxed < high - 1e-6
        if can_give.any() and can_take.any():
            assert gain[can_take].max() <= gain[can_give].min() * (1 + 1e-5) + 1e-300


weights = st.lists(st.one_of(st.sampled_from([0.0, 0.25, 0.1875]), st.floats(1e-12, 1e6)), min_size=1, max_size=12).map(
    np.array
)


@st.composite
def problems(draw):
    a, estimator = draw(weights), draw(st.sampled_from(ESTIMATORS))
    low = np.array([draw(st.integers(SMALLEST[estimator], 6)) for _ in a])
    high = low + np.array([draw(st.integers(0, 20)) for _ in a])
    return estimator, a, draw(st.integers(int(low.sum()), int(high.sum()))), low, high


def solve(problem, **change):
    estimator, a, budget, low, high = problem
    options = {"budget": budget, "min_rollouts": low, "max_rollouts": high, "estimator": estimator} | change
    return allocate_weights(options.pop("a", a), **options)


@settings(max_examples=150, deadline=None)
@given(problems(), st.integers(0, 2**32 - 1))
def test_sum_bounds_and_no_exchange_helps(problem, seed: int) -> None:
    estimator, a, budget, low, high = problem
    counts = solve(problem, rng=np.random.default_rng(seed)).counts
    check_feasible(counts, budget, low, high)
    gain = a * (factor(estimator, counts) - factor(estimator, counts + 1))
    loss = a * (factor(estimator, np.maximum(counts - 1, 2)) - factor(estimator, counts))
    can_take, can_give = counts < high, counts > low
    if can_take.any() and can_give.any():
        assert gain[can_take].max() <= loss[can_give].min() * (1 + 1e-9)


@settings(max_examples=80, deadline=None)
@given(problems(), st.randoms(use_true_random=False), st.floats(1e-6, 1e6))
def test_order_and_scale_of_the_prompts_do_not_matter(problem, random, scale: float) -> None:
    estimator, a, budget, low, high = problem
    value = solve(problem).expected_variance
    order = np.array(random.sample(range(len(a)), len(a)))
    shuffled = allocate_weights(
        a[order], budget=budget, min_rollouts=low[order], max_rollouts=high[order], estimator=estimator
    )
    assert shuffled.expected_variance == pytest.approx(value, rel=1e-9, abs=1e-300)
    scaled = solve(problem, a=a * scale)
    assert objective(estimator, a, scaled.counts) == pytest.approx(value, rel=1e-9, abs=1e-300)
    assert scaled.variance_ratio == pytest.approx(solve(problem).variance_ratio, rel=1e-9)


@settings(max_examples=80, deadline=None)
@given(problems())
def test_larger_weights_get_at_least_as_many(problem) -> None:
    _, a, budget, low, high = problem
    shared = {"min_rollouts": int(low.min()), "max_rollouts": int(high.max())}
    counts = solve(problem, **shared, budget=max(budget, shared["min_rollouts"] * len(a))).counts
    for one in range(len(a)):
        heavier = a > a[one] * (1 + 1e-9)
        assert (counts[heavier] >= counts[one]).all()


@settings(max_examples=80, deadline=None)
@given(problems(), st.data())
def test_a_prompt_that_matters_more_never_loses_rollouts(problem, data) -> None:
    _, a, *_ = problem
    q = data.draw(st.integers(0, len(a) - 1))
    more = a.copy()
    more[q] = a[q] * 1.5 + 0.01
    before = solve(problem, rng=np.random.default_rng(0)).counts[q]
    after = solve(problem, a=more, rng=np.random.default_rng(0)).counts[q]
    # with a = 0 or ties, chance may have given it one of the left-over rollouts before
    assert after >= before - (np.isclose(a, a[q], rtol=1e-9).sum() > 1)


def test_the_optimum_beats_the_even_spread_and_the_ratio_says_so() -> None:
    p = np.array([0.5, 0.5, 0.02, 0.99])
    plan = allocate(p, budget=32, min_rollouts=2, max_rollouts=16)
    a = p * (1 - p)
    assert plan.uniform_variance == pytest.approx(a.sum() / 7)
    assert plan.expected_variance == pytest.approx(objective("rloo", a, plan.counts))
    assert plan.variance_ratio == pytest.approx(plan.expected_variance / plan.uniform_variance)
    assert plan.variance_ratio < 1
    np.testing.assert_array_equal(plan.success_probability, p)


def test_uniform_variance_where_the_budget_is_not_a_multiple() -> None:
    """10 rollouts for 4 prompts: two of them get 3, so the mean of f is half of f(2) and half of f(3)."""
    plan = allocate([0.5] * 4, budget=10, min_rollouts=2)
    assert plan.uniform_variance == pytest.approx(0.25 * 4 * (0.5 * 1 + 0.5 * 0.5))
    assert plan.variance_ratio == pytest.approx(1)


@pytest.mark.parametrize(
    ("low", "high", "budget", "expected"),
    [
        ([2, 2, 2], [9, 9, 9], 15, [5, 5, 5]),
        ([2, 2, 6], [9, 9, 9], 12, [3, 3, 6]),
        ([2, 2, 2], [3, 9, 9], 17, [3, 7, 7]),
        ([2, 2, 2], [9, 9, 9], 16, [16 / 3] * 3),
        ([2, 5, 2], [2, 5, 9], 10, [2, 5, 3]),
    ],
)
def test_even_share_by_hand(low, high, budget: int, expected) -> None:
    np.testing.assert_allclose(even_counts(Budget.of(3, budget, low, high, "rloo")), expected, rtol=1e-9)


class TestEdges:
    @pytest.mark.parametrize(("budget", "bounds"), [(7, (2, 16)), (65, (2, 16)), (100, ([2, 3, 4, 2], 8))])
    def test_infeasible_budgets_show_budget_and_bounds(self, budget: int, bounds) -> None:
        least, most = bounds
        with pytest.raises(InputError) as caught:
            allocate([0.5] * 4, budget=budget, min_rollouts=least, max_rollouts=most)
        span = "2..4" if isinstance(least, list) else "2"
        for part in ("4 prompts", f"min_rollouts={span}", f"max_rollouts={most}", str(budget)):
            assert part in str(caught.value)

    @pytest.mark.parametrize(("estimator", "low"), [("rloo", 1), ("dr_grpo", 2), ("rloo", 0), ("rloo", -3)])
    def test_illegal_groups(self, estimator: str, low: int) -> None:
        with pytest.raises(InputError, match=f"min_rollouts to {SMALLEST[estimator]}"):
            allocate([0.5] * 4, budget=32, min_rollouts=low, estimator=estimator)

    def test_min_above_max_names_the_prompt(self) -> None:
        with pytest.raises(InputError, match="prompt 1: min_rollouts=9, max_rollouts=8"):
            allocate([0.5, 0.5], budget=16, min_rollouts=[2, 9], max_rollouts=8)

    @pytest.mark.parametrize("estimator", ESTIMATORS)
    def test_defaults_are_the_smallest_group_and_no_limit(self, estimator: str) -> None:
        counts = allocate([0.5, 0.0, 1.0], budget=40, estimator=estimator).counts
        least = SMALLEST[estimator]
        np.testing.assert_array_equal(counts, [40 - 2 * least, least, least])

    def test_all_equal_is_even(self) -> None:
        np.testing.assert_array_equal(allocate([0.3] * 6, budget=48, min_rollouts=2, max_rollouts=32).counts, 8)

    @pytest.mark.parametrize("p", [0.0, 1.0])
    def test_all_zero_is_even(self, p: float) -> None:
        plan = allocate([p] * 5, budget=42, min_rollouts=2, max_rollouts=32)
        assert sorted(plan.counts) == [8, 8, 8, 9, 9]
        assert plan.expected_variance == 0
        assert plan.variance_ratio == 1

    def test_weight_zero_shares_evenly_what_the_others_cannot_take(self) -> None:
        plan = allocate([0.5, 0.0, 1.0, 0.0], budget=6 + 16 + 9, min_rollouts=2, max_rollouts=[16, 10, 10, 10])
        assert plan.counts[0] == 16
        np.testing.assert_array_equal(sorted(plan.counts[1:]), [5, 5, 5])

    def test_ties_are_seeded_and_not_always_the_first(self) -> None:
        plans = [allocate([0.3] * 10, budget=83, rng=np.random.default_rng(seed)).counts for seed in range(200)]
        extra = np.mean([counts == 9 for counts in plans], axis=0)
        assert (np.abs(extra - 0.3) < 0.15).all()  # each prompt is among the three with chance .3
        again = allocate([0.3] * 10, budget=83, rng=np.random.default_rng(7)).counts
        np.testing.assert_array_equal(again, plans[7])

    def test_partial_ties_are_drawn_among_the_tied_only(self) -> None:
        seen = set()
        for seed in range(40):
            counts = allocate(
                [0.5, 0.01, 0.01, 0.01], budget=15, max_rollouts=8, rng=np.random.default_rng(seed)
            ).counts
            assert counts[0] == 8
            seen.add(tuple(counts[1:]))
        assert seen == {(3, 2, 2), (2, 3, 2), (2, 2, 3)}

    def test_without_a_generator_equal_input_gives_equal_output(self) -> None:
        p = [0.5, 0.5, 0.5, 0.1]
        np.testing.assert_array_equal(allocate(p, budget=21).counts, allocate(p, budget=21).counts)

    def test_low_equals_high(self) -> None:
        np.testing.assert_array_equal(allocate([0.5, 0.1], budget=16, min_rollouts=8, max_rollouts=8).counts, [8, 8])
        np.testing.assert_array_equal(
            allocate([0.5, 0.1], budget=12, min_rollouts=[8, 4], max_rollouts=[8, 4]).counts, [8, 4]
        )

    def test_one_prompt(self) -> None:
        np.testing.assert_array_equal(allocate([0.9], budget=17).counts, [17])
        np.testing.assert_array_equal(allocate([0.0], budget=17, max_rollouts=20).counts, [17])

    def test_high_above_the_budget(self) -> None:
        one = allocate([0.5, 0.01, 0.2], budget=20, min_rollouts=2, max_rollouts=10**9).counts
        np.testing.assert_array_equal(
            one, allocate([0.5, 0.01, 0.2], budget=20, min_rollouts=2, max_rollouts=20).counts
        )

    def test_certain_prompts_get_the_least(self) -> None:
        np.testing.assert_array_equal(
            allocate([0.0, 0.5, 1.0], budget=20, min_rollouts=3, max_rollouts=14).counts, [3, 14, 3]
        )

    @pytest.mark.parametrize("p", [[0.5, float("nan")], [0.5, 1.0001], [-1e-9, 0.5], [[0.5, 0.5]], 0.5, [0.5, None]])
    def test_no_probabilities(self, p) -> None:
        with pytest.raises(InputError, match="success_probability"):
            allocate(p, budget=16)

    @pytest.mark.parametrize("a", [[1.0, float("nan")], [1.0, float("inf")], [-1e-9, 1.0], [[1.0]], 3.0])
    def test_no_weights(self, a) -> None:
        with pytest.raises(InputError, match="weights"):
            allocate_weights(a, budget=16)

    def test_no_prompts(self) -> None:
        with pytest.raises(InputError):
            allocate([], budget=16)

    @pytest.mark.parametrize("budget", [16.5, True, "16", 0, -4, float("nan")])
    def test_no_budget(self, budget) -> None:
        with pytest.raises(InputError):
            allocate([0.5, 0.5], budget=budget)

    @pytest.mark.parametrize("budget", [None, float("inf")])
    def test_no_budget_at_all(self, budget) -> None:
        with pytest.raises(InputError, match="budget"):
            allocate([0.5, 0.5], budget=budget)

    def test_whole_floats_and_numpy_integers_are_welcome(self) -> None:
        counts = allocate([0.5, 0.5], budget=np.int64(16), min_rollouts=np.array([2.0, 2.0]), max_rollouts=8.0).counts
        np.testing.assert_array_equal(counts, [8, 8])

    @pytest.mark.parametrize("name", ["min_rollouts", "max_rollouts"])
    @pytest.mark.parametrize("value", [2.5, [4, 4, 4], [[4, 4]], "4", float("nan")])
    def test_no_bounds(self, name: str, value) -> None:
        with pytest.raises(InputError, match=name):
            allocate([0.5, 0.5], budget=8, **{name: value})

    def test_an_infinite_high_is_refused_or_means_no_limit(self) -> None:
        try:
            counts = allocate([0.5, 0.0], budget=16, max_rollouts=float("inf")).counts
        except ValueError as error:
            assert "max_rollouts" in str(error)
            assert "-9223372036854775808" not in str(error)
        else:
            np.testing.assert_array_equal(counts, [14, 2])

    def test_input_is_left_alone(self) -> None:
        a, low, high = np.array([0.0, 1.0, 4.0]), np.array([2, 2, 2]), np.array([20, 9, 9])
        allocate_weights(a, budget=25, min_rollouts=low, max_rollouts=high)
        np.testing.assert_array_equal([a, low, high], [[0, 1, 4], [2, 2, 2], [20, 9, 9]])

    @pytest.mark.parametrize(
        "a",
        [[1.0, 1e-200, 1e-200], [1e300, 1e-300, 1e-300], [1.0, 5e-324, 5e-324], [1.0, 1e-170, 1e-180]],
        ids=str,
    )
    @pytest.mark.parametrize("estimator", ESTIMATORS)
    def test_weights_of_any_finite_size_spend_the_whole_budget(self, estimator: str, a) -> None:
        counts = allocate_weights(a, budget=30, min_rollouts=3, max_rollouts=12, estimator=estimator).counts
        check_feasible(counts, 30, 3, 12)
        assert counts.max() == 12

    @pytest.mark.parametrize("estimator", ESTIMATORS)
    @pytest.mark.parametrize("a", [[1.0, 1e-60, 1e-120], [1e-320, 2e-320, 1e-320], [1e300, 1e290, 1e300]], ids=str)
    def test_very_different_and_very_small_weights(self, estimator: str, a) -> None:
        counts = allocate_weights(a, budget=30, min_rollouts=3, max_rollouts=12, estimator=estimator).counts
        check_feasible(counts, 30, 3, 12)
        assert counts[np.argmax(a)] == 12

    @pytest.mark.parametrize("estimator", ESTIMATORS)
    def test_the_paper_rule_on_weights_of_any_finite_size(self, estimator: str) -> None:
        for a in ([1.0, 1e-200, 0.0], [1e300, 1e-300, 1e-300], [0.0, 0.0, 0.0]):
            check_feasible(published(estimator, a, 30, 3, 12), 30, 3, 12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("kind", ["beta", "two levels", "eighths"])
def test_a_hundred_thousand_prompts_meet_the_threshold_condition(estimator: str, kind: str) -> None:
    rng, prompts = np.random.default_rng(6), 100_000
    if kind == "beta":
        p = rng.beta(0.4, 0.4, prompts)
    elif kind == "two levels":
        p = rng.choice([0.011, 0.37], prompts)
    else:
        p = rng.integers(0, 9, prompts) / 8
    low, high, a = SMALLEST[estimator], 32, p * (1 - p)
    counts = allocate(p, budget=8 * prompts, min_rollouts=low, max_rollouts=high, estimator=estimator).counts
    check_feasible(counts, 8 * prompts, low, high)
    can_take, can_give = counts < high, counts > low
    gain = (a * (factor(estimator, counts) - factor(estimator, counts + 1)))[can_take]
    loss = (a * (factor(estimator, np.maximum(counts - 1, 2)) - factor(estimator, counts)))[can_give]
    assert gain.max() <= loss.min() * (1 + 1e-10)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(("low", "high"), [(3, 32), (4, 16)])
def test_never_worse_than_one_rollout_at_a_time(estimator: str, low: int, high: int) -> None:
    """A heap gives each rollout to the largest decrease, which is optimal where the decreases of a prompt fall."""
    rng, prompts = np.random.default_rng(7), 128
    for p in (rng.beta(0.4, 0.4, prompts), rng.binomial(8, 0.3, prompts) / 8, rng.choice([0.5, 0.011], prompts)):
        a, counts = p * (1 - p), np.full(prompts, low)
        gain = a * (factor(estimator, counts) - factor(estimator, counts + 1))
        queue = list(zip(-gain, range(prompts), strict=True))
        heapq.heapify(queue)
        for _ in range(8 * prompts - counts.sum()):
            _, q = heapq.heappop(queue)
            counts[q] += 1
            if counts[q] < high:
                gain = a[q] * (factor(estimator, counts[q]) - factor(estimator, counts[q] + 1))
                heapq.heappush(queue, (-gain, q))
        plan = allocate(p, budget=8 * prompts, min_rollouts=low, max_rollouts=high, estimator=estimator)
        check_feasible(plan.counts, 8 * prompts, low, high)
        assert objective(estimator, a, plan.counts) <= objective(estimator, a, counts) * (1 + 1e-12)


def test_exact_counts_of_zero_weights_use_the_generator() -> None:
    spec = Budget.of(6, 13, 2, 8, "rloo")
    places = {int(np.argmax(exact_counts(np.zeros(6), spec, np.random.default_rng(seed)))) for seed in range(60)}
    assert places == set(range(6))


def test_no_prompts_with_costs_are_refused() -> None:
    with pytest.raises(InputError, match="no prompts"):
        allocate_weights([], budget=4, costs=[])


def test_a_variance_target_that_is_no_number_is_refused() -> None:
    with pytest.raises(InputError, match="variance_target"):
        allocate_weights([1.0], budget=4, variance_target=np.zeros(0))  # type: ignore[arg-type]
