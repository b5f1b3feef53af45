"""Steps of two waves: rows, rewards and advantages of the whole batch, its budget, and what is logged about it."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from saving import Gradients, token_logprobs
from trl_runs import build, distance, on_loss, watched, weights
from waves import (
    SCALE,
    C,
    N,
    Q,
    Seen,
    build_waves,
    by_prompt,
    data,
    expected_advantages,
    rows_of,
    sampled_logprobs,
    taught,
)

import tiny
from viprl import VIP, metrics
from viprl.engines.trl import VIPGRPOConfig, VIPRLOOConfig
from viprl.engines.trl.trainer_configs import check_given_vip
from viprl.errors import InputError
from viprl.metrics import PREFIX
from viprl.runs.engine_logs import read_history

STEPS = {"per_device_train_batch_size": C // 4, "gradient_accumulation_steps": 2, "steps_per_generation": 4}


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("rloo", {}),
        ("rloo", {**STEPS, "max_steps": 4}),
        ("rloo", {"vip_candidates": 2, "max_steps": 1}),
        ("grpo", {**STEPS, "max_steps": 4, "vip_use_logprobs": False}),
        ("grpo", {"vip_candidates": 2, "vip_baseline": "expected", "loss_type": "grpo", "max_steps": 1}),
        ("grpo", {**STEPS, "loss_type": "dapo", "pad_to_multiple_of": 4, "num_iterations": 2, "max_steps": 4}),
    ],
)
def test_each_row_has_its_own_tokens_and_the_advantage_of_both_waves(kind, more, tmp_path):
    seen, vip, rows = Seen(), taught(baseline=more.get("vip_baseline", "group")), []

    def look(_, inputs):
        rows.append((rows_of(inputs), inputs["advantages"].tolist(), sampled_logprobs(inputs)))

    trainer = build_waves(kind, tmp_path, seen=seen, vip=vip, **more)
    on_loss(trainer, look)
    batches, _ = watched(trainer)
    trainer.train()
    assert len(seen.batches) == len(vip.looks) == len(batches) > 0
    per_batch, model = len(rows) // len(batches), trainer.model
    for at, (calls, looks, batch) in enumerate(zip(seen.batches, vip.looks, batches, strict=True)):
        together = [one for call in calls for one in call]
        groups = by_prompt(together)
        assert len(calls) == 2 and len(together) == C and len(groups) == len(batch.prompts) == Q
        assert batch.counts == [len(groups[prompt]) for prompt in batch.prompts] and len(set(batch.counts)) > 1
        assert batch.rewards == [groups[prompt] for prompt in batch.prompts]
        expected = expected_advantages(calls, looks)
        scaled = [SCALE[kind] * expected[p, r] for p in batch.prompts for r in groups[p]]
        assert batch.advantages == pytest.approx(scaled)
        assert any(abs(a) > 0.01 for a in scaled)
        mine = rows[at * per_batch : (at + 1) * per_batch]
        found = [one for part in mine for one in zip(*part, strict=True)]
        times = more.get("num_iterations", 1)
        assert Counter(rollout for rollout, *_ in found) == Counter(
            {k: v * times for k, v in Counter(together).items()}
        )
        for i, ((prompt, ids, reward), advantage, logp) in enumerate(found):
            weight = looks[prompt][3] * N / len(groups[prompt])
            assert advantage == pytest.approx(SCALE[kind] * weight * expected[prompt, reward], abs=1e-5)
            if logp is not None and i % 4 == 0:
                assert logp == pytest.approx(token_logprobs(model, prompt, list(ids)).sum().item(), abs=1e-3)
    assert all((logp is None) == (kind == "grpo" and "steps_per_generation" not in more) for *_, logp in found)


@pytest.mark.parametrize(
    ("kind", "loss", "spent"),
    [
        ("rloo", None, {}),
        ("rloo", None, {"spend": "match", "variance_target": 1.5}),
        ("grpo", "grpo", {"spend": "match", "cost": "tokens", "variance_target": 1.5}),
    ],
)
def test_the_gradient_is_that_of_the_rollouts(kind, loss, spent, tmp_path):
    """Also of fewer rollouts than the budget, in micro-batches of different sizes."""
    seen, vip, gradients = Seen(), taught(**spent), Gradients()
    more = ({} if loss is None else {"loss_type": loss}) | {f"vip_{name}": value for name, value in spent.items()}
    more |= {**STEPS, "gradient_accumulation_steps": 4, "max_steps": 1, "max_grad_norm": 1e9}
    trainer = build_waves(kind, tmp_path, seen=seen, vip=vip, data=data(32), **more)
    trainer.add_callback(gradients)
    trainer.train()
    model, (calls,), (looks,) = tiny.model(), seen.batches, vip.looks
    rollouts = [one for call in calls for one in call]
    assert len(calls) == 2 and (len(rollouts) < C) == bool(spent)
    groups, advantages, value = by_prompt(rollouts), expected_advantages(calls, looks), torch.zeros(())
    for prompt, ids, reward in rollouts:
        logps = token_logprobs(model, prompt, list(ids))
        weight = SCALE[kind] * advantages[prompt, reward] / len(groups[prompt]) / Q
        value = value - weight * (logps.sum() if loss is None else logps.mean())
    value.backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert expected.abs().max() > 1e-3
    assert torch.allclose(gradients.seen[0], expected, atol=2e-6)


def test_reward_functions_know_the_wave_and_what_is_planned_so_far(tmp_path):
    seen = Seen()
    trainer = build_waves("rloo", tmp_path, seen=seen)
    batches, _ = watched(trainer)
    trainer.train()
    assert len(seen.arguments) == 4
    for at, batch in enumerate(batches):
        first, second = seen.arguments[2 * at : 2 * at + 2]
        before = Counter(first[0])
        assert first[1] == [before[group] for group in first[0]] and set(first[2]) == {1}
        assert second[1] == [batch.counts[group] for group in second[0]] and set(second[2]) == {2}
        for (groups, *_), call in zip((first, second), seen.calls[2 * at : 2 * at + 2], strict=True):
            assert [batch.prompts[group] for group in groups] == [prompt for prompt, *_ in call]


class Extra(Seen):
    """Logs a column in the second wave alone, and a metric in both."""

    def reward(self, log_extra, log_metric, **given):
        rewards = super().reward(**given)
        log_extra("answer", [str(one) for one in given["completion_ids"]])
        if given["vip_wave"][0] == 2:
            log_extra("later", rewards)
        log_metric("own", float(given["vip_wave"][0]))
        return rewards


def test_a_batch_is_logged_once(tmp_path):
    import pandas as pd

    seen = Extra()
    trainer = build_waves("grpo", tmp_path, seen=seen, log_completions=True, num_completions_to_print=1)
    batches, _ = watched(trainer)
    trainer.train()
    logged = [row for row in trainer.state.log_history if "reward" in row]
    tables = [pd.read_parquet(file) for file in sorted((tmp_path / "completions").glob("*.parquet"))]
    tokens = 0
    for row, table, batch, calls in zip(logged, tables, batches, seen.batches, strict=True):
        rollouts = [one for call in calls for one in call]
        lengths = np.array([len(ids) for _, ids, _ in rollouts])
        ended = np.array([ids[-1] in (0, 1) for _, ids, _ in rollouts])
        rewards = np.array([reward for *_, reward in rollouts])
        tokens += lengths.sum() + sum(len(prompt.split()) for prompt, *_ in rollouts)
        expected = {
            "num_tokens": tokens, "completions/mean_length": lengths.mean(), "completions/min_length": lengths.min(),
            "completions/max_length": lengths.max(), "completions/clipped_ratio": 1 - ended.mean(),
            "completions/mean_terminated_length": lengths[ended].mean(),
            "completions/min_terminated_length": lengths[ended].min(),
            "completions/max_terminated_length": lengths[ended].max(),
            "reward": rewards.mean(), "reward_std": rewards.std(ddof=1), "rewards/reward/mean": rewards.mean(),
            "rewards/reward/std": rewards.std(ddof=1), "own": (len(calls[0]) + 2 * len(calls[1])) / C,
            "frac_reward_zero_std": sum(len(g) for g in batch.rewards if len(set(g)) == 1) / C,
            PREFIX + metrics.COUNTS_MEAN: N, PREFIX + metrics.COUNTS_MAX: max(batch.counts),
        }  # fmt: skip
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-5)
        # prompt by prompt, the first wave of each first
        waves = [[[one for one in call if one[0] == prompt] for call in calls] for prompt in batch.prompts]
        ordered = [one for both in waves for call in both for one in call]
        assert table["prompt"].tolist() == [prompt for prompt, *_ in ordered]
        assert table["answer"].tolist() == [str(list(ids)) for _, ids, _ in ordered]
        assert table["reward"].tolist() == [reward for *_, reward in ordered]
        assert table["vip_rollouts"].tolist() == [n for n in batch.counts for _ in range(n)]
        assert table["vip_wave"].tolist() == [w + 1 for both in waves for w in (0, 1) for _ in both[w]]
        assert table["advantage"].tolist() == pytest.approx(batch.advantages.tolist())
        later = table["later"][table["vip_wave"] == 2]
        assert later.tolist() == table["reward"][table["vip_wave"] == 2].tolist()
        assert table["later"][table["vip_wave"] == 1].isna().all()


def test_several_batches_are_logged_together(tmp_path):
    """The number of tokens is that since the start, the others are means over the batches."""
    seen = Seen()
    trainer = build_waves("rloo", tmp_path, seen=seen, logging_steps=2)
    trainer.train()
    (row,) = [row for row in trainer.state.log_history if "reward" in row]
    tokens = sum(len(ids) + len(prompt.split()) for call in seen.calls for prompt, ids, _ in call)
    means = [np.mean([r for call in batch for *_, r in call]) for batch in seen.batches]
    assert (row["num_tokens"], row["reward"]) == (tokens, pytest.approx(np.mean(means)))


@pytest.mark.parametrize("known", [False, True])
def test_a_batch_of_one_wave_is_as_without_waves(known, tmp_path):
    """A strategy without a belief plans none, and where most prompts can be solved two do not pay."""
    ends = []
    for waves in (1, 2):
        vip = VIP(strategy="default" if known else "random", features=None, min_rollouts=2, max_rollouts=24)
        vip.observe([f"other {i}" for i in range(200)], [[1.0, 0.0] * 4] * 200)
        trainer = build("rloo", tmp_path / str(waves), vip=vip, beta=0.0, vip_waves=waves)
        batches, losses = watched(trainer)
        trainer.train()
        logs = [
            {name: value for name, value in row.items() if not any(x in name for x in ("time", "second", "waves"))}
            for row in trainer.state.log_history
        ]
        ends.append((weights(trainer), [(b.prompts, b.counts, b.rewards) for b in batches], losses, logs))
    assert ends[0][1:] == ends[1][1:] and distance(ends[0][0], ends[1][0]) == 0
    assert [row["vip/waves/second_wave"] for row in trainer.state.log_history if "reward" in row] == [0.0] * 3


def test_a_second_wave_may_have_no_rollouts(tmp_path):
    """Where a variance is matched, and the first wave has shown that nothing can be learned."""
    import pandas as pd

    calls = []

    def reward(prompts, vip_wave, **_):
        calls.append(vip_wave)
        return [0.0] * len(prompts)

    more = {"vip_spend": "match", "log_completions": True, "num_completions_to_print": 1, "max_steps": 1}
    trainer = build_waves("grpo", tmp_path, seen=Seen(), vip=taught(spend="match"), reward=reward, **more)
    batches, losses = watched(trainer)
    trainer.train()
    (batch,), (wave,), (loss,) = batches, calls, losses
    assert set(wave) == {1} and sum(batch.counts) == len(wave) == len(loss) < C and set(loss) == {0.0}
    assert len(trainer.vip.looks) == 1
    table = pd.read_parquet(next((tmp_path / "completions").glob("*.parquet")))
    assert table["vip_rollouts"].tolist() == [n for n in batch.counts for _ in range(n)]
    assert sum(history.rollouts.sum() for history in read_history(tmp_path)) == len(wave), "the log can be replayed"


def test_a_resumed_run_has_the_same_waves(tmp_path):
    def run(**more):
        return build_waves("rloo", tmp_path / "run", seen=Seen(), max_steps=3, learning_rate=1e-2, **more)

    whole = run(save_strategy="steps", save_steps=2)
    batches, _ = watched(whole)
    whole.train()
    second = run(vip=taught(seed=5))
    later, _ = watched(second)
    second.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    (last,), (again,) = batches[2:], later
    assert (again.prompts, again.counts, again.rewards) == (last.prompts, last.counts, last.rewards)
    assert distance(weights(whole), weights(second)) < 1e-6


def test_rewards_that_cannot_be_scored(tmp_path):
    """They are not marked, have no advantage, and are counted once."""
    calls = []

    def reward(prompts, completion_ids, vip_wave, **_):
        given = [solved_or_not(prompt, ids) for prompt, ids in zip(prompts, completion_ids, strict=True)]
        calls.append((vip_wave[0], list(zip(prompts, given, strict=True))))
        return given

    vip = taught()
    trainer = build_waves("rloo", tmp_path, seen=Seen(), vip=vip, reward=reward, max_steps=1)
    batches, losses = watched(trainer)
    trainer.train()
    assert [wave for wave, _ in calls] == [1, 2] and len(losses[0]) == C and np.isfinite(losses[0]).all()
    (batch,) = batches
    given = [r for _, call in calls for _, r in call]
    lost = [r for r in given if r is None or math.isinf(r)]
    assert len(lost) > 3 and batch.advantages[np.isnan(np.concatenate(batch.rewards))].tolist() == [0.0] * len(lost)
    assert vip.unreadable_rewards == sum(r is not None for r in lost) > 0
    assert batch.observation.rollouts.sum() == C - len(lost)


def solved_or_not(prompt, ids):
    if len(ids) == 3:
        return None
    return math.inf if len(ids) == 4 and len(prompt.split()) == 2 else float(len(prompt.split()) == 2 and sum(ids) % 2)


@pytest.mark.parametrize(
    ("config", "given", "named"),
    [
        (VIPGRPOConfig, {"scale_rewards": "group"}, r"scale_rewards='none'.* 'group'.*vip_waves=1"),
        (VIPGRPOConfig, {"scale_rewards": True}, r"scale_rewards='none'.*vip_waves=1"),
        (VIPGRPOConfig, {"scale_rewards": "batch"}, r"scale_rewards='none'.*vip_waves=1"),
        (VIPGRPOConfig, {"vip_estimator": "dr_grpo"}, r"vip_estimator is 'dr_grpo'.*vip_estimator='rloo'"),
        (VIPGRPOConfig, {"vip_strategy": "paper"}, r"vip_strategy='paper'.*vip_estimator='rloo'"),
        (VIPGRPOConfig, {"vip_prompt_weighting": "rollout"}, r"vip_prompt_weighting='prompt'"),
        (VIPRLOOConfig, {"beta": 0.0, "normalize_advantages": True}, r"normalize_advantages=False"),
        (VIPRLOOConfig, {}, r"beta=0.0, but beta is 0.05 \(the default of TRL\)"),
        (VIPRLOOConfig, {"beta": 0.0, "reward_clip_range": (-1.0, 1.0)}, r"reward_clip_range=None"),
        (VIPRLOOConfig, {"beta": 0.0, "vip_waves": 3}, r"^vip_waves is 3; expected 1 or 2"),
    ],
)
def test_options_that_two_waves_cannot_have(config, given, named, tmp_path):
    with pytest.raises(InputError, match=named):
        config(output_dir=str(tmp_path), use_cpu=True, bf16=False, **{"vip_waves": 2, **given})


@pytest.mark.parametrize(("strategy", "warns"), [("default", False), ("uniform", True), ("beta", True)])
def test_waves_without_effect_cause_a_warning(strategy, warns, caplog, tmp_path):
    config = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "beta": 0.0, "vip_strategy": strategy}
    vip = VIP(features=None, cache=None, strategy=strategy)
    for waves in (1, 2):
        check_given_vip(VIPRLOOConfig(**config, vip_waves=waves), vip)
    found = [record.getMessage() for record in caplog.records if "vip_waves=2" in record.getMessage()]
    assert len(found) == warns and all(strategy in line for line in found)
