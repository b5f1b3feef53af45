"""The rule: never worse than one wave, exact under the belief, a hard budget, and labels that the estimator allows."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from waves_enumerated import expected_scale

from viprl.allocation.budget import Budget
from viprl.allocation.exact import exact_counts
from viprl.allocation.variance_models import RLOO, ShrunkRLOO
from viprl.allocation.waves.beliefs import Beliefs
from viprl.allocation.waves.estimator import FirstLook, group_weight
from viprl.allocation.waves.look_plan import LookPlan
from viprl.allocation.waves.rule import plan_looks
from viprl.allocation.waves.second_wave import second_counts
from viprl.allocation.waves.tabulated import TabulatedVariance
from viprl.allocation.waves.variance import factors, look_table
from viprl.errors import InputError

P = np.array([0.0, 0.05, 0.2, 0.5, 0.8, 1.0])
POOLS = {
    "dead": [0.75, 0.05, 0.05, 0.1, 0.05, 0.0],
    "half": [0.25, 0.1, 0.2, 0.1, 0.1, 0.25],
    "live": [0.0, 0.1, 0.3, 0.4, 0.2, 0.0],
    "even": [0.0, 0.0, 0.0, 1.0, 0.0, 0.0],
}


def _beliefs(*pools: str, trust: float = 0.0, signal: float = 1.0) -> Beliefs:
    chance = np.array([POOLS[pool] for pool in pools])
    return Beliefs(P, chance, np.ones(len(pools)), trust, signal)


def _budget(prompts: int, average: int = 8, most: int = 40) -> Budget:
    return Budget.of(prompts, average * prompts, 2, most, "rloo")


def _costs(budget: Budget) -> np.ndarray:
    return 1.0 + np.arange(len(budget.min_rollouts)) % 3


BUDGETS = {
    "hard": lambda budget: budget,
    "match": lambda budget: budget.matching(1.0),
    "limited": lambda budget: budget.limited(
        float(_costs(budget).sum()) * budget.total / len(_costs(budget)), _costs(budget)
    ),
    "match and costs": lambda budget: budget.matching(0.9, _costs(budget)),
}


def _played(plan: LookPlan, budget: Budget, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Successes of the first wave and rollouts of both, with p drawn from the beliefs."""
    rng = np.random.default_rng(seed)
    p = np.array([rng.choice(P, p=chance) for chance in plan.beliefs.chance])
    k = rng.binomial(plan.first, p)
    return k, second_counts(plan, k, budget, rng)


def _plan(beliefs: Beliefs, budget: Budget, seed: int = 0) -> LookPlan:
    return plan_looks(beliefs, budget, np.random.default_rng(seed))


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("trust", [0.0, 1.0])
@pytest.mark.parametrize(("signal", "average"), [(0.0, 8), (1.0, 8), (5.0, 8), (1.0, 4), (1.0, 16)])
def test_never_worse_than_one_wave(pool: str, trust: float, signal: float, average: int) -> None:
    beliefs, budget = _beliefs(*[pool] * 16, trust=trust, signal=signal), _budget(16, average)
    plan = _plan(beliefs, budget)
    assert plan.variance_ratio <= 1
    if not plan.looks.any():
        assert plan.first.sum() == budget.total
        return
    assert plan.first.sum() <= budget.total
    found, constant = [], signal * beliefs.chance[0] @ (P * (1 - P)) ** 2
    rng = np.random.default_rng(1)
    for _ in range(40):  # played, with all of the budget spent
        p = rng.choice(P, 16, p=POOLS[pool])
        k = rng.binomial(plan.first, p)
        counts = second_counts(plan, k, budget, rng)
        assert counts.sum() == budget.total
        assert (counts >= plan.first).all()
        found.append(_expected(plan, plan.labels(k), counts) / 16 - constant)
    table = look_table(2, average, P, signal)
    one = factors(beliefs.shares(average)[:1], beliefs.mean[:1])[:, 0] @ table.moments[:, table.label(0, 2), average]
    assert np.mean(found) - 2 * np.std(found) / np.sqrt(40) < one @ beliefs.chance[0] - constant


