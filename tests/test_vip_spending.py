"""VIP with a budget that need not be spent: what it saves, that it pays when predictions are wrong, that it resumes."""

from __future__ import annotations

import numpy as np
import pytest

from viprl import VIP, Strategy
from viprl.errors import InputError
from viprl.predictors.base import Prediction, Predictor

Q, C = 32, 256
PROMPTS = tuple(f"question {q}" for q in range(4 * Q))
CHANCE = np.where(np.arange(4 * Q) % 4 == 0, 0.5, np.where(np.arange(4 * Q) % 2 == 0, 0.01, 0.99))
"""A quarter of the prompts is live."""
TOKENS = np.where(CHANCE == 0.01, 300.0, 100.0)


class Fixed(Predictor):
    """Believes whatever it is told, for ever."""

    def __init__(self, belief: np.ndarray) -> None:
        self.belief = dict(zip(PROMPTS, belief, strict=True))
        self.seen: set[str] = set()

    def predict(self, batch) -> Prediction:
        return Prediction.of_points(np.array([self.belief[PROMPTS[self.position(key)]] for key in batch.keys]))

    @staticmethod
    def position(key: str) -> int:
        return int(key.removeprefix("id:"))

    def observe(self, batch, successes, rollouts) -> None:
        self.seen.update(batch.keys)

    def state_dict(self):
        return {"seen": sorted(self.seen)}

    def load_state_dict(self, state) -> None:
        self.seen = set(state["seen"])


def named(q: int) -> dict:
    return {"prompt": PROMPTS[q], "id": q}


def vip(**options) -> VIP:
    return VIP(**{"features": None, "cache": None, "min_rollouts": 2, "max_rollouts": 32, **options})


def epochs(agent: VIP, count: int, rng: np.random.Generator, chance: np.ndarray = CHANCE, **more):
    """Epochs of steps with Q prompts and at most C rollouts.

    Returns: [steps, 3] rollouts and tokens relative to uniform counts, and the true variance relative to theirs."""
    rows = []
    for _ in range(count):
        for at in rng.permutation(len(PROMPTS)).reshape(-1, Q):
            prompts = [named(q) for q in at]
            n = agent.allocate(prompts, C, **more).counts
            rewards = [(rng.random(k) < chance[q]).astype(float).tolist() for q, k in zip(at, n, strict=True)]
            lengths = [(TOKENS[q] * rng.lognormal(0, 0.2, k)).tolist() for q, k in zip(at, n, strict=True)]
            agent.observe(prompts, rewards, lengths=lengths)
            a = chance[at] * (1 - chance[at])
            true = a @ (1 / (n - 1)) / (a.sum() * Q / (C - Q))
            rows.append((n.sum() / C, TOKENS[at] @ n / (TOKENS[at].sum() * C / Q), true))
    return np.array(rows)


