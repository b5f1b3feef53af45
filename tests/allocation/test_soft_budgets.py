"""Budgets that need not be spent, against brute force: the cheapest counts of a variance, the best of a cost."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from viprl import allocate, allocate_weights
from viprl.allocation.budget import Budget
from viprl.allocation.exact import counts_of_new_and_known, exact_counts
from viprl.allocation.variance_models import RLOO, ShrunkRLOO, get_variance_model
from viprl.errors import InputError

FACTOR = {"rloo": lambda n: 1 / (n - 1), "dr_grpo": lambda n: (n - 1) / n**2}
COSTS = np.array([0.7, 1.0, 2.0, 3.0])


def every(prompts: int, least: int, most: int) -> np.ndarray:
    """[cases, Q] all counts within the bounds."""
    return np.array(list(product(range(least, most + 1), repeat=prompts)))


def random_case(rng: np.random.Generator, estimator: str):
    """Weights with ties and zeros, at least one positive; bounds; costs or None."""
    prompts, least = int(rng.integers(1, 4)), {"rloo": 2, "dr_grpo": 3}[estimator]
    a = rng.choice([0.0, 0.01, 0.09, 0.25, rng.uniform()], prompts)
    a[0] = max(a[0], 0.05)
    costs = None if rng.random() < 0.4 else rng.choice(COSTS, prompts)
    return a, least, least + int(rng.integers(1, 9)), costs


@pytest.mark.parametrize("estimator", ["rloo", "dr_grpo"])
class TestMatch:
    def test_the_cheapest_counts_with_the_variance_of_uniform_ones(self, estimator: str) -> None:
        rng, missed = np.random.default_rng(0), 0
        for _ in range(300):
            a, least, most, costs = random_case(rng, estimator)
            q, total = len(a), int(rng.integers(least * len(a), most * len(a) + 1))
            plan = allocate_weights(
                a, match_uniform=total, costs=costs, min_rollouts=least, max_rollouts=most, estimator=estimator
            )
            assert plan.expected_variance <= plan.uniform_variance * (1 + 1e-9)
            assert plan.counts.sum() <= total
            cases = every(q, least, min(most, total))
            fits = (FACTOR[estimator](cases) @ a <= plan.uniform_variance * (1 + 1e-12)) & (cases.sum(axis=1) <= total)
            best = (cases[fits] @ (np.ones(q) if costs is None else costs)).min()
            assert best <= plan.cost * (1 + 1e-12) and plan.cost * (1 - plan.gap) <= best * (1 + 1e-9)
            if costs is None:
                assert plan.cost == best and plan.gap == 0
            missed += plan.cost > best * (1 + 1e-9)
        assert missed < 60  # the last rollout of a knapsack; the gap says so

    def test_a_share_of_it(self, estimator: str) -> None:
        p = np.random.default_rng(1).beta(0.4, 0.4, 64)
        spent = [allocate(p, match_uniform=512, variance_target=t, estimator=estimator) for t in (0.8, 1.0, 1.5)]
        sums = [plan.counts.sum() for plan in spent]
        assert 512 >= sums[0] > sums[1] > sums[2]
        assert [plan.variance_ratio for plan in spent] == pytest.approx([0.8, 1.0, 1.5], rel=0.02)
        assert spent[1].saved == 1 - sums[1] / 512

    def test_out_of_reach_spends_everything(self, estimator: str) -> None:
        p = np.random.default_rng(1).beta(0.4, 0.4, 64)
        plan = allocate(p, match_uniform=512, variance_target=0.01, estimator=estimator)
        best = allocate(p, budget=512, estimator=estimator)
        assert plan.counts.sum() == 512 and plan.expected_variance == pytest.approx(best.expected_variance)

    def test_nothing_known_is_nothing_saved(self, estimator: str) -> None:
        for weights in (np.full(16, 0.25), np.zeros(16)):
            assert allocate_weights(weights, match_uniform=128, estimator=estimator).counts.tolist() == [8] * 16


@pytest.mark.parametrize("estimator", ["rloo", "dr_grpo"])
def test_the_best_counts_of_a_cost(estimator: str) -> None:
    rng = np.random.default_rng(2)
    for _ in range(300):
        a, least, most, _ = random_case(rng, estimator)
        costs = rng.choice(COSTS, len(a))
        limit = float(costs.sum() * rng.uniform(least, most + 1))
        plan = allocate_weights(
            a, budget=limit, costs=costs, min_rollouts=least, max_rollouts=most, estimator=estimator
        )
        cases = every(len(a), least, most)
        best = (FACTOR[estimator](cases[cases @ costs <= limit * (1 + 1e-12)]) @ a).min()
        assert plan.cost == pytest.approx(costs @ plan.counts) and plan.cost <= limit * (1 + 1e-9)
        assert best <= plan.expected_variance * (1 + 1e-12)
        assert plan.expected_variance * (1 - plan.gap) <= best * (1 + 1e-9)


def test_gaps_are_small_for_batches() -> None:
    rng = np.random.default_rng(3)
    p, costs = rng.beta(0.4, 0.4, 128), rng.lognormal(0, 0.7, 128)
    assert 0 < allocate(p, match_uniform=1024, costs=costs).gap < 1e-3
    assert 0 < allocate(p, budget=1024.0, costs=costs).gap < 1e-3
    assert allocate(p, match_uniform=1024).gap == allocate(p, budget=1024).gap == 0


def test_costs_of_one_change_nothing() -> None:
    p = np.random.default_rng(4).beta(0.4, 0.4, 32)
    for name in ("budget", "match_uniform"):
        plain, priced = allocate(p, **{name: 256}), allocate(p, **{name: 256}, costs=np.ones(32))
        assert priced.expected_variance == pytest.approx(plain.expected_variance, rel=1e-9)
        assert priced.cost == plain.counts.sum()


class TestAtMostSoManyRollouts:
    """Live prompts are cheap: without the limit of rollouts more than C would be cheapest."""

    P, TOKENS = np.repeat([0.5, 0.1], 16), np.repeat([1.0, 20.0], 16)

    def budget(self) -> Budget:
        return Budget.of(32, 256, 2, 64, "rloo")

    def counts(self, budget: Budget) -> np.ndarray:
        return exact_counts(self.P * (1 - self.P), budget, np.random.default_rng(0))

    def test_match(self) -> None:
        budget = self.budget().matching(0.96, self.TOKENS)
        counts, a = self.counts(budget), self.P * (1 - self.P)
        assert counts.sum() <= 256
        assert a @ (1 / (counts - 1)) <= 0.96 * a.sum() / 7
        roomy = Budget.of(32, 1024, 2, 64, "rloo").matching(0.96 * 31 / 7, self.TOKENS)  # the same variance
        unlimited = self.counts(roomy)
        assert unlimited.sum() > 256 and self.TOKENS @ unlimited < self.TOKENS @ counts

    def test_limited(self) -> None:
        counts = self.counts(self.budget().limited(float(self.TOKENS.sum() * 8), self.TOKENS))
        assert counts.sum() == 256 and self.TOKENS @ counts <= self.TOKENS.sum() * 8


class TestPrice:
    def test_every_decrease_above_it_is_made(self) -> None:
        rng = np.random.default_rng(5)
        a, costs = rng.uniform(0, 0.25, 64), rng.lognormal(0, 0.5, 64)
        for price in (1e-4, 1e-3, 1e-2):
            n = exact_counts(a, Budget.of(64, 512, 2, 40, "rloo").priced(price, costs), rng)
            gain = a / (n * (n - 1.0)) / costs
            assert (gain[n < 40] <= price * (1 + 1e-9)).all()
            before = a / ((n - 1.0) * np.maximum(n - 2.0, 1e-9)) / costs
            assert (before[n > 2] > price * (1 - 1e-9)).all()


class TestMultiple:
    @pytest.mark.parametrize("multiple", [2, 8, 7])
    @pytest.mark.parametrize("costs", [None, np.linspace(0.5, 2, 28)], ids=["rollouts", "tokens"])
    def test_rounds_up(self, multiple: int, costs) -> None:
        a = np.random.default_rng(6).uniform(0, 0.25, 28) ** 2
        budget = Budget.of(28, 224, 2, 48, "rloo").matching(1.0, costs)
        exact = exact_counts(a, budget, np.random.default_rng(0))
        rounded = exact_counts(a, replace(budget, multiple=multiple), np.random.default_rng(0))
        assert rounded.sum() % multiple == 0
        assert 0 <= rounded.sum() - exact.sum() < multiple and (rounded >= exact).all()


class TestNewPrompts:
    def counts(self, new: np.ndarray, total: int = 256, **more) -> np.ndarray:
        rng = np.random.default_rng(7)
        a = rng.uniform(0, 0.25, 32) ** 2
        budget = Budget.of(32, total, 2, more.pop("most", 48), "rloo").matching(1.0)
        return counts_of_new_and_known(a, new, budget, rng)

    def test_they_spend_their_share(self) -> None:
        new = np.arange(32) < 12
        counts = self.counts(new)
        assert counts[new].sum() == 96 and counts[~new].sum() < 0.95 * 160

    def test_all_new_is_the_whole_budget(self) -> None:
        assert self.counts(np.ones(32, dtype=bool)).sum() == 256

    def test_bounds_hold(self) -> None:
        for total in (64, 65, 255, 256):
            counts = self.counts(np.arange(32) < 31, total, most=8)
            assert counts.sum() <= total and counts.min() >= 2 and counts.max() <= 8


class TestShrunkBaselines:
    def test_between_rloo_and_a_known_mean(self) -> None:
        n = np.arange(2, 60)
        np.testing.assert_allclose(ShrunkRLOO(np.zeros(58)).factor(n), RLOO().factor(n))
        np.testing.assert_allclose(ShrunkRLOO(np.full(58, 1e12)).factor(n), 1 / n, rtol=1e-9)

    def test_counts_are_exact(self) -> None:
        """The closed form of RLOO is off by at most one rollout, which the threshold corrects."""
        rng = np.random.default_rng(8)
        for _ in range(100):
            kappa = rng.choice([0.0, 0.3, 2.0, 30.0, 1e6], 3)
            model, ratio = ShrunkRLOO(kappa), 10 ** rng.uniform(-1, 4, 3)
            n = model.count_at_threshold(ratio)
            brute = [
                next(m for m in range(2, 1000) if r * ((1 + 1 / (k + m - 1)) / m - (1 + 1 / (k + m)) / (m + 1)) <= 1)
                for k, r in zip(kappa, ratio, strict=True)
            ]
            assert n.tolist() == brute

    def test_only_some_prompts(self) -> None:
        kappa = np.array([0.0, 1.0, 9.0])
        part = ShrunkRLOO(kappa).part(np.array([True, False, True]))
        np.testing.assert_allclose(part.factor(np.array([4, 4])), [1 / 3, (1 + 1 / 12) / 4])
        assert get_variance_model("rloo").part(np.array([True])) is get_variance_model("rloo")


class TestRefusals:
    @pytest.mark.parametrize("given", [
        {}, {"budget": 24, "match_uniform": 24}, {"match_uniform": 24, "variance_target": 0.0},
        {"match_uniform": 24, "variance_target": float("nan")}, {"match_uniform": 24, "variance_target": "1"},
        {"budget": 24, "costs": [1, 1]}, {"budget": 24, "costs": [1, 0, 1]}, {"budget": 24, "costs": [1, -1, 1]},
        {"budget": 24, "costs": [1, float("inf"), 1]}, {"budget": 5.0, "costs": [1, 1, 1]}, {"match_uniform": 5},
        {"budget": float("inf"), "costs": [1, 1, 1]}, {"budget": True, "costs": [1, 1, 1]},
    ])  # fmt: skip
    def test_refused(self, given) -> None:
        with pytest.raises(InputError):
            allocate([0.5, 0.1, 1.0], **given)


def test_uniform_counts_have_baselines_of_the_group() -> None:
    """Shrunk baselines are compared with those that a trainer has without VIP."""
    a, plain = np.array([0.25, 0.1, 0.02]), Budget.of(3, 24, 2, 20, "rloo")
    shrunk = replace(plain, model=ShrunkRLOO(np.array([5.0, 5.0, 5.0])))
    assert shrunk.uniform_variance(a) == pytest.approx(a.sum() / 7)
    counts = exact_counts(a, shrunk.matching(1.0), np.random.default_rng(0))
    assert counts.sum() < exact_counts(a, plain.matching(1.0), np.random.default_rng(0)).sum()