def _expected(plan: LookPlan, labels: list[FirstLook], counts: np.ndarray) -> float:
    """Under the belief, given the labels."""
    total = 0.0
    for q, (look, n) in enumerate(zip(labels, counts, strict=True)):
        table = look_table(look.size, int(counts.max()), P, plan.beliefs.signal)
        row, belief = table.label(min(look.marked), max(look.marked)), plan.beliefs.chance[q]
        terms = factors(plan.shares(counts)[q], plan.beliefs.mean[q])
        total += terms @ table.moments[:, row, n] @ belief / (table.chance[row] @ belief)
    return total


@pytest.mark.parametrize("kind", BUDGETS)
@pytest.mark.parametrize("multiple", [1, 8])
def test_every_budget_is_kept_in_both_waves(kind: str, multiple: int) -> None:
    pools = ["dead"] * 10 + ["half"] * 4 + ["even"] * 2
    budget = replace(BUDGETS[kind](_budget(16)), multiple=multiple)
    plan = _plan(_beliefs(*pools), budget)
    assert plan.looks.any()
    assert plan.first.sum() % multiple == 0
    for seed in range(10):
        _, counts = _played(plan, budget, seed)
        assert (counts >= plan.first).all()
        assert (counts <= budget.max_rollouts).all()
        assert counts.sum() % multiple == 0
        assert counts.sum() <= budget.total
        if kind == "hard":
            assert counts.sum() == budget.total
        if kind == "limited":
            slack = multiple * budget.costs.max() if multiple > 1 else 0  # rounded up
            assert budget.cost(counts) <= budget.limit + slack + 1e-9


@pytest.mark.parametrize("signal", [0.0, 1.0])
def test_a_match_has_the_variance_of_uniform_counts_given_the_labels(signal: float) -> None:
    beliefs, budget = _beliefs(*["dead"] * 24, signal=signal), _budget(24).matching(1.0)
    plan = _plan(beliefs, budget)
    assert plan.looks.all()
    assert plan.cost_ratio < 0.85
    assert plan.variance_ratio == pytest.approx(1, abs=0.05)
    spent, table = [], look_table(2, 8, P, signal)
    for seed in range(20):
        k, counts = _played(plan, budget, seed)
        labels, uniform, constant = plan.labels(k), 0.0, 0.0
        for look in labels:
            own = look_table(look.size, 8, P, signal)
            posterior = own.chance[own.label(min(look.marked), max(look.marked))] * beliefs.chance[0]
            posterior /= posterior.sum()
            uniform += table.moments[2, table.label(0, 2), 8] @ posterior
            constant += signal * posterior @ (P * (1 - P)) ** 2
        spent.append(counts.sum() / budget.total)
        if counts.sum() < budget.total:
            assert _expected(plan, labels, counts) <= uniform + 1e-9
            counts[np.argmax(counts)] -= 1  # what was spent was needed, up to one rollout
            assert _expected(plan, labels, counts) > uniform - 0.02 * (uniform - constant)
    assert np.mean(spent) < 0.85


def test_new_prompts_without_a_look_keep_their_share() -> None:
    beliefs = _beliefs(*["dead"] * 12, *["even"] * 4)
    new = np.arange(16) >= 14
    budget = _budget(16).matching(1.0)
    plan = _plan(replace(beliefs, new=new), budget)
    assert not plan.looks[new].any()
    for seed in range(5):
        _, counts = _played(plan, budget, seed)
        assert counts[new].sum() >= 16  # two average groups


def test_dead_pools_get_looks_and_live_ones_do_not() -> None:
    dead, live = _plan(_beliefs(*["dead"] * 32), _budget(32)), _plan(_beliefs(*["even"] * 32), _budget(32))
    assert dead.looks.all()
    assert dead.variance_ratio < 0.7
    assert not live.looks.any()
    assert live.variance_ratio == 1


def test_looks_where_nothing_is_known_alone() -> None:
    plan = _plan(_beliefs(*["dead"] * 12, *["even"] * 4), _budget(16))
    assert plan.looks.tolist() == [True] * 12 + [False] * 4
    assert (plan.first[12:] >= 8).all()


