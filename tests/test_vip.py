"""VIP as an engine uses it: the loop, what it refuses, what it reports, and that a resumed run goes on identically."""

from __future__ import annotations

import logging
import math
from decimal import Decimal

import numpy as np
import pytest

from viprl.allocation.guard import Guard
from viprl.baselines.moving_average import MovingAverage
from viprl.errors import InputError, StateError
from viprl.predictors.base import Batch, Prediction, Predictor
from viprl.strategies import Strategy
from viprl.utils.state_checks import array_entry
from viprl.utils.state_file import load, save
from viprl.vip import STATE_VERSION, VIP

PROMPTS = [f"What is {i} + {i}?" for i in range(12)]


def embed(texts: list[str]) -> np.ndarray:
    """Cheap features that differ between prompts."""
    return np.array([[len(text), sum(map(ord, text)) % 7, text.count("1"), 1.0] for text in texts])


def vip(**options) -> VIP:
    return VIP(**{"features": None, "cache": None, "min_rollouts": 2, "max_rollouts": 16} | options)


def rewards_for(counts, p, rng: np.random.Generator) -> list[list[float]]:
    return [(rng.random(n) < chance).astype(float).tolist() for n, chance in zip(counts, p, strict=True)]


def run(
    agent: VIP, steps: int, rng: np.random.Generator, prompts=PROMPTS, budget: int | None = None
) -> list[np.ndarray]:
    """The loop of an engine; prompts are easy, hard and between in turn."""
    p, counts = np.resize([0.5, 0.02, 0.95], len(prompts)), []
    for _ in range(steps):
        plan = agent.allocate(prompts, budget or 8 * len(prompts))
        agent.observe(prompts, rewards_for(plan.counts, p, rng))
        counts.append(plan.counts)
    return counts


EVERY = ["default", "paper", "uniform", "random", "oracle", "inverse_accuracy", "inverse_variance"]


@pytest.mark.parametrize("strategy", EVERY)
def test_the_loop_runs_with_every_strategy(strategy: str) -> None:
    agent = vip(strategy=strategy, features=embed)
    for counts in run(agent, 5, np.random.default_rng(0), budget=100):
        assert counts.sum() == 100
        assert counts.min() >= 2
        assert counts.max() <= 16
    p = agent.predict([*PROMPTS, "new"])
    assert p.shape == (13,)
    assert ((p > 0) & (p < 1)).all()


def test_it_learns_where_rollouts_matter() -> None:
    counts = run(vip(), 10, np.random.default_rng(0))
    np.testing.assert_array_equal(counts[0], 8)  # nothing known: uniform
    between = np.arange(12) % 3 == 0
    assert counts[-1][between].min() > counts[-1][~between].max()


def test_defaults_of_the_bounds() -> None:
    assert VIP(features=None, cache=None).allocate(["a", "b"], 4).counts.tolist() == [2, 2]
    assert VIP(features=None, cache=None, estimator="dr_grpo").allocate(["a", "b"], 6).counts.tolist() == [3, 3]
    with pytest.raises(InputError):
        VIP(features=None, cache=None, estimator="dr_grpo").allocate(["a", "b"], 5)


def test_bounds_of_a_call_override() -> None:
    counts = vip().allocate(PROMPTS[:3], 30, min_rollouts=[4, 5, 6], max_rollouts=[4, 30, 30]).counts
    assert counts[0] == 4
    assert counts.sum() == 30


class TestPrompts:
    def test_repeated_prompts_share_their_history_and_their_prediction(self) -> None:
        agent = vip()
        batch = ["a", "b", "a"]
        agent.allocate(batch, 24)
        agent.observe(batch, [[1] * 8, [0] * 8, [0] * 8])
        together = vip()
        together.observe(["b", "a"], [[0] * 8, [1, 0] * 8])
        np.testing.assert_allclose(agent.predict(["a", "b", "a"]), together.predict(["a", "b", "a"]), rtol=1e-12)
        p = agent.predict(batch)
        assert p[0] == p[2] > p[1]

    def test_chat_prompts_ids_and_content(self) -> None:
        chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 1 + 1?"}]
        agent = vip()
        agent.observe([chat, {"prompt": "one", "id": 5}, "two"], [[1] * 8, [0] * 8, [1, 0] * 4])
        again = [dict(message) for message in chat]
        p = agent.predict([again, {"prompt": "worded anew", "id": "5"}, {"prompt": "two", "solution": "2"}, "new"])
        assert p[0] > 0.8
        assert p[1] < 0.2
        assert 0.3 < p[2] < 0.7
        fresh = agent.predict(["one"])  # no id: another prompt
        assert fresh[0] == pytest.approx(p[3])

    def test_features_see_the_user_s_text_once_per_prompt(self) -> None:
        seen: list[str] = []

        def encoder(texts: list[str]) -> np.ndarray:
            seen.extend(texts)
            return embed(texts)

        agent = vip(features=encoder)
        chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 1 + 1?"}]
        run(agent, 3, np.random.default_rng(0), prompts=[chat, "two", chat])
        assert sorted(seen) == ["What is 1 + 1?", "two"]

    def test_one_string_is_no_batch(self) -> None:
        with pytest.raises(TypeError):
            vip().allocate("What is 1 + 1?", 8)


