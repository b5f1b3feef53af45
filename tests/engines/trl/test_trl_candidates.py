"""Prompts chosen from more candidates, and baselines shrunk towards expected rewards, in the steps that TRL makes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from trl_runs import KINDS, C, N, build, distance, independent_advantages, trained, watched, weights

import tiny
from viprl import VIP, metrics
from viprl.advantages import RewardPrior
from viprl.engines.planned_batch import PlannedBatch
from viprl.engines.trl.ragged_advantages import EPSILON, rloo_advantages
from viprl.engines.trl.trainer_configs import check_given_vip
from viprl.errors import InputError
from viprl.metrics import PREFIX
from viprl.prompts import text

SCALE = {"rloo": 1.0, "grpo": 1 - 1 / N}
"""Of the advantages, relative to reward minus the mean of the others."""
Q = C // N


class Planning(VIP):
    """Keeps its plans: prompts that were offered, and what `select` or `allocate` returned."""

    def allocate(self, prompts, budget, **more):
        return self._kept(prompts, super().allocate(prompts, budget, **more))

    def select(self, candidates, budget, size, **more):
        return self._kept(candidates, super().select(candidates, budget, size, **more))

    def _kept(self, offered, plan):
        self.plans = [*getattr(self, "plans", []), (list(map(text, offered)), plan)]
        return plan


def knowing(**options) -> Planning:
    """Knows that prompts differ much, so that inclusion probabilities and counts do too."""
    vip = Planning(strategy="oracle", features="none", **options)
    prompts = tiny.dataset(64)["prompt"]
    vip.tell_oracle(prompts, np.linspace(0, 1, len(prompts)) ** 4)
    return vip


def same(given, expected) -> bool:
    """Equal up to the order of the rows, which TRL shuffles."""
    return np.allclose(sorted(given), sorted(expected), atol=1e-6)


def by_prompt(factors, counts) -> np.ndarray:
    return np.concatenate([[factor] * n for factor, n in zip(factors, counts, strict=True)])


@pytest.mark.parametrize(
    ("kind", "k", "more"),
    [
        ("rloo", 2, {}),
        ("grpo", 4, {"loss_type": "grpo"}),
        ("rloo", 2, {"vip_prompt_weighting": "rollout"}),
        ("grpo", 2, {"vip_unbiased": False}),
    ],
)
def test_selected_prompts_reach_the_loss_with_their_weights(kind, k, more, tmp_path):
    """Only the sampled prompts are seen by reward functions, listeners and the loss."""
    groups = []

    def reward(vip_group, vip_rollouts, **given):
        prompts = [
            sorted({p for p, own in zip(given["prompts"], vip_group, strict=True) if own == q}) for q in range(Q)
        ]
        groups.append((prompts, [vip_group.count(group) for group in range(Q)]))
        assert vip_rollouts == [vip_group.count(group) for group in vip_group]
        return tiny.contains(**given)

    vip = knowing(max_rollouts=7)
    batches, losses = trained(
        kind, tmp_path, reward=reward, data=tiny.dataset(64), vip=vip, vip_candidates=k, max_steps=4, **more
    )
    assert len({tuple(np.round(batch.weights, 3)) for batch in batches}) == (4 if more.get("vip_unbiased", True) else 1)
    assert len({prompt for offered, _ in vip.plans for prompt in offered}) == 4 * k * Q, "a prompt is offered once"
    for batch, advantages, seen, (offered, plan) in zip(batches, losses, groups, vip.plans, strict=True):
        assert len(offered) == k * Q and len(plan.positions) == Q
        assert batch.prompts == [offered[i] for i in plan.positions]
        assert seen == ([[prompt] for prompt in batch.prompts], batch.counts)
        assert batch.counts == [len(group) for group in batch.rewards]
        assert sum(batch.counts) == C and min(batch.counts) >= 2 and max(batch.counts) <= 7
        # the sum over sampled prompts of g/pi estimates that over all k Q, so a mean over the Q sampled has Q/(k Q pi)
        factors = 1 / (k * plan.inclusion[plan.positions]) if more.get("vip_unbiased", True) else np.ones(Q)
        plain = independent_advantages(batch.rewards, True, more.get("vip_prompt_weighting") != "rollout")
        assert same(advantages, SCALE[kind] * np.array(plain) * by_prompt(factors, batch.counts))


@pytest.mark.parametrize(
    ("kind", "accumulation", "per_generation", "iterations", "streamed"),
    [("rloo", 2, 4, 2, False), ("grpo", 4, 2, 1, False), ("grpo", 1, 2, 2, True)],
)
def test_batches_for_several_steps(kind, accumulation, per_generation, iterations, streamed, tmp_path):
    generations, share = 2, 8
    data = tiny.dataset(64).to_iterable_dataset() if streamed else tiny.dataset(64)
    batches, losses = trained(
        kind, tmp_path, data=data, vip=knowing(), vip_candidates=2,
        per_device_train_batch_size=share, gradient_accumulation_steps=accumulation,
        steps_per_generation=per_generation, num_iterations=iterations,
        max_steps=generations * per_generation * iterations // accumulation,
    )  # fmt: skip
    assert [sum(batch.counts) for batch in batches] == [share * per_generation] * generations
    expected = np.concatenate(
        [
            np.array(independent_advantages(batch.rewards, True, True)) * by_prompt(batch.weights, batch.counts)
            for batch in batches
        ]
        * iterations
    )
    assert same([a for loss in losses for a in loss], SCALE[kind] * expected)


@pytest.mark.parametrize("streamed", [False, True])
def test_an_epoch_has_fewer_steps(streamed, tmp_path):
    """17 prompts, of which 8 are offered at a time."""
    data = tiny.dataset(17).to_iterable_dataset() if streamed else tiny.dataset(17)
    length = {"max_steps": 4} if streamed else {"max_steps": -1, "num_train_epochs": 2}
    vip = knowing()
    trainer = build("rloo", tmp_path, data=data, vip=vip, vip_candidates=2, **length)
    batches, _ = watched(trainer)
    trainer.train()
    assert len(batches) == trainer.state.global_step == 4
    for epoch in (vip.plans[:2], vip.plans[2:]):
        assert len({prompt for offered, _ in epoch for prompt in offered}) == 16


def test_one_candidate_is_the_allocation_of_before(tmp_path):
    vip = knowing()
    vip.select = None
    batches, losses = trained("rloo", tmp_path, vip=vip)
    for batch, advantages in zip(batches, losses, strict=True):
        assert batch.weights.tolist() == [1.0] * Q
        assert same(advantages, independent_advantages(batch.rewards, True, True))


@pytest.mark.parametrize(("stop", "streamed"), [(3, False), (1, True)])
def test_resume_mid_run_and_past_an_epoch(stop, streamed, tmp_path):
    """An epoch has 2 steps."""

    def run(folder, **more):
        data = tiny.dataset(16).to_iterable_dataset() if streamed else tiny.dataset(16)
        options = {"vip_candidates": 2, "vip_baseline": "expected", "vip_strategy": "default", "max_steps": 5} | more
        return build("rloo", tmp_path / folder, data=data, **options)

    whole = run("whole", save_strategy="steps", save_steps=stop)
    batches, _ = watched(whole)
    whole.train()
    second = run("second")
    later, _ = watched(second)
    second.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{stop}"))
    assert [(b.prompts, b.counts) for b in later] == [(b.prompts, b.counts) for b in batches[stop:]]
    for now, then in zip(later, batches[stop:], strict=True):
        assert np.array_equal(now.weights, then.weights) and np.allclose(now.advantages, then.advantages)
    assert distance(weights(whole), weights(second)) < 1e-6


def unsteady(completions, completion_ids, solution, **_):
    """Not 0/1, and sometimes None."""
    right = tiny.contains(None, completions, solution)
    return [None if len(ids) % 4 == 0 else 2 * r - 0.5 for r, ids in zip(right, completion_ids, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 2])
def test_baselines_shrunk_towards_expected_rewards(kind, k, tmp_path):
    vip = Planning(features="none", baseline="expected")
    options = {"vip_baseline": "expected", "vip_candidates": k, "max_steps": 6, "max_completion_length": 5}
    trainer = build(kind, tmp_path, reward=unsteady, vip=vip, **options)
    batches, losses = watched(trainer)
    trainer.train()
    shrunk, unscorable = 0, 0
    for batch, given, (_, plan) in zip(batches, losses, vip.plans, strict=True):
        plan = plan if k == 1 else plan.allocation
        factors = np.ones(Q) if k == 1 else batch.weights
        priors = [(0.0, 0.0)] * Q if plan.prior is None else zip(plan.prior.mean, plan.prior.rollouts, strict=True)
        expected = []
        for group, factor, (mean, worth) in zip(batch.rewards, factors, priors, strict=True):
            known = [r for r in group if not math.isnan(r)]
            unscorable += len(group) - len(known)
            for r in group:
                others = worth + len(known) - 1
                left_out = math.isnan(r) or others == 0
                advantage = 0.0 if left_out else r - (worth * mean + sum(known) - r) / others
                expected.append(SCALE[kind] * advantage * factor * N / len(group))
        assert same(given, expected)
        plain = independent_advantages(batch.rewards, True, True)
        shrunk += not same(given, SCALE[kind] * np.array(plain) * by_prompt(factors, batch.counts))
    assert shrunk == 5, "all but the first step, before which nothing is known"
    assert unscorable > 0
    rows = [row for row in trainer.state.log_history if PREFIX + metrics.COUNTS_MEAN in row]
    assert [PREFIX + metrics.SHRINKAGE in row for row in rows] == [False, *[True] * 5]


def test_what_is_logged(tmp_path, capsys):
    trainer = build("grpo", tmp_path, vip=knowing(), vip_candidates=2, log_completions=True, max_steps=2)
    batches, _ = watched(trainer)
    trainer.train()
    rows = [row for row in trainer.state.log_history if PREFIX + metrics.COUNTS_MEAN in row]
    for row, batch in zip(rows, batches, strict=True):
        assert all(math.isfinite(value) for value in row.values())
        squares = (batch.weights**2).mean()
        assert row[PREFIX + metrics.SQUARED_WEIGHTS] == pytest.approx(squares)
        assert row[PREFIX + metrics.EFFECTIVE_PROMPTS] == pytest.approx(Q * batch.weights.mean() ** 2 / squares)
    assert [row[PREFIX + metrics.NEGLECTED] for row in rows] == [0.5, 0.5]
    import pandas as pd

    table = pd.read_parquet(sorted((tmp_path / "completions").glob("*.parquet"))[0])
    assert table["vip_rollouts"].tolist() == [n for n in batches[0].counts for _ in range(n)]
    assert table["advantage"].tolist() == pytest.approx(batches[0].advantages.tolist(), abs=1e-6)


def test_a_vip_that_is_given_has_the_baseline_of_the_config(tmp_path):
    with pytest.raises(InputError, match=r"vip_baseline is 'expected'.*baseline='group'"):
        build("rloo", tmp_path, vip=knowing(), vip_baseline="expected")


def test_a_baseline_without_effect_causes_a_warning(tmp_path, caplog):
    with caplog.at_level("WARNING", logger="viprl.engines"):
        trained("rloo", tmp_path, vip_baseline="expected", vip_strategy="uniform", max_steps=4)
    assert [record.name for record in caplog.records] == ["viprl.engines.trl.run_report"]
    caplog.clear()
    for baseline in ("expected", "group"):
        trainer = build("rloo", tmp_path, vip_baseline=baseline, vip_strategy="default", max_steps=2)
        with caplog.at_level("WARNING", logger="viprl.engines"):
            trainer.train()
        shown = PREFIX + metrics.SHRINKAGE in trainer.state.log_history[1]
        assert not caplog.records and shown == (baseline == "expected")


def test_standardised_advantages_have_a_prior_as_baseline():
    """A lone scorable rollout has an advantage if something is expected of its prompt."""
    rewards = np.array([1.0, np.nan, 1.0, 0.0, 0.5, np.nan])
    prior = RewardPrior(np.array([0.5, 0.0, 0.5]), np.array([3.0, 1.0, 0.0]))
    found = rloo_advantages(rewards, PlannedBatch([], np.array([2, 2, 2]), np.ones(3), prior=prior), normalize=True)
    assert found[[1, 4, 5]].tolist() == [0.0, 0.0, 0.0]
    plain = np.array([0.5, 1.0, -0.5])  # 1 - .5, 1 - (0 + 0)/2, 0 - (0 + 1)/2
    assert found[[0, 2, 3]] == pytest.approx((plain - plain.mean()) / (plain.std(ddof=1) + EPSILON))


@pytest.mark.parametrize(
    ("kind", "given", "named"),
    [
        ("rloo", {"vip_candidates": 3}, "vip_candidates=3.*num_generations=4"),
        ("grpo", {"vip_candidates": 8}, "vip_candidates=8.*num_generations=4"),
        ("rloo", {"vip_candidates": 0}, "^vip_candidates is 0"),
        ("rloo", {"vip_candidates": 1.5}, "^vip_candidates is 1.5"),
        ("rloo", {"vip_candidates": True}, "^vip_candidates is True"),
        ("rloo", {"vip_baseline": "mean"}, "^vip_baseline is 'mean'"),
        ("grpo", {"vip_baseline": "expected", "vip_strategy": "paper"}, "vip_estimator is 'dr_grpo'"),
        ("grpo", {"vip_baseline": "expected", "scale_rewards": "group"}, "vip_estimator is 'grpo'"),
        ("rloo", {"vip_baseline": "expected", "beta": 0.05}, "beta=0.05"),
        ("rloo", {"vip_baseline": "expected", "reward_clip_range": (-1.0, 1.0)}, "reward_clip_range"),
        ("rloo", {"vip_candidates": 4, "vip_min_rollouts": 5}, "vip_min_rollouts=5"),
    ],
)
def test_options_that_cannot_work(kind, given, named, tmp_path):
    with pytest.raises(InputError, match=named):
        build(kind, tmp_path, **given)


def test_the_data_must_have_as_many_prompts_as_are_offered(tmp_path):
    with pytest.raises(InputError, match=r"15 prompts.* 16 .*vip_candidates=4"):
        build("rloo", tmp_path, data=tiny.dataset(15), vip_candidates=4)
    assert build("rloo", tmp_path, data=tiny.dataset(16), vip_candidates=4).args.vip_offered == 16


def test_one_prompt_of_several_candidates_is_a_choice(tmp_path, caplog):
    with caplog.at_level("WARNING", logger="viprl.engines"):
        batches, _ = trained("rloo", tmp_path, vip=knowing(), vip_candidates=2, per_device_train_batch_size=N)
    assert not [record for record in caplog.records if record.name != check_given_vip.__module__]
    assert [batch.counts for batch in batches] == [[N]] * 3