def test_one_wave_is_that_of_the_exact_allocation() -> None:
    chance = np.eye(len(P))[[3, 2, 1, 3]]
    plan = plan_looks(Beliefs(P, chance, np.ones(4), signal=0.0), _budget(4), np.random.default_rng(0), sizes=())
    weights = chance @ (P * (1 - P))
    expected = exact_counts(weights, _budget(4), np.random.default_rng(0))
    assert weights @ RLOO().factor(plan.first) == pytest.approx(weights @ RLOO().factor(expected))


@pytest.mark.parametrize("kind", ["hard", "match", "limited", "match and costs"])
def test_the_budget_that_others_use_never_biases(kind: str) -> None:
    """Two prompts: for every outcome of the other one, the estimate of the first has the expectation g."""
    budget = BUDGETS[kind](_budget(2, 6, 12))
    plan = _plan(_beliefs("dead", "dead"), budget)
    assert plan.looks.all()
    w = plan.first.tolist()
    for other in range(w[1] + 1):

        def counts(k: int, other: int = other) -> int:
            return int(second_counts(plan, np.array([k, other]), budget, np.random.default_rng(3))[0]) - w[0]

        rule = [counts(k) for k in range(w[0] + 1)]
        looks = [plan.labels(np.array([k, other]))[0] for k in range(w[0] + 1)]
        for p in (0.03, 0.4, 0.7):
            scale = expected_scale(
                w[0],
                rule.__getitem__,
                lambda k1, k2, m: (c := group_weight(looks[k1], k1 + k2, w[0] + m), -c),  # noqa: B023
                p,
            )
            assert scale == pytest.approx(1, abs=1e-10)


def test_shares_follow_the_counts_only_without_a_look() -> None:
    plan = _plan(_beliefs(*["dead"] * 12, *["even"] * 4, trust=1.0), _budget(16))
    few, many = np.full(16, 8), np.full(16, 20)
    assert (plan.shares(few)[plan.looks] == plan.shares(many)[plan.looks]).all()
    # "even" is certain: the baseline is its expectation
    assert plan.shares(few)[~plan.looks] == pytest.approx(1, abs=1e-6)


def test_successes_that_cannot_be() -> None:
    plan = _plan(_beliefs(*["dead"] * 4), _budget(4))
    with pytest.raises(InputError):
        plan.labels(plan.first + 1)


def test_equal_seeds_plan_equally() -> None:
    plans = [_plan(_beliefs(*["dead"] * 5, *["half"] * 6), _budget(11), seed=4) for _ in range(2)]
    assert (plans[0].first == plans[1].first).all()
    assert plans[0].runs == plans[1].runs


def test_tabulated_model_is_that_of_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    weights, kappa, n = rng.random(9), 3 * rng.random(9), np.arange(41)
    for model in (RLOO(), ShrunkRLOO(kappa)):
        closed = np.array([weights * model.factor(np.full(9, max(m, 2))) for m in n]).T
        table = TabulatedVariance.of(closed, np.full(9, 2))
        budget = Budget(90, np.full(9, 2), np.full(9, 40), model, model)
        own = Budget(90, np.full(9, 2), np.full(9, 40), table, table)
        found = exact_counts(np.ones(9), own, np.random.default_rng(0))
        expected = exact_counts(weights, budget, np.random.default_rng(0))
        assert found.sum() == 90
        assert weights @ model.factor(found) == pytest.approx(weights @ model.factor(expected), rel=1e-9)


def test_tabulated_model_is_the_convex_function_below() -> None:
    row = np.array([9.0, 8.9, 5.0, 4.9, 4.8, 1.0, 1.0])
    table = TabulatedVariance.of(row[None], np.array([1])).values[0]
    below = [
        min(
            row[i] + (row[j] - row[i]) * (n - i) / max(j - i, 1)
            for i, j in itertools.product(range(1, n + 1), range(n, 7))
        )
        for n in range(1, 7)
    ]
    np.testing.assert_allclose(table[1:], below, atol=1e-4)
    assert table[0] == table[1]
    assert (np.diff(table[1:]) < 0).all()
