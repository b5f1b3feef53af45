"""VIP.select: who is sampled and how often, without bias, and what is remembered of those passed over."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits import Policy
from sampled_orders import scripts
from viprl.advantages import rollout_weights
from viprl.allocation import selection_guard
from viprl.allocation.optimum import allocate_weights
from viprl.allocation.selection import FLOOR, Selection
from viprl.errors import InputError, StateError
from viprl.predictors.base import Batch
from viprl.utils.state_file import load, save
from viprl.vip import STATE_VERSION, VIP

CANDIDATES = [f"question {i}" for i in range(16)]
CHANCE = np.resize([0.5, 0.0, 1.0, 0.2], 16)
LIVE = (CHANCE > 0) & (CHANCE < 1)


def vip(**options) -> VIP:
    return VIP(**{"features": None, "cache": None} | options)


def answer(agent: VIP, prompts, counts, chance, rng: np.random.Generator) -> None:
    agent.observe(prompts, [(rng.random(n) < p).astype(float).tolist() for n, p in zip(counts, chance, strict=True)])


def step(
    agent: VIP, rng: np.random.Generator, prompts=CANDIDATES, chance=CHANCE, size: int = 6, **options
) -> Selection:
    """One step of an engine."""
    selection = agent.select(prompts, 40, size, **options)
    at = selection.positions
    answer(agent, [prompts[i] for i in at], selection.allocation.counts, chance[at], rng)
    return selection


def trained(steps: int = 12, **options) -> VIP:
    agent, rng = vip(**options), np.random.default_rng(0)
    for _ in range(steps):
        step(agent, rng)
    return agent


def equal(one: Selection, other: Selection) -> bool:
    parts = ("positions", "inclusion", "weights", "counts")
    return all(np.array_equal(getattr(one, part), getattr(other, part)) for part in parts)


class TestSelection:
    @settings(max_examples=30, deadline=None)
    @given(st.data())
    def test_budget_bounds_and_shapes(self, data) -> None:
        candidates = data.draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=10))
        size = data.draw(st.integers(1, len(candidates)))
        low = data.draw(st.integers(2, 4))
        high = low + data.draw(st.integers(0, 6))
        budget = data.draw(st.integers(size * low, size * high))
        agent = vip(seed=data.draw(st.integers(0, 99)))
        agent.observe(["a", "b", "c"], [[1, 0, 1, 0], [0] * 8, [1] * 8])
        found = agent.select(candidates, budget, size, min_rollouts=low, max_rollouts=high)
        counts = found.allocation.counts
        assert len(found.positions) == len(counts) == len(found.weights) == size
        assert (np.diff(found.positions) > 0).all()
        assert counts.sum() == found.counts.sum() == budget
        assert ((counts >= low) & (counts <= high)).all()
        assert found.inclusion.sum() == pytest.approx(size)
        np.testing.assert_array_equal(found.counts[found.positions], counts)
        assert (np.delete(found.counts, found.positions) == 0).all()
        np.testing.assert_allclose(found.weights * found.inclusion[found.positions], size / len(candidates))

    def test_nothing_known_is_uniform(self) -> None:
        found = vip().select(CANDIDATES, 48, 6)
        np.testing.assert_allclose(found.inclusion, 6 / 16)
        np.testing.assert_allclose(found.weights, 1)
        np.testing.assert_array_equal(found.allocation.counts, 8)

    def test_prompts_with_a_gradient_are_sampled_more_and_weigh_less(self) -> None:
        found = trained(30).select(CANDIDATES, 40, 6)
        assert found.inclusion[LIVE].min() > 1.3 * found.inclusion[~LIVE].max()
        assert found.inclusion.min() >= FLOOR * 6 / 16 * (1 - 1e-12)

    def test_without_the_correction(self) -> None:
        one, other = trained(), trained()
        biased = one.select(CANDIDATES, 40, 6, unbiased=False)
        np.testing.assert_array_equal(biased.weights, 1)
        right = other.select(CANDIDATES, 40, 6)
        np.testing.assert_array_equal(biased.positions, right.positions)
        assert right.weights.max() > right.weights.min()

    def test_all_candidates_are_an_allocation(self) -> None:
        one, other, rng, same = trained(), trained(), np.random.default_rng(1), np.random.default_rng(1)
        for _ in range(3):
            found, plan = one.select(CANDIDATES, 100, 16), other.allocate(CANDIDATES, 100)
            np.testing.assert_array_equal(found.positions, np.arange(16))
            np.testing.assert_array_equal(found.weights, 1)
            np.testing.assert_array_equal(found.counts, plan.counts)
            answer(one, CANDIDATES, plan.counts, CHANCE, rng)
            answer(other, CANDIDATES, plan.counts, CHANCE, same)

    def test_repeated_candidates_are_candidates_of_their_own(self) -> None:
        agent, twice = trained(), [*CANDIDATES[:4], *CANDIDATES[:4], CANDIDATES[0]]
        found = agent.select(twice, 36, 9)
        assert found.allocation.counts.sum() == 36
        answer(agent, twice, found.counts, np.full(9, 0.5), np.random.default_rng(0))
        found = agent.select(twice, 12, 3)
        np.testing.assert_allclose(found.inclusion[:4], found.inclusion[4:8])
        assert found.inclusion[8] == found.inclusion[0]

    def test_the_counts_minimise_the_variance_with_the_weights(self) -> None:
        agent = vip(strategy="oracle")
        p = np.linspace(0.05, 0.95, 16) ** 2
        agent.tell_oracle(CANDIDATES, p)
        for _ in range(5):
            found = agent.select(CANDIDATES, 60, 6)
            a = found.weights**2 * (p * (1 - p))[found.positions]
            best = allocate_weights(a, budget=60, min_rollouts=2, max_rollouts=60).expected_variance
            assert found.allocation.expected_variance == pytest.approx(best, rel=1e-9)
            assert a @ (1 / (found.allocation.counts - 1)) == pytest.approx(best, rel=1e-9)

    @pytest.mark.parametrize("strategy", ["uniform", "random", "paper", "oracle", "ema"])
    def test_every_strategy_selects(self, strategy: str) -> None:
        agent = vip(strategy=strategy, features=lambda texts: np.array([[len(text), 1.0] for text in texts]))
        rng = np.random.default_rng(0)
        agent.tell_oracle(CANDIDATES, CHANCE)
        for _ in range(4):
            found = step(agent, rng)
            assert found.allocation.counts.sum() == 40
        if strategy in ("uniform", "random"):
            np.testing.assert_allclose(found.inclusion, 6 / 16)
        if strategy == "oracle":  # nothing but the floor for the others
            np.testing.assert_allclose(found.inclusion[~LIVE], FLOOR * 6 / 16)


class TestUnbiased:
    """The whole estimator: select, sample, baseline, weights. Over all samples and all outcomes of the rollouts."""

    @staticmethod
    def expectations(agent: VIP, policy: Policy, prompts, budget: int, m: int):
        """[D] the expected gradient with leave-one-out baselines, with shrunk ones, and with these but without the
        weights of the prompts; and the pairs of prompt and count that occurred."""
        state, means, counts = agent.state_dict(), np.zeros((3, policy.score.shape[2])), set()
        known: dict = {}

        def of_group(q: int, n: int, expected=None) -> np.ndarray:
            if (q, n, expected) not in known:
                chance, values = policy.estimates(q, n, prior=expected)
                known[q, n, expected] = chance @ values
            return known[q, n, expected]

        for chance, script in scripts(agent.select(prompts, budget, m).inclusion):
            agent.load_state_dict(state)
            agent._rng = script
            found = agent.select(prompts, budget, m, max_rollouts=6)
            n, expected = found.allocation.counts, found.allocation.prior
            weights = np.split(rollout_weights(n, prompt_weights=found.weights), np.cumsum(n)[:-1])
            for rank, q in enumerate(found.positions.tolist()):
                group, share = (q, int(n[rank])), chance * weights[rank].sum() / budget
                shrunk = of_group(*group, (expected.mean[rank], expected.rollouts[rank]))
                means += share * of_group(*group), share * shrunk, share / found.weights[rank] * shrunk
                counts.add(group)
        return means, counts

    @pytest.fixture
    def policy(self) -> Policy:
        policy = Policy(5, 4, 3, 5)
        policy.reward[3] = [1.5, 0.0, 0.25]
        return policy

    @pytest.fixture
    def agent(self) -> VIP:
        agent = vip(baseline="expected")
        for _ in range(3):  # wrong about all of them; the policy above is another one
            agent.observe(["a", "b", "c", "d"], [[1] * 9 + [0], [0] * 12, [1, 0] * 4, [1] * 12])
        return agent

    @pytest.mark.parametrize(("m", "budget"), [(1, 4), (2, 8), (3, 11)])
    def test_the_expected_gradient_is_that_of_all_candidates(self, agent, policy, m: int, budget: int) -> None:
        (plain, shrunk, unweighted), counts = self.expectations(agent, policy, list("abcd"), budget, m)
        whole = policy.gradient().mean(axis=0)
        np.testing.assert_allclose(plain, whole, atol=1e-9)
        np.testing.assert_allclose(shrunk, whole, atol=1e-9)
        assert np.linalg.norm(unweighted - whole) > 0.05 * np.linalg.norm(whole)
        if m == 2:
            assert len(counts) > 4  # who else is sampled decides how often

    def test_repeated_candidates(self, agent, policy) -> None:
        policy.pi[1], policy.score[1], policy.reward[1] = policy.pi[0], policy.score[0], policy.reward[0]
        means, _ = self.expectations(agent, policy, ["a", "a", "c", "d"], 8, 2)
        np.testing.assert_allclose(means[:2], [policy.gradient().mean(axis=0)] * 2, atol=1e-9)


class TestRefusals:
    @pytest.mark.parametrize("size", [0, -1, 17, True, 2.5, "3", None, math.nan])
    def test_sizes(self, size) -> None:
        self.refused(CANDIDATES, 48, size)

    @pytest.mark.parametrize(("budget", "bounds"), [
        (11, {}), (0, {}), (6 * 16 + 1, {"max_rollouts": 16}), (40, {"min_rollouts": 8}), (40, {"min_rollouts": 1}),
        (40.5, {}), (True, {}),
    ])  # fmt: skip
    def test_budgets(self, budget, bounds) -> None:
        self.refused(CANDIDATES, budget, 6, **bounds)

    def test_no_candidates(self) -> None:
        self.refused([], 8, 1)

    @staticmethod
    def refused(*arguments, **bounds) -> None:
        one, other = trained(4), trained(4)
        with pytest.raises(InputError):
            one.select(*arguments, **bounds)
        one.observe(CANDIDATES, [[1, 0, 1]] * 16)  # there is no plan
        other.observe(CANDIDATES, [[1, 0, 1]] * 16)
        assert one.state_dict()["rng"] == other.state_dict()["rng"]
        assert equal(one.select(CANDIDATES, 40, 6), other.select(CANDIDATES, 40, 6))


class TestLearning:
    def test_the_sampled_prompts_find_the_plan(self) -> None:
        agent = trained(1)
        found = agent.select(CANDIDATES, 40, 6)
        sampled = [CANDIDATES[i] for i in found.positions]
        with pytest.raises(InputError):
            agent.observe(sampled, [[1.0]] * 6)
        agent.observe(sampled, [[1.0, 0.0] + [1.0] * (n - 2) for n in found.allocation.counts])
        metrics = agent.metrics()
        v = found.weights
        assert metrics["selection/effective_prompts"] == pytest.approx(v.sum() ** 2 / (v**2).sum())
        assert metrics["selection/squared_weights"] == pytest.approx((v**2).mean())
        assert metrics["counts/mean"] == pytest.approx(40 / 6)
        agent.observe(sampled, [[1.0]] * 6)  # the plan is used up

    def test_the_candidates_are_not_what_was_sampled(self) -> None:
        agent = trained(1)
        found = agent.select(CANDIDATES, 40, 6)
        with pytest.raises(InputError):
            agent.observe(CANDIDATES, [[1.0] * n for n in found.counts])
        agent.observe([CANDIDATES[i] for i in found.positions], [[1.0] * n for n in found.allocation.counts])
        agent.observe(CANDIDATES, [[1.0]] * 16)  # the plan is used up

    def test_ratios_weigh_prompts_as_the_gradient_does(self) -> None:
        agent = trained(20)
        found = agent.select(CANDIDATES, 40, 6)
        n, rng = found.allocation.counts, np.random.default_rng(3)
        rewards = [(rng.random(k) < 0.5).astype(float) for k in n]
        agent.observe([CANDIDATES[i] for i in found.positions], [group.tolist() for group in rewards])
        v, variance = found.weights, np.array([np.var(group, ddof=1) for group in rewards])
        even = v @ variance * (1 / 3 * (1 / 5) + 2 / 3 * (1 / 6))  # 40 rollouts on 6: a third have 6, the others 7
        assert agent.metrics()["variance_ratio/realised"] == pytest.approx(v**2 * variance @ (1 / (n - 1)) / even)
        assert found.allocation.variance_ratio == pytest.approx(agent.metrics()["variance_ratio/predicted"])

    def test_the_reference_is_that_of_prompts_chosen_by_chance(self) -> None:
        """The mean over samples of its predicted variance is that of all candidates, each with probability m/M."""
        agent = trained(20, strategy="oracle")
        agent.tell_oracle(CANDIDATES, CHANCE)
        found = [agent.select(CANDIDATES, 48, 6).allocation.uniform_variance for _ in range(4000)]
        expected = 6 / 16 * (CHANCE * (1 - CHANCE)).sum() / 7
        assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / 4000**0.5)

    def test_success_and_reward_are_those_of_all_candidates(self) -> None:
        """Each prompt weighs in the mean what it weighs in the gradient; prompts without a reward are left out."""
        agent = trained(20, success=0.5)
        found = agent.select(CANDIDATES, 40, 6)
        rewards = [[0.25 * q] * n for q, n in enumerate(found.allocation.counts)]
        rewards[4] = [None] * len(rewards[4])
        agent.observe([CANDIDATES[i] for i in found.positions], rewards)
        v, metrics = np.delete(found.weights, 4), agent.metrics()
        assert metrics["reward"] == pytest.approx(v @ [0, 0.25, 0.5, 0.75, 1.25] / v.sum())
        assert metrics["success_rate"] == pytest.approx(v[2:].sum() / v.sum())

    def test_allocations_have_no_metrics_of_selection(self) -> None:
        agent = trained(2)
        plan = agent.allocate(CANDIDATES, 64)
        answer(agent, CANDIDATES, plan.counts, CHANCE, np.random.default_rng(0))
        assert not any(name.startswith("selection/") for name in agent.metrics())

    def test_shadows_change_nothing(self) -> None:
        alone, watched = trained(0), trained(0, shadow=["uniform", "ema", "random", "oracle"])
        rng, same = np.random.default_rng(4), np.random.default_rng(4)
        for _ in range(6):
            assert equal(step(alone, rng), step(watched, same))

    def test_all_of_one_kind_and_unscorable_rewards(self) -> None:
        agent = vip()
        for reward in (None, 0.0, 1.0):
            for _ in range(3):
                found = agent.select(CANDIDATES, 40, 6)
                agent.observe([CANDIDATES[i] for i in found.positions], [[reward] * n for n in found.allocation.counts])
                assert np.isfinite(found.inclusion).all() and found.inclusion.sum() == pytest.approx(6)


class TestPassedOver:
    """Time passes for candidates that are not sampled: they become uncertain, and return."""

    @staticmethod
    def always(monkeypatch, positions) -> None:
        monkeypatch.setattr(selection_guard, "systematic_sample", lambda pi, rng: np.array(positions))

    def test_they_become_uncertain_and_are_sampled_more_often(self, monkeypatch) -> None:
        agent, rng, counts = vip(), np.random.default_rng(0), np.full(16, 8)
        for _ in range(15):
            answer(agent, CANDIDATES, counts, CHANCE, rng)
        passed = [1, 2]  # one that always failed, one that always succeeded
        keys = agent.observe([CANDIDATES[i] for i in passed], [[None], [None]]).keys
        self.always(monkeypatch, np.flatnonzero(LIVE)[:6])
        sizes, inclusion, predicted = [], [], []
        for _ in range(60):
            sizes.append(agent.strategies["default"].gradient_sizes(Batch(keys, None)))
            predicted.append(agent.predict([CANDIDATES[i] for i in passed]))
            inclusion.append(step(agent, rng).inclusion[passed])
        assert (sizes[-1] > 2 * sizes[0]).all()
        assert (np.diff(sizes, axis=0)[5:] > 0).mean() > 0.9  # the others are still being learned about
        assert (inclusion[-1] >= inclusion[0]).all()
        assert (np.diff(predicted, axis=0)[5:] * [1, -1] > 0).mean() > 0.9

    def test_those_that_were_sampled_do_not_drift_twice(self, monkeypatch) -> None:
        one, other, rng, same = vip(), vip(), np.random.default_rng(1), np.random.default_rng(1)
        self.always(monkeypatch, [0, 1, 2])
        for _ in range(4):
            found = one.select(CANDIDATES[:5], 24, 3)
            answer(one, CANDIDATES[:3], found.allocation.counts, CHANCE[:3], rng)
            answer(other, CANDIDATES[:3], found.allocation.counts, CHANCE[:3], same)
        np.testing.assert_array_equal(one.predict(CANDIDATES), other.predict(CANDIDATES))

    def test_nothing_is_ever_deleted(self, monkeypatch) -> None:
        agent = trained(20)
        self.always(monkeypatch, [0])
        for _ in range(50):
            found = agent.select(CANDIDATES, 8, 1)
        assert (found.inclusion >= FLOOR / 16 * (1 - 1e-12)).all()
        assert np.isfinite(agent.predict(CANDIDATES)).all()
        monkeypatch.undo()
        seen = {int(i) for _ in range(30) for i in agent.select(CANDIDATES, 24, 6).positions}
        assert seen == set(range(16))

    def test_their_share_is_a_metric(self, monkeypatch) -> None:
        agent, rng = vip(), np.random.default_rng(0)
        self.always(monkeypatch, [0, 1, 2, 3, 4, 5])
        step(agent, rng)
        assert agent.metrics()["selection/neglected"] == 10 / 16
        self.always(monkeypatch, [6, 7, 8, 9, 10, 11])
        step(agent, rng)
        assert agent.metrics()["selection/neglected"] == 4 / 16


class TestState:
    @pytest.mark.parametrize("through_file", [True, False])
    def test_a_resumed_run_selects_identically(self, through_file: bool, tmp_path) -> None:
        one, other = trained(seed=1), vip(seed=2)
        if through_file:
            one.save(tmp_path / "vip")
            other.load(tmp_path / "vip")
        else:
            other.load_state_dict(one.state_dict())
        rng, same = np.random.default_rng(5), np.random.default_rng(5)
        for _ in range(6):
            assert equal(step(one, rng), step(other, same))
            metrics, others = one.metrics(), other.metrics()
            del metrics["overhead_seconds"], others["overhead_seconds"]
            assert metrics == pytest.approx(others, nan_ok=True)

    def test_seeds_matter_without_it(self) -> None:
        assert not equal(trained(0, seed=1).select(CANDIDATES, 40, 6), trained(0, seed=2).select(CANDIDATES, 40, 6))

    def test_a_state_is_a_snapshot(self) -> None:
        agent, rng = trained(5), np.random.default_rng(6)
        state = agent.state_dict()
        first = [step(agent, rng) for _ in range(5)]
        agent.load_state_dict(state)
        rng = np.random.default_rng(6)
        assert all(equal(before, step(agent, rng)) for before in first)

    def test_older_versions_are_refused(self, tmp_path) -> None:
        trained(2).save(tmp_path / "vip")
        state = load(tmp_path / "vip", kind="viprl.VIP", version=STATE_VERSION)
        save(tmp_path / "vip", state, kind="viprl.VIP", version=STATE_VERSION - 1)
        with pytest.raises(StateError, match=str(STATE_VERSION - 1)):
            vip().load(tmp_path / "vip")

    @pytest.mark.parametrize("name", ["sampled", "selection", "shrinkage"])
    def test_states_without_a_part_are_refused(self, name: str) -> None:
        agent, state = vip(), trained(2).state_dict()
        for damaged in ({key: value for key, value in state.items() if key != name}, state | {name: {}}):
            with pytest.raises(StateError):
                agent.load_state_dict(damaged)
        assert equal(agent.select(CANDIDATES, 40, 6), vip().select(CANDIDATES, 40, 6))