class TestRefusals:
    def test_infeasible_budget(self) -> None:
        with pytest.raises(InputError, match=r"12 prompts.*1000"):
            vip().allocate(PROMPTS, 1000)

    def test_a_refused_budget_leaves_no_plan_and_no_trace(self) -> None:
        one, other = vip(), vip()
        with pytest.raises(ValueError):
            one.allocate(PROMPTS, 23)
        one.observe(PROMPTS, [[1, 0, 1]] * 12)  # no plan: any length
        other.observe(PROMPTS, [[1, 0, 1]] * 12)
        np.testing.assert_array_equal(one.allocate(PROMPTS, 101).counts, other.allocate(PROMPTS, 101).counts)

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"min_rollouts": 1}, "min_rollouts"),
            ({"min_rollouts": 2, "estimator": "dr_grpo"}, "min_rollouts"),
            ({"min_rollouts": 8, "max_rollouts": 4}, "max_rollouts=4"),
            ({"strategy": "defalt"}, "default"),
            ({"shadow": ["uniform", "best"]}, "'best'"),
            ({"estimator": "ppo"}, "'ppo'"),
            ({"strategy": "paper"}, "minilm"),
            ({"features": "minilmm"}, "minilmm"),
            ({"success": "accuracy"}, "'accuracy'"),
            ({"min_rollouts": 2.5}, "2.5"),
        ],
    )
    def test_impossible_options(self, options, named: str) -> None:
        with pytest.raises(InputError, match=named):
            vip(**options)

    def test_wrong_lengths_teach_nothing_and_the_plan_stays(self) -> None:
        one, other = vip(shadow=["oracle"]), vip(shadow=["oracle"])
        for agent in (one, other):
            agent.observe(PROMPTS[:2], [[1, 0], [0, 0]])
        plan = one.allocate(PROMPTS, 96)
        other.allocate(PROMPTS, 96)
        good = rewards_for(plan.counts, [0.5] * 12, np.random.default_rng(0))
        bad = [*good[:5], good[5][:-1], *good[6:]]
        with pytest.raises(InputError, match=rf"prompt 5 .*{plan.counts[5]} .*{plan.counts[5] - 1} "):
            one.observe(PROMPTS, bad)
        with pytest.raises(InputError, match=r"11 .*12 "):
            one.observe(PROMPTS, good[:-1])
        assert one.metrics() == {}
        for agent in (one, other):
            agent.observe(PROMPTS, good)
        np.testing.assert_array_equal(one.predict(PROMPTS), other.predict(PROMPTS))
        assert one.metrics()["variance_ratio/realised"] == other.metrics()["variance_ratio/realised"]

    def test_a_plan_is_used_up_by_its_rewards(self) -> None:
        agent = vip()
        plan = agent.allocate(PROMPTS, 96)
        agent.observe(PROMPTS, [[1.0] * n for n in plan.counts])
        agent.observe(PROMPTS, [[1.0]] * 12)  # a log of another length is welcome now

    def test_a_plan_for_other_prompts_does_not_interfere(self) -> None:
        agent = vip()
        plan = agent.allocate(PROMPTS[:6], 48)
        agent.observe(PROMPTS[6:], [[1.0, 0.0]] * 6)
        assert agent.metrics() == {}
        with pytest.raises(InputError):
            agent.observe(PROMPTS[:6], [[1.0]] * 6)
        agent.observe(PROMPTS[:6], [[1.0] * n for n in plan.counts])
        assert agent.metrics()["counts/mean"] == 8

    def test_two_plans_wait_at_once_in_any_order(self) -> None:
        agent = vip()
        first, second = agent.allocate(PROMPTS[:6], 48), agent.allocate(PROMPTS[6:], 60)
        agent.observe(PROMPTS[6:], [[1.0] * n for n in second.counts])
        assert agent.metrics()["counts/mean"] == 10
        agent.observe(PROMPTS[:6], [[1.0] * n for n in first.counts])
        assert agent.metrics()["counts/mean"] == 8