class TestMatch:
    def test_spends_everything_first_and_then_less_at_the_same_variance(self) -> None:
        agent = vip(spend="match")
        rows = epochs(agent, 6, np.random.default_rng(0))
        assert (rows[:4, 0] == 1).all()
        assert rows[-8:, 0].mean() < 0.72
        assert rows[4:, 2].mean() < 1.05
        metrics = agent.metrics()
        assert metrics["spending/rollouts"] == pytest.approx(rows[-1, 0] * C)
        assert metrics["spending/rollouts_saved"] == pytest.approx(1 - rows[-1, 0])
        assert 0.5 < metrics["spending/aim"] < 1.25 and "spending/drift" not in metrics

    def test_the_target(self) -> None:
        spent = [
            epochs(vip(spend="match", variance_target=target), 5, np.random.default_rng(0))[-8:, [0, 2]].mean(axis=0)
            for target in (0.8, 1.3)
        ]
        assert spent[0][0] > spent[1][0] + 0.05
        assert spent[0][1] == pytest.approx(0.8, abs=0.15) and spent[1][1] == pytest.approx(1.3, abs=0.25)

    def test_without_a_guard_wrong_predictions_are_paid_for(self) -> None:
        """It believes for ever that dead prompts live and the reverse; a quarter of them is right."""
        belief = np.where(CHANCE == 0.5, 0.02, np.where(np.arange(4 * Q) % 2 == 0, 0.5, 0.02))
        belief[:32] = CHANCE[:32]
        agent = vip(spend="match", strategy=Strategy(Fixed(belief), name="wrong"))
        rows = epochs(agent, 12, np.random.default_rng(1))
        assert rows[0, 0] < 0.75 and rows[0, 2] > 1.2
        assert rows[-8:, 0].mean() > 0.97
        assert rows[-8:, 2].mean() < rows[:4, 2].mean()

    def test_right_predictions_save_at_once(self) -> None:
        agent = vip(spend="match", strategy=Strategy(Fixed(CHANCE), name="right"))
        rows = epochs(agent, 4, np.random.default_rng(1))
        assert rows[:, 0].mean() < 0.66 and rows[:, 2].mean() == pytest.approx(1.0, abs=0.06)

    def test_uniform_spends_everything(self) -> None:
        rows = epochs(vip(spend="match", strategy="uniform"), 3, np.random.default_rng(0))
        assert (rows[:, 0] == 1).all()

    @pytest.mark.parametrize("multiple", [1, 8])
    def test_multiples(self, multiple: int) -> None:
        agent = vip(spend="match")
        rows = epochs(agent, 3, np.random.default_rng(0), multiple=multiple)
        assert (np.rint(rows[:, 0] * C) % multiple == 0).all() and rows[-1, 0] < 0.9

    def test_shadows_save_too(self) -> None:
        agent = vip(spend="match", shadow=["uniform", "learned_beta"])
        epochs(agent, 3, np.random.default_rng(0))
        assert agent.metrics()["shadow/uniform/running"] == pytest.approx(1.0)
        assert agent.metrics()["shadow/learned_beta/running"] > agent.metrics()["shadow/uniform/running"] * 0.7

    @pytest.mark.parametrize("estimator", ["rloo", "dr_grpo"])
    def test_estimators(self, estimator: str) -> None:
        agent = vip(spend="match", estimator=estimator, min_rollouts=3)
        assert epochs(agent, 4, np.random.default_rng(0))[-4:, 0].mean() < 0.8

    def test_expected_baselines_save_more(self) -> None:
        spent = [
            epochs(vip(spend="match", baseline=baseline), 5, np.random.default_rng(0))[-8:, 0].mean()
            for baseline in ("group", "expected")
        ]
        assert spent[1] < spent[0] - 0.02


class TestSelection:
    def test_fewer_rollouts_of_the_selected_prompts(self) -> None:
        agent, rng, spent = vip(spend="match", baseline="expected"), np.random.default_rng(0), []
        for step in range(24):
            at = rng.permutation(len(PROMPTS))[: 2 * Q]
            found = agent.select([named(q) for q in at], C, Q)
            sampled = at[found.positions]
            n = found.allocation.counts
            rewards = [(rng.random(k) < CHANCE[q]).astype(float).tolist() for q, k in zip(sampled, n, strict=True)]
            agent.observe([named(q) for q in sampled], rewards)
            spent.append(n.sum() / C)
            assert n.min() >= 2 and n.sum() <= C, step
        assert spent[0] == 1 and np.mean(spent[-8:]) < 0.6


class TestTokens:
    def test_match(self) -> None:
        agent = vip(spend="match", cost="tokens")
        rows = epochs(agent, 6, np.random.default_rng(0))
        assert rows[-8:, 1].mean() < 0.65 and rows[4:, 2].mean() < 1.05
        metrics = agent.metrics()
        assert metrics["spending/tokens_predicted"] == pytest.approx(metrics["spending/tokens"], rel=0.15)
        assert metrics["spending/tokens_saved"] == pytest.approx(1 - rows[-1, 1], abs=0.08)

    def test_limited(self) -> None:
        rows = epochs(vip(cost="tokens"), 5, np.random.default_rng(0))
        assert (rows[:, 0] <= 1).all() and rows[-8:, 1].max() < 1.05
        assert rows[-8:, 2].mean() < 0.7

    def test_tokens_are_metrics_without_the_option(self) -> None:
        agent = vip()
        epochs(agent, 2, np.random.default_rng(0))
        assert agent.metrics()["spending/tokens"] > 0 and "spending/rollouts" not in agent.metrics()

    def test_lengths_are_needed(self) -> None:
        agent = vip(cost="tokens")
        plan = agent.allocate(["a", "b"], 8)
        rewards = [[1.0] * n for n in plan.counts]
        for lengths in (None, [[5]], [[5] * n for n in plan.counts + 1], "12", [[-1] * n for n in plan.counts]):
            with pytest.raises(InputError):
                agent.observe(["a", "b"], rewards, lengths=lengths)
        agent.observe(
            ["a", "b"], rewards, lengths=[[None, float("nan"), 3, 7][:n] + [5] * (n - 4) for n in plan.counts]
        )
        assert agent.metrics()["spending/tokens"] > 0


