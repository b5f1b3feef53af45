"""The parts of E|G|^2 against simulated batch gradients; their estimators; R of designs with selection."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from analysis.bandits import Bandits, systematic
from viprl.analysis.designs import Design, best_counts, best_selection, expected_terms, optimal_selection, uniform
from viprl.analysis.gradient_variance import exact_law
from viprl.analysis.second_moment import (
    estimate,
    gradient_products,
    second_moment,
    stacked,
    terms,
)
from viprl.errors import InputError

POOL = Bandits.make()
N = len(POOL.p)


def simulated(candidates, counts, weights, steps, seed=0):
    """Mean and standard error of |G|^2 of steps on the pool, and the mean G.

    `weights(rows, rng)` gives each candidate 1/pi if it is sampled, otherwise 0.
    """
    rng = np.random.default_rng(seed)
    estimates = np.stack([POOL.estimates(q, counts[q], steps, rng) for q in range(N)], axis=1)
    total = np.zeros((steps, estimates.shape[-1]))
    for gradient, own in zip(total, estimates, strict=True):
        rows = rng.choice(N, candidates, replace=False)
        gradient += weights(rows, rng) @ own[rows] / candidates
    values = (total**2).sum(axis=1)
    return values.mean(), values.std() / np.sqrt(steps), total.mean(axis=0)


def test_the_parts_of_a_uniform_step():
    """Signal and prompts from exact sums over all batches, the total from simulated steps."""
    found = second_moment(POOL.cross, terms(POOL.laws, 4, 3), pool=N)
    mean = POOL.gradients.mean(axis=0)
    spread = ((POOL.gradients - mean) ** 2).sum() / N
    assert found.signal == pytest.approx(mean @ mean)
    assert found.prompts == pytest.approx(spread / 4 * (N - 4) / (N - 1))  # finite-population correction
    assert found.selection == 0
    assert found.rollouts == pytest.approx(POOL.laws.variance(3).sum() / N / 4)
    value, error, _ = simulated(4, np.full(N, 3), lambda rows, _: np.ones(4), 40_000)
    assert found.total == pytest.approx(value, abs=4 * error)


def test_the_size_of_the_pool_only_moves_the_border():
    """S + V_b is the same for every pool of which the prompts are a sample."""
    design = terms(POOL.laws, 4, 3)
    finite, large = (second_moment(POOL.cross, design, pool=P) for P in (N, np.inf))
    assert finite.signal + finite.prompts == pytest.approx(large.signal + large.prompts)
    assert large.prompts > finite.prompts and large.total == pytest.approx(finite.total)


def test_a_selection_design_against_simulation():
    """Independent inclusions give the formula; systematic sampling gives no more. Both leave the gradient unbiased."""
    candidates, counts = 6, np.array([2, 2, 2, 3, 4, 3, 2, 5, 3, 4])
    pi = np.array([0.2, 0.3, 0.2, 0.9, 1, 0.7, 0.5, 1, 0.6, 0.8])
    found = second_moment(POOL.cross, terms(POOL.laws, candidates, counts, pi), pool=N)
    assert found.selection > 0

    def independent(rows, rng):
        return (rng.random(candidates) < pi[rows]) / pi[rows]

    def fixed_size(rows, rng):
        weights = np.zeros(candidates)
        drawn = systematic(pi[rows], rng)
        weights[drawn] = 1 / pi[rows][drawn]
        return weights

    value, error, mean = simulated(candidates, counts, independent, 30_000)
    assert found.total == pytest.approx(value, abs=4 * error)
    assert mean == pytest.approx(POOL.gradients.mean(axis=0), abs=0.02)
    value, error, mean = simulated(candidates, counts, fixed_size, 15_000)
    assert value < found.total + 4 * error
    assert mean == pytest.approx(POOL.gradients.mean(axis=0), abs=0.02)


def test_estimates_from_rollouts_are_unbiased():
    """Laws and products of 300 data sets of 6 rollouts a prompt, against the truth."""
    rng, found = np.random.default_rng(1), []
    pi, counts = np.linspace(0.3, 1, N), np.full(N, 4)
    exact = second_moment(POOL.cross, terms(POOL.laws, 5, counts, pi), pool=N)
    for _ in range(300):
        laws, gradients = [], []
        for q in range(N):
            rewards, scores = POOL.rollouts(q, 6, rng)
            laws.append(exact_law(rewards, scores @ scores.T))
            gradient = torch.tensor((rewards - rewards.mean()) @ scores / 5)
            gradients.append(None if np.all(rewards == rewards[0]) else gradient)
        law = stacked(laws)
        part = second_moment(gradient_products(gradients, law), terms(law, 5, counts, pi), pool=N)
        found.append([part.signal, part.prompts, part.selection, part.rollouts])
    truth = [exact.signal, exact.prompts, exact.selection, exact.rollouts]
    for values, true in zip(np.array(found).T, truth, strict=True):
        assert values.mean() == pytest.approx(true, abs=4 * values.std() / np.sqrt(300))


def test_a_sample_of_the_pool_estimates_the_pool():
    """Signal and prompts of 20 prompts from those of 8 of them, averaged over the samples."""
    large = Bandits.make(seed=3, prompts=20)
    exact = second_moment(large.cross, terms(large.laws, 4, 3), pool=20)
    rng, found = np.random.default_rng(0), []
    for _ in range(2000):
        rows = rng.choice(20, 8, replace=False)
        part = second_moment(large.cross[np.ix_(rows, rows)], terms(large.laws.at(rows), 4, 3), pool=20)
        found.append([part.signal, part.prompts, part.rollouts])
    for values, true in zip(np.array(found).T, (exact.signal, exact.prompts, exact.rollouts), strict=True):
        assert values.mean() == pytest.approx(true, abs=4 * values.std() / np.sqrt(2000))


def test_weights_are_resamples():
    """A prompt that occurs twice is no pair with itself; constant weights change nothing."""
    design = terms(POOL.laws, 4, 3)
    once = second_moment(POOL.cross, design)
    assert second_moment(POOL.cross, design, weights=np.full(N, 1.0)).total == pytest.approx(once.total)
    w = np.zeros(N)
    w[[4, 5, 6]] = 2, 1, 1
    c = np.mean([POOL.cross[a, b] for a, b in ((4, 5), (4, 5), (4, 6), (4, 6), (5, 6))])
    m = np.array([4, 4, 5, 6])
    found = second_moment(POOL.cross, design, weights=np.array([w, w]))
    expected = c + (POOL.laws.squared_gradient[m].mean() - c) / 4
    assert found.signal + found.prompts == pytest.approx([expected] * 2)
    interval = estimate(1.0, [0.5, 1, 2, np.nan], N)
    assert interval.low < 0.6 and interval.high > 1.9 and estimate(1.0, [np.nan], N).interval is None


@pytest.mark.parametrize(
    ("floor", "least", "most", "budget"), [(0.05, 2, 48, 30), (0.3, 2, 6, 40), (1, 2, 48, 40), (0.05, 4, 8, 60)]
)
def test_the_optimal_selection_beats_a_general_solver(floor, least, most, budget):
    from scipy.optimize import minimize

    rng = np.random.default_rng(0)
    G, A = rng.gamma(0.5, size=10), 30 * rng.gamma(0.5, size=10)
    G[0] = A[0] = G[1] = 0

    def objective(pi, n):
        return float(((1 / pi - 1) * G + A / (n - 1) / pi).sum())

    pi, n = optimal_selection(G, A, budget=budget, min_rollouts=least, max_rollouts=most, floor=floor)
    assert pi @ n == pytest.approx(budget, rel=1e-6)
    assert pi.min() >= floor and pi.max() <= 1 and n.min() >= least and n.max() <= most
    bounds = [(floor, 1)] * 10 + [(least, most)] * 10
    for start in range(3):
        x = np.concatenate([rng.uniform(floor, 1, 10), rng.uniform(least, most, 10)]) if start else np.r_[pi, n]
        limit = {"type": "ineq", "fun": lambda x: budget - x[:10] @ x[10:]}
        other = minimize(lambda x: objective(x[:10], x[10:]), x, bounds=bounds, constraints=[limit], method="SLSQP")
        if other.x[:10] @ other.x[10:] <= budget * (1 + 1e-9):
            assert objective(pi, n) <= other.fun * (1 + 1e-4)


def test_settled_candidates_share_the_budget():
    pi, n = optimal_selection(np.zeros(4), np.zeros(4), budget=12)
    assert pi @ n == pytest.approx(12) and len(set(n)) == 1


def test_designs_of_a_step():
    """Perfect knowledge lowers the second moment, selection more than counts; terms of uniform need no simulation."""
    rng, laws = np.random.default_rng(0), POOL.laws
    base = expected_terms(uniform(5, 20), laws, rng)
    assert base.rollouts == pytest.approx(laws.variance(4).mean()) and base.selection == 0
    counts = expected_terms(best_counts("oracle", laws.A, 5, 20, 2, 20), laws, rng)
    chosen = best_selection("selection", laws.squared_gradient, laws.A, 10, 20, 2, 20)
    selected = expected_terms(chosen, laws, rng)
    totals = [second_moment(POOL.cross, design, pool=N).total for design in (base, counts, selected)]
    assert totals[0] > totals[1] > totals[2]


def test_a_budget_that_does_not_divide_evenly():
    pi, n = uniform(3, 8).choose(np.arange(3))
    assert n.tolist() == [3, 3, 2] and pi.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "call",
    [
        lambda: terms(POOL.laws, 4, 3, 0.0),
        lambda: terms(POOL.laws, 0, 3),
        lambda: second_moment(POOL.cross, terms(POOL.laws, 4, 3), pool=3),
        lambda: second_moment(POOL.cross[:4], terms(POOL.laws, 4, 3)),
        lambda: optimal_selection([1.0, 1], [1.0, 1], budget=100, max_rollouts=4),
        lambda: optimal_selection([1.0, -1], [1.0, 1], budget=4),
        lambda: optimal_selection([1.0, 1], [1.0, 1], budget=4, floor=0),
        lambda: expected_terms(Design("x", 11, lambda rows: (rows, rows)), POOL.laws, np.random.default_rng(0)),
    ],
)
def test_unusable_arguments(call):
    with pytest.raises(InputError):
        call()