class TestLearning:
    def test_warm_start_changes_predictions_and_counts(self) -> None:
        agent = vip()
        before = agent.predict(PROMPTS)
        agent.observe(PROMPTS, [[1, 0, 1, 0]] * 6 + [[0] * 9] * 6)
        after = agent.predict(PROMPTS)
        assert (after[:6] > after[6:] + 0.2).all()
        assert not np.allclose(before, after)
        counts = agent.allocate(PROMPTS, 96).counts
        assert counts[:6].min() > counts[6:].max()

    def test_predict_and_propose_change_nothing(self) -> None:
        one, other = vip(features=embed, shadow=["paper", "random"]), vip(features=embed, shadow=["paper", "random"])
        rng_one, rng_other = np.random.default_rng(1), np.random.default_rng(1)
        for _ in range(4):
            one.predict([*PROMPTS, "never seen"])
            one.propose(["never seen", *PROMPTS], 101)
            one.propose(PROMPTS, 101)
            one.state_dict()
            one.metrics()
            a, b = run(one, 1, rng_one, budget=101)[0], run(other, 1, rng_other, budget=101)[0]
            np.testing.assert_array_equal(a, b)
        assert one.state_dict()["rng"] == other.state_dict()["rng"]

    def test_propose_says_what_allocate_would_do(self) -> None:
        agent = vip(features=embed, shadow=["paper"])
        run(agent, 4, np.random.default_rng(0))
        proposals = agent.propose(PROMPTS, 101)
        assert set(proposals) == {"default", "paper"}
        plan = agent.allocate(PROMPTS, 101)
        assert proposals["default"].expected_variance == pytest.approx(plan.expected_variance, rel=1e-9)

    def test_the_oracle_is_told_the_truth(self) -> None:
        agent = vip(strategy="oracle", shadow=["uniform"])
        p = np.resize([0.5, 0.0, 1.0, 0.2], 12)
        np.testing.assert_allclose(agent.predict(PROMPTS), 0.5)
        agent.tell_oracle(PROMPTS, p)
        np.testing.assert_array_equal(agent.predict(PROMPTS), p)
        plan = agent.allocate(PROMPTS, 96)
        np.testing.assert_array_equal(plan.counts[(p == 0) | (p == 1)], 2)
        with pytest.raises(ValueError):
            agent.tell_oracle(PROMPTS, p[:-1])

    def test_telling_the_oracle_leaves_the_others_alone(self) -> None:
        agent = vip(shadow=["oracle"])
        before = agent.predict(PROMPTS)
        agent.tell_oracle(PROMPTS, np.linspace(0, 1, 12))
        np.testing.assert_array_equal(agent.predict(PROMPTS), before)

    def test_shadows_learn_from_the_same_outcomes(self) -> None:
        """A shadow believes what it would believe had it been driven through the same outcomes."""
        driver = vip(strategy="uniform", shadow=["default", "paper"], features=embed)
        rng, logs = np.random.default_rng(2), []
        for _ in range(4):
            counts = driver.allocate(PROMPTS, 96).counts
            logs.append(rewards_for(counts, np.resize([0.5, 0.1], 12), rng))
            driver.observe(PROMPTS, logs[-1])
        for name in ("default", "paper"):
            alone = vip(strategy=name, features=embed)
            for rewards in logs:
                alone.observe(PROMPTS, rewards)
            belief = driver.propose(PROMPTS, 96)[name].success_probability
            np.testing.assert_allclose(belief, alone.predict(PROMPTS), rtol=1e-9)
        metrics = driver.metrics()
        assert {"shadow/default/variance_ratio", "shadow/paper/running"} <= metrics.keys()
        assert metrics["variance_ratio/realised"] == pytest.approx(1)

    def test_shadows_do_not_disturb_the_run(self) -> None:
        alone, watched = vip(strategy="uniform"), vip(strategy="uniform", shadow=["default", "random"])
        for a, b in zip(
            run(alone, 6, np.random.default_rng(3), budget=101),
            run(watched, 6, np.random.default_rng(3), budget=101),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)

    def test_unscorable_rewards_are_ignored_and_counted(self) -> None:
        agent = vip(strategy="uniform", shadow=["default"])
        plan = agent.allocate(PROMPTS[:3], 24)
        assert plan.counts.tolist() == [8, 8, 8]
        rewards = [[1, 0, None, math.nan, math.inf, "?", 1, 0], [None] * 8, [1] * 8]
        agent.observe(PROMPTS[:3], rewards)
        clean = vip()
        clean.observe([PROMPTS[0], PROMPTS[2]], [[1, 0, 1, 0], [1] * 8])
        belief = agent.propose(PROMPTS[:3], 24)["default"].success_probability
        np.testing.assert_allclose(belief, clean.predict(PROMPTS[:3]), rtol=1e-9)
        assert agent.metrics()["unscorable"] == 12 / 24 and agent.unreadable_rewards == 2
        agent.allocate(PROMPTS[:3], 24)
        agent.observe(PROMPTS[:3], [[None] * 8] * 3)
        assert agent.allocate(PROMPTS[:3], 24).counts.sum() == 24

    def test_observe_says_what_it_read(self) -> None:
        """Group by group, repeated prompts apart, in the order of the batch."""
        seen = vip().observe(["a", {"prompt": "b", "id": 3}, "a"], [[1, 0, None], [0, 1, 1, "?"], []])
        assert seen.keys[0] == seen.keys[2]
        assert seen.keys[1] == "id:3"
        np.testing.assert_array_equal(seen.successes, [1, 2, math.nan])
        np.testing.assert_array_equal(seen.rollouts, [2, 3, 0])
        np.testing.assert_array_equal(seen.judged, [2, 3, 0])
        np.testing.assert_allclose(seen.reward_mean, [0.5, 2 / 3, math.nan])
        np.testing.assert_allclose(seen.reward_variance, [0.5, 1 / 3, math.nan])

    def test_success_of_rewards_of_any_kind(self) -> None:
        rewards = [[0.1, 1.0, 0.3], [0.0, 0.6]]
        unknown = vip().observe(["a", "b"], rewards)
        assert np.isnan(unknown.successes).all() and not unknown.judged.any()
        named = vip(success=0.5).observe(["a", "b"], rewards)
        assert named.successes.tolist() == [1, 1] and named.judged.tolist() == [3, 2]
        given = vip().observe(["a", "b"], rewards, successes=[[True, None, False], [None, None]])
        np.testing.assert_array_equal(given.successes, [1, math.nan])
        assert given.judged.tolist() == [2, 0]

    @pytest.mark.parametrize("successes", [[[1.0]], [[1, 0], [0.5]], [[1, 2], [0]], "ab"])
    def test_successes_of_another_shape_or_kind_are_refused(self, successes) -> None:
        with pytest.raises(InputError):
            vip().observe(["a", "b"], [[1, 0], [1]], successes=successes)

    def test_success_can_be_named(self) -> None:
        agent = vip(success=0.5)
        agent.observe(["a", "b"], [[0.7, 0.9, 0.6], [0.1, 0.2, 0.3]])
        p = agent.predict(["a", "b"])
        assert p[0] > p[1] + 0.3