@pytest.mark.parametrize("options", [
    {"spend": "match"}, {"spend": "match", "cost": "tokens"}, {"cost": "tokens"},
    {"spend": "match", "baseline": "expected", "variance_target": 1.2},
], ids=lambda options: "-".join(map(str, options.values())))  # fmt: skip
def test_resumed_runs_continue(options, tmp_path) -> None:
    one, rng = vip(**options), np.random.default_rng(0)
    epochs(one, 3, rng)
    one.save(tmp_path / "state")
    other, same = vip(**options), np.random.default_rng(5)
    other.load(tmp_path / "state")
    np.testing.assert_array_equal(epochs(one, 2, np.random.default_rng(5)), epochs(other, 2, same))


def test_a_state_without_lengths_starts_them_afresh() -> None:
    plain, tokens = vip(), vip(cost="tokens")
    epochs(plain, 2, np.random.default_rng(0))
    tokens.load_state_dict(plain.state_dict())
    epochs(tokens, 1, np.random.default_rng(1))
    plain.load_state_dict(tokens.state_dict())
    assert plain.allocate([named(0), named(1)], 8).counts.sum() == 8


@pytest.mark.parametrize("options", [
    {"spend": "all"}, {"cost": "dollars"}, {"variance_target": 0}, {"variance_target": "1"}, {"variance_target": -1.0},
    {"variance_target": 1.25}, {"spend": "match", "variance_target": 125}, {"variance_target": True},
    {"baseline": "none"}, {"baseline": "expected", "estimator": "dr_grpo"},
])  # fmt: skip
def test_options_that_do_not_exist(options) -> None:
    with pytest.raises(InputError):
        vip(**options)


@pytest.mark.parametrize("arguments", [
    {"budget": 64, "multiple": 3}, {"budget": 64, "multiple": 0}, {"budget": 64, "multiple": 1.5},
    {"average": 8, "multiple": 2}, {"average": 1}, {"average": 33}, {"average": float("inf")},
])  # fmt: skip
def test_arguments_that_contradict_each_other(arguments) -> None:
    with pytest.raises(InputError):
        vip().allocate([named(q) for q in range(4)], **arguments)
    with pytest.raises(InputError):
        vip(spend="match").allocate([named(q) for q in range(4)], average=8)


def test_an_average_of_tokens_is_met_when_lengths_become_known() -> None:
    agent, rng, spent = vip(cost="tokens"), np.random.default_rng(0), []
    for at in rng.permutation(len(PROMPTS)).reshape(-1, 2):
        n = agent.allocate([named(q) for q in at], average=8).counts
        rewards = [(rng.random(k) < CHANCE[q]).astype(float).tolist() for q, k in zip(at, n, strict=True)]
        agent.observe([named(q) for q in at], rewards, lengths=[[TOKENS[q]] * k for q, k in zip(at, n, strict=True)])
        spent.append(n.mean())
    assert np.mean(spent) == pytest.approx(8, abs=1.5)
    assert agent.metrics()["spending/tokens_predicted"] == pytest.approx(agent.metrics()["spending/tokens"], rel=0.8)


def test_dead_prompts_get_the_fewest_rollouts_at_a_price() -> None:
    agent, spent = vip(strategy="oracle"), []
    agent.tell_oracle([named(0), named(1)], [0.5, 0.0])
    for _ in range(150):
        counts = [int(agent.allocate([named(q)], average=8).counts[0]) for q in (0, 1)]
        for q in (0, 1):
            agent.observe([named(q)], [[0.0] * counts[q]])
        spent.append(counts)
    assert (np.array(spent)[:, 1] == 2).all() and np.mean(spent[-20:]) == pytest.approx(8, abs=1.5)


class TestRealised:
    def test_lost_rollouts_are_not_held_against_the_plan(self) -> None:
        spent = []
        for lost in (0.0, 0.4):
            agent, rng = vip(spend="match", baseline="expected"), np.random.default_rng(3)
            for _ in range(5):
                for at in rng.permutation(len(PROMPTS)).reshape(-1, Q):
                    n = agent.allocate([named(q) for q in at], C).counts
                    rewards = [
                        np.where(rng.random(k) < lost, np.nan, rng.random(k) < CHANCE[q]).tolist()
                        for q, k in zip(at, n, strict=True)
                    ]
                    agent.observe([named(q) for q in at], rewards)
            spent.append(n.sum() / C)
        assert spent[1] < spent[0] + 0.12

    def test_the_share_and_the_unit_of_shrunk_baselines(self) -> None:
        """Rewards of -3 and +5, and an expectation that is trusted by half."""
        agent, rng = vip(baseline="expected"), np.random.default_rng(4)
        keys, chance = [named(q) for q in range(8)], np.linspace(0.2, 0.8, 8)
        for _ in range(4):
            plan = agent.allocate(keys, 40)
            rewards = [np.where(rng.random(n) < p, 5.0, -3.0) for p, n in zip(chance, plan.counts, strict=True)]
            agent._memory.shrinkage._comparison._difference[1:] = [-9, 0, 0, 0]
            if plan.prior is not None:
                last = plan
            agent.observe(keys, [group.tolist() for group in rewards])
        used, values = last.prior, 0.0
        for q, group in enumerate(rewards):
            n, mu, kappa = len(group), used.mean[q], used.rollouts[q]
            baseline = (kappa * mu + group.sum() - group) / (kappa + n - 1)
            values += float(((group - baseline) ** 2).sum()) / n**2
        even = sum(np.var(group, ddof=1) / (5 - 1) for group in rewards)
        assert agent.metrics()["variance_ratio/realised"] == pytest.approx(values / even, rel=1e-9)

    def test_selection_without_weights_is_compared_with_chance_too(self) -> None:
        agent = vip(strategy="oracle")
        agent.tell_oracle([named(q) for q in range(64)], CHANCE[:64])
        found = [agent.select([named(q) for q in range(64)], 128, 16, unbiased=False).allocation for _ in range(1500)]
        a = (CHANCE * (1 - CHANCE))[:64]
        means = [one.uniform_variance for one in found]
        assert np.mean(means) == pytest.approx(16 / 64 * a.sum() / 7, abs=4 * np.std(means) / len(means) ** 0.5)

    def test_the_guards_mixture_is_what_is_matched(self) -> None:
        agent = vip(spend="match")
        epochs(agent, 3, np.random.default_rng(0))
        guard = agent.strategies["default"].guard
        guard._comparison._difference[:] = [0, -5, 0, 0, 0]
        plan = agent.allocate([named(q) for q in range(Q)], C)
        assert guard.choice == 1
        assert plan.variance_ratio == pytest.approx(agent._memory.spending.target.aim(1.0), rel=0.03)


def test_new_prompts_get_their_share_among_known_ones() -> None:
    agent = vip(spend="match")
    for _ in range(8):
        at = np.arange(Q)
        n = agent.allocate([named(q) for q in at], C).counts
        rng = np.random.default_rng(int(n.sum()))
        rewards = [(rng.random(k) < CHANCE[q]).astype(float).tolist() for q, k in zip(at, n, strict=True)]
        agent.observe([named(q) for q in at], rewards)
    mixed = [*range(Q // 2), *range(2 * Q, 2 * Q + Q // 2)]
    counts = agent.allocate([named(q) for q in mixed], C).counts
    assert counts[Q // 2 :].sum() == C // 2 and counts[: Q // 2].sum() < 0.9 * C / 2