def test_metrics_recomputed() -> None:
    agent = vip(shadow=["oracle"], max_rollouts=24)
    rng, p = np.random.default_rng(4), np.resize([0.5, 0.03, 0.9], 12)
    agent.tell_oracle(PROMPTS, p)
    saved, even_sum, oracle_saved = 0.0, 0.0, 0.0
    for _ in range(5):
        guess = agent.predict(PROMPTS)
        plan = agent.allocate(PROMPTS, 90)
        oracle = agent.propose(PROMPTS, 90)["oracle"].counts
        rewards = rewards_for(plan.counts, p, rng)
        agent.observe(PROMPTS, rewards)
        metrics, n = agent.metrics(), plan.counts
        assert (metrics["counts/min"], metrics["counts/max"]) == (n.min(), n.max())
        assert metrics["counts/mean"] == 7.5
        assert metrics["variance_ratio/predicted"] == pytest.approx(plan.variance_ratio)
        variance = np.array([np.var(group, ddof=1) for group in rewards])
        realised = float(variance @ (1 / (n - 1)))
        even = float(variance.sum() * (1 / 6 + 1 / 7) / 2)  # half of the prompts 7, half 8
        saved, even_sum = saved + realised, even_sum + even
        oracle_saved += float(variance @ (1 / (oracle - 1)))
        assert metrics["variance_ratio/realised"] == pytest.approx(realised / even)
        assert metrics["variance_ratio/running"] == pytest.approx(saved / even_sum)
        assert metrics["shadow/oracle/running"] == pytest.approx(oracle_saved / even_sum, rel=0.05)  # ties apart
        settled = [len(set(group)) == 1 for group in rewards]
        assert metrics["zero_advantage_rollouts"] == pytest.approx(n[settled].sum() / 90)
        assert metrics["brier"] == pytest.approx(
            np.mean([np.mean((np.array(group) - g) ** 2) for group, g in zip(rewards, guess, strict=True)])
        )
        loss = [np.mean([-math.log(g if r else 1 - g) for r in group]) for group, g in zip(rewards, guess, strict=True)]
        assert metrics["log_loss"] == pytest.approx(np.mean(loss))
        assert metrics["unscorable"] == 0
        assert 0 <= metrics["trust"] <= 1
        assert metrics["overhead_seconds"] > 0


class Liar(Predictor):
    """Calls certain prompts uncertain, and the other way round."""

    def predict(self, batch: Batch) -> Prediction:
        p = np.resize([0.01, 0.5, 0.01], len(batch))
        return Prediction.of_points(p)

    def observe(self, batch, successes, rollouts) -> None:
        pass

    def state_dict(self):
        return {}

    def load_state_dict(self, state) -> None:
        pass


@pytest.mark.parametrize("driven", [True, False])
def test_the_guard_sees_what_every_strategy_would_have_bought(driven: bool) -> None:
    names = {"strategy": "default", "shadow": "uniform"} if driven else {"strategy": "uniform", "shadow": "default"}
    liar = Strategy(Liar(), guard=Guard(), name="liar")
    agent = vip(**{key: liar if value == "default" else value for key, value in names.items()})
    trust = []
    for _ in range(30):
        run(agent, 1, np.random.default_rng(len(trust)), PROMPTS * 2)
        trust.append(agent.strategies["liar"].guard.trust)
    assert trust[-1] == 0
    if driven:
        assert agent.metrics()["trust"] == 0
    final = agent.propose(PROMPTS * 2, 192)["liar"].counts
    np.testing.assert_array_equal(final, 8)


def test_metrics_where_nothing_was_measured() -> None:
    agent = vip()
    plan = agent.allocate(PROMPTS, 96)
    agent.observe(PROMPTS, [[0.0] * n for n in plan.counts])
    metrics = agent.metrics()
    assert math.isnan(metrics["variance_ratio/realised"])
    assert metrics["zero_advantage_rollouts"] == 1


class TestState:
    @pytest.mark.parametrize("strategy", EVERY)
    @pytest.mark.parametrize("through_file", [True, False])
    def test_restored_runs_allocate_identically(self, strategy: str, through_file: bool, tmp_path) -> None:
        options = {"strategy": strategy, "shadow": ["default", "uniform"], "features": embed}
        one, other = vip(**options, seed=1), vip(**options, seed=2)
        run(one, 4, np.random.default_rng(5), budget=101)
        if through_file:
            one.save(tmp_path / "vip.state")
            other.load(tmp_path / "vip.state")
        else:
            other.load_state_dict(one.state_dict())
        a, b = (run(agent, 5, np.random.default_rng(6), budget=101) for agent in (one, other))
        np.testing.assert_array_equal(a, b)
        same = {key: value for key, value in one.metrics().items() if key != "overhead_seconds"}
        assert other.metrics() == pytest.approx(
            same | {"overhead_seconds": other.metrics()["overhead_seconds"]}, nan_ok=True
        )

    def test_seeds_matter_without_a_restore(self) -> None:
        """So that the test above says something about the generator."""
        a, b = (run(vip(seed=seed), 1, np.random.default_rng(0), budget=101)[0] for seed in (1, 2))
        assert (a != b).any()

    def test_a_state_is_a_snapshot(self) -> None:
        agent = vip()
        run(agent, 2, np.random.default_rng(0))
        state = agent.state_dict()
        before = {name: np.array(value) for name, value in state["realised"].items()}
        run(agent, 2, np.random.default_rng(1))
        for name, value in before.items():
            np.testing.assert_array_equal(state["realised"][name], value)

    @pytest.mark.parametrize("strategy", EVERY)
    def test_going_back_to_a_state_in_memory(self, strategy: str) -> None:
        agent = vip(strategy=strategy, features=embed)
        run(agent, 3, np.random.default_rng(0), budget=101)
        state = agent.state_dict()
        first = run(agent, 3, np.random.default_rng(1), budget=101)
        agent.load_state_dict(state)
        np.testing.assert_array_equal(run(agent, 3, np.random.default_rng(1), budget=101), first)

    def test_another_strategy_warns_and_works(self, caplog) -> None:
        one, other = vip(strategy="uniform"), vip(strategy="default", shadow=["uniform"])
        run(one, 2, np.random.default_rng(0))
        with caplog.at_level(logging.WARNING, logger="viprl"):
            other.load_state_dict(one.state_dict())
        assert "'default' starts without history" in caplog.text
        assert "uniform" in caplog.text
        assert len(run(other, 2, np.random.default_rng(0))) == 2

    def test_the_same_strategies_do_not_warn(self, caplog) -> None:
        one, other = vip(), vip()
        run(one, 2, np.random.default_rng(0))
        with caplog.at_level(logging.WARNING, logger="viprl"):
            other.load_state_dict(one.state_dict())
        assert not caplog.records

    def test_the_count_of_unscorable_rewards_goes_on(self) -> None:
        one, other = vip(), vip()
        one.observe(["a"], [[math.inf, 1, "?"]])
        other.load_state_dict(one.state_dict())
        other.observe(["a"], [["?"] * 4])
        assert other.unreadable_rewards == 6

    def test_restoring_forgets_pending_plans(self) -> None:
        one, other = vip(), vip()
        other.allocate(PROMPTS, 96)
        other.load_state_dict(one.state_dict())
        other.observe(PROMPTS, [[1.0]] * 12)

    def test_state_files_of_another_version_or_kind(self, tmp_path) -> None:
        agent, path = vip(), tmp_path / "vip.state"
        agent.save(path)
        state = load(path, kind="viprl.VIP", version=STATE_VERSION)
        save(path, state, kind="viprl.VIP", version=99)
        with pytest.raises(StateError, match="99"):
            vip().load(path)
        save(path, state, kind="viprl.Other", version=1)
        with pytest.raises(StateError, match=r"viprl\.Other"):
            vip().load(path)
        with pytest.raises(StateError, match="missing"):
            vip().load(tmp_path / "missing")

    @pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
    def test_state_files_cut_short_change_nothing(self, share: float, tmp_path) -> None:
        agent, path = vip(), tmp_path / "vip.state"
        run(agent, 2, np.random.default_rng(0))
        agent.save(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        fresh = vip()
        with pytest.raises(StateError):
            fresh.load(path)
        np.testing.assert_array_equal(fresh.predict(PROMPTS), vip().predict(PROMPTS))

    def test_a_refused_state_changes_nothing(self) -> None:
        """Saved with features, loaded without: refused by `default`, after `uniform` has taken its part."""
        one = vip(strategy="uniform", shadow=["default"], features=embed)
        run(one, 3, np.random.default_rng(0))
        other = vip(strategy="uniform", shadow=["default"])
        with pytest.raises(StateError):
            other.load_state_dict(one.state_dict())
        np.testing.assert_array_equal(other.predict(PROMPTS), vip(strategy="uniform").predict(PROMPTS))

    @pytest.mark.parametrize("strategy", ["default", "paper"])
    def test_a_state_of_other_features_is_refused_at_once(self, strategy: str) -> None:
        one = vip(strategy=strategy, features=embed)
        run(one, 2, np.random.default_rng(0))
        other = vip(strategy=strategy, features=lambda texts: embed(texts)[:, :2])
        try:
            other.load_state_dict(one.state_dict())
            refused = False
        except StateError:
            refused = True
        if not refused:  # or it goes on without what it cannot use
            other.allocate([*PROMPTS, "new"], 104)


def test_many_forgotten_plans_do_not_pile_up() -> None:
    agent = vip()
    for step in range(40):
        agent.allocate([f"{step} {i}" for i in range(300)], 600)
    assert len(agent._pending) == 16


def test_many_plans_of_few_prompts_are_kept() -> None:
    """Engines that ask prompt by prompt have many of them at work."""
    agent = vip()
    counts = [int(agent.allocate([f"{step}"], average=8).counts[0]) for step in range(100)]
    for step, n in enumerate(counts):
        assert agent.observe([f"{step}"], [[1.0] * n]).variance is not None


@pytest.mark.parametrize("features", [None, embed], ids=["without", "with"])
def test_an_empty_batch_is_harmless(features) -> None:
    agent = vip(features=features)
    run(agent, 1, np.random.default_rng(0))
    agent.observe([], [])
    with pytest.raises(InputError):
        agent.allocate([], 8)


@pytest.mark.parametrize(
    "features",
    [None, embed],
    ids=["without", "with"],
)
def test_predicting_nothing_gives_nothing(features) -> None:
    agent = vip(features=features)
    run(agent, 1, np.random.default_rng(0))
    assert agent.predict([]).shape == (0,)


class TestStrategyObjects:
    def test_a_copy_of_it_learns(self) -> None:
        mine = Strategy(MovingAverage(rate=1.0), name="mine")
        agent = vip(strategy=mine, shadow=["default"])
        agent.observe(["a", "b"], [[1, 1], [0, 0]])
        np.testing.assert_array_equal(agent.predict(["a", "b", "new"]), [1, 0, 0.5])
        assert list(agent.strategies) == ["mine", "default"]
        assert len(mine.predictor._average) == 0

    def test_equal_names_are_refused(self) -> None:
        with pytest.raises(InputError, match="MovingAverage"):
            vip(strategy=Strategy(MovingAverage()), shadow=[Strategy(MovingAverage())])


def test_max_rollouts_defaults_to_six_average_groups() -> None:
    agent = VIP(features=None, cache=None, strategy="oracle")
    agent.tell_oracle(PROMPTS, [0.5] + [0.0] * 11)
    counts = agent.allocate(PROMPTS, 48).counts
    assert counts[0] == 24
    assert counts[1:].sum() == 24


def test_settings_cannot_change_and_vip_objects_differ() -> None:
    agent = vip()
    with pytest.raises(AttributeError):
        agent.min_rollouts = 4
    assert agent != vip()
    assert {agent}


class TestPartsOfAPlan:
    """Dynamic sampling and lost groups would break the budget silently."""

    PROMPTS = ("a", "b", "c", "a")

    def planned(self) -> VIP:
        vip = VIP(features="none", cache=None)
        vip.allocate(list(self.PROMPTS), 16)
        return vip

    @pytest.mark.parametrize("given", [["a"], ["b", "c"], ["a", "a"], ["a", "a", "b", "c"]])
    def test_are_refused_and_teach_nothing(self, given):
        vip = self.planned()
        with pytest.raises(InputError):
            vip.observe(given, [[1.0, 0.0]] * len(given))
        assert len(vip.strategies["default"].predictor._steps._filters) == 0
        vip.observe(list(self.PROMPTS), [[1.0] * n for n in self.counts(vip)])

    @pytest.mark.parametrize("given", [["d"], ["a", "d"], ["b", "b"], []])
    def test_other_prompts_are_welcome(self, given):
        self.planned().observe(given, [[1.0, 0.0]] * len(given))

    def test_a_lost_group_is_none(self):
        vip = self.planned()
        lost = [[1.0] * n if i else [None] * n for i, n in enumerate(self.counts(vip))]
        assert vip.observe(list(self.PROMPTS), lost).rollouts.tolist()[0] == 0

    def counts(self, vip: VIP):
        return next(iter(vip._pending._plans.values())).counts


def test_no_histories_teach_nothing() -> None:
    VIP(features="none", cache=None).observe_histories([])


@pytest.mark.parametrize("waves", [np.zeros(0), Decimal("sNaN"), "2", True, 3])
def test_waves_are_one_or_two(waves) -> None:
    with pytest.raises(InputError, match="waves"):
        VIP(features="none", cache=None).allocate(["a"], 4, waves=waves)


def test_a_ragged_entry_of_a_state_is_named() -> None:
    with pytest.raises(StateError, match="'counts'"):
        array_entry({"counts": [[1], [1, 2]]}, "counts", None)
