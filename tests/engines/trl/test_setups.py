"""Set-ups in which people use TRL's trainers, two steps each.

Whatever is set, a batch has its budget, everything that is trained on is finite, and the weights change.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import tiny_vision
import torch
from datasets import Dataset
from trl_runs import KINDS, C, N, build, distance, options, trained, watched, weights

import tiny
from viprl.metrics import EQUAL_REWARD_GROUPS, PREFIX, PROMPT_REWARD, SUCCESS_RATE, UNINFORMATIVE, ZERO_ADVANTAGE


def length(completions, **_):
    return [len(completion) / 10 for completion in completions]


def sometimes(completions, **_):
    return [None if i % 3 == 0 else 0.5 for i in range(len(completions))]


async def judge(completions, solution, **_):
    return tiny.contains(None, completions, solution)


class Grader:
    def __call__(self, completions, solution, **_):
        return tiny.contains(None, completions, solution)


def run(kind, folder, **more):
    """Two steps, checked; returns the trainer and its batches."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = build(kind, folder, **({"max_steps": 2} | more))
        before = weights(trainer)
        batches, losses = watched(trainer)
        trainer.train()
    assert batches and all(sum(batch.counts) == C for batch in batches)
    assert all(math.isfinite(advantage) for loss in losses for advantage in loss)
    after = weights(trainer)
    assert all(torch.isfinite(value).all() for value in after.values()) and distance(before, after) > 0
    return trainer, batches


REWARDS = {
    "several with weights": ([tiny.contains, length], {"reward_weights": [1.0, 0.1]}),
    "a weight of zero": ([tiny.contains, length], {"reward_weights": [1.0, 0.0]}),
    "one that returns None": ([tiny.contains, sometimes], {}),
    "async": (judge, {}),
    "async and not": ([judge, length], {}),
    "an object": (Grader(), {}),
    "partial credit": (length, {}),
    "with success named": ([tiny.contains, length], {"vip_success": "length>0.3"}),
}


@pytest.mark.parametrize("name", REWARDS)
@pytest.mark.parametrize("kind", KINDS)
def test_reward_functions(kind, name, tmp_path):
    """No option is needed. The total reward is what VIP learns from."""
    reward, more = REWARDS[name]
    _, batches = run(kind, tmp_path, reward=reward, **more)
    for batch in batches:
        seen = batch.observation
        assert seen.rollouts.sum() == C
        np.testing.assert_allclose(seen.reward_mean, [np.mean(group) for group in batch.rewards])
        assert (seen.successes[seen.judged > 0] <= seen.judged[seen.judged > 0]).all()


OPTIONS = {
    "grpo": [
        {"scale_rewards": "group"},
        {"scale_rewards": "batch"},
        {"loss_type": "dapo", "epsilon_high": 0.28, "mask_truncated_completions": True},
        {"beta": 0.1, "num_iterations": 2},
        {"importance_sampling_level": "sequence"},
        {"top_entropy_quantile": 0.5},
        {"delta": 2.0, "gradient_checkpointing": True},
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": C // 2, "steps_per_generation": 2},
        {"vip_prompt_weighting": "rollout", "temperature": 0.7, "top_k": 5},
        {"generation_batch_size": C, "per_device_train_batch_size": C // 4},
    ],
    "rloo": [
        {"beta": 0.1},
        {"beta": 0.1, "reward_clip_range": (-1.0, 0.5)},
        {"normalize_advantages": True},
        {"beta": 0.0, "num_iterations": 2, "mask_truncated_completions": True},
    ],
}


@pytest.mark.parametrize(("kind", "more"), [(kind, more) for kind in OPTIONS for more in OPTIONS[kind]])
def test_options_of_trl(kind, more, tmp_path):
    tiny.save(tmp_path / "start")  # RLOO and GRPO with beta load their reference model from where the model came
    run(kind, tmp_path / "run", trainer=from_folder(kind, tmp_path / "start"), **more)


def from_folder(kind, folder):
    """A trainer that loads its model from a folder."""

    class FromFolder(KINDS[kind][0]):
        def __init__(self, model, *args, **given):
            super().__init__(str(folder), *args, **given)

    return FromFolder


@pytest.mark.parametrize("success", [None, "judge-1b>0"])
def test_a_reward_model(success, tmp_path):
    from transformers import LlamaForSequenceClassification

    torch.manual_seed(1)
    config = tiny.model().config
    config.num_labels = 1
    judge_model = LlamaForSequenceClassification(config)
    judge_model.config._name_or_path = "org/judge-1b"
    extra = {"reward_processing_classes": [tiny.tokenizer(), None]}
    trainer, batches = run("grpo", tmp_path, reward=[judge_model, length], vip_success=success, extra=extra)
    assert trainer.reward_func_names == ["judge-1b", "length"]
    assert all((batch.observation.judged.sum() > 0) == (success is not None) for batch in batches)
    assert all(batch.observation.rollouts.sum() == C for batch in batches)


def test_lora(tmp_path):
    peft = pytest.importorskip("peft")
    adapter = peft.LoraConfig(target_modules=["q_proj", "v_proj"], r=2, init_lora_weights="gaussian")
    run("grpo", tmp_path, extra={"peft_config": adapter})


def test_evaluation_with_another_group_size_and_the_table_of_completions(tmp_path):
    import pandas as pd

    more = {"eval_strategy": "steps", "eval_steps": 1, "num_generations_eval": 2, "per_device_eval_batch_size": 8}
    held_out = tiny.dataset(24).select(range(16, 24))
    trainer, batches = run("grpo", tmp_path, log_completions=True, extra={"eval_dataset": held_out}, **more)
    planned = {prompt: n for batch in batches for prompt, n in zip(batch.prompts, batch.counts, strict=True)}
    for file in (tmp_path / "completions").glob("*.parquet"):
        table = pd.read_parquet(file)
        evaluated = table["prompt"].isin(held_out["prompt"])
        assert table["vip_rollouts"][evaluated].isna().all()
        trained_rows = table[~evaluated]
        assert (trained_rows["vip_rollouts"] == trained_rows["prompt"].map(planned)).all()
    assert any("eval_reward" in row for row in trainer.state.log_history)


@pytest.mark.parametrize("streamed", [False, True])
def test_pictures(streamed, tmp_path):
    """The same question about different pictures: different prompts."""

    def reward(completions, solution, **_):
        return [float(right in given[0]["content"].split()) for given, right in zip(completions, solution, strict=True)]

    data = tiny_vision.dataset()
    own = {"vip_features": "none", "vip_strategy": "random"}
    own |= {"generation_kwargs": {"suppress_tokens": [tiny_vision.IMAGE_TOKEN]}}  # an answer has no pictures
    args = KINDS["grpo"][1](**options(tmp_path, max_steps=2), **own)
    trainer = KINDS["grpo"][0](
        tiny_vision.model(), reward, args, train_dataset=data.to_iterable_dataset() if streamed else data,
        processing_class=tiny_vision.processor(),
    )  # fmt: skip
    batches, losses = watched(trainer)
    trainer.train()
    for batch in batches:
        assert sum(batch.counts) == C and len(set(batch.observation.keys)) == C // N
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [math.inf, -math.inf, 1e39, 3.3e38, 10**400])
def test_one_reward_that_cannot_be_trained_on(kind, bad, tmp_path, caplog):
    calls = []

    def reward(prompts, completions, solution, **_):
        calls.append(1)
        rewards = tiny.contains(prompts, completions, solution)
        return [bad, *rewards[1:]] if len(calls) == 2 else rewards

    trainer, batches = run(kind, tmp_path, reward=reward, reward_weights=[0.5])
    assert [batch.observation.rollouts.sum() for batch in batches] == [C, C - 1]
    assert trainer.vip.unreadable_rewards == 1 and "'reward'" in caplog.text
    numbers = [value for row in trainer.state.log_history for value in row.values() if isinstance(value, float)]
    assert np.isfinite(numbers).all(), "also what TRL logs"


def test_beyond_with_a_penalty_in_the_reward(tmp_path):
    tiny.save(tmp_path / "start")

    def reward(completions, **_):
        return [math.inf if i == 3 else float(i % 2) for i in range(len(completions))]

    more = {"beta": 0.1, "reward_clip_range": (-5.0, 5.0)}
    _, batches = run("rloo", tmp_path / "run", reward=reward, trainer=from_folder("rloo", tmp_path / "start"), **more)
    assert all(batch.observation.rollouts.sum() == C - 1 for batch in batches)


def test_metrics_count_prompts_and_advantages(tmp_path):
    """With another reward added, success is that of the one which `vip_success` names."""
    trainer, batches = run("grpo", tmp_path, reward=[tiny.contains, length], vip_success="contains")
    rows = [row for row in trainer.state.log_history if PREFIX + SUCCESS_RATE in row]
    for row, batch in zip(rows, batches, strict=True):
        rates = batch.observation.successes / batch.observation.rollouts
        assert row[PREFIX + SUCCESS_RATE] == pytest.approx(rates.mean())
        assert row[PREFIX + PROMPT_REWARD] == pytest.approx(np.mean([np.mean(group) for group in batch.rewards]))
        equal = [n for n, group in zip(batch.counts, batch.rewards, strict=True) if len(set(group)) == 1]
        assert row[PREFIX + UNINFORMATIVE] == pytest.approx(sum(equal) / C)
        assert row[PREFIX + ZERO_ADVANTAGE] == pytest.approx((batch.advantages == 0).mean())
        assert row[PREFIX + ZERO_ADVANTAGE] <= row[EQUAL_REWARD_GROUPS] + 1e-9


def test_metrics_without_a_value_are_left_out(tmp_path):
    def never(completions, **_):
        return [0.0] * len(completions)

    trainer = build("grpo", tmp_path, reward=never, max_steps=2)
    trainer.train()
    rows = [row for row in trainer.state.log_history if PREFIX + SUCCESS_RATE in row]
    assert len(rows) == 2 and not any(value is None for row in rows for value in row.values())


def test_a_column_that_identifies_prompts_is_kept(tmp_path):
    def reward(completions, **_):
        return [float("a" in completion) for completion in completions]

    data = Dataset.from_dict({"prompt": ["a b"] * 8, "info": [{"key": i} for i in range(8)]})
    more = {"vip_id_column": "info.key", "remove_unused_columns": True}
    batches, _ = trained("rloo", tmp_path, reward=reward, data=data, **more)
    assert len(set(batches[0].observation.keys)) == C // N


def test_a_batch_of_one_prompt_causes_a_warning(tmp_path, caplog):
    build("grpo", tmp_path, per_device_train_batch_size=N)
    assert f"generation_batch_size={N}" in caplog.text and f"num_generations={N}" in caplog.text
    caplog.clear()
    build("grpo", tmp_path, per_device_train_batch_size=N, vip_strategy="uniform")
    build("grpo", tmp_path)
    assert "generation_batch_size" not in caplog.text


def test_reward_functions_that_cut_equal_groups_cause_a_warning(tmp_path, caplog):
    def compared(completions, **_):
        groups = [completions[i : i + N] for i in range(0, len(completions), N)]
        return [float(group.count(one) == 1) for group in groups for one in group]

    build("grpo", tmp_path, reward=compared)
    assert "compared" in caplog.text and "vip_group" in caplog.text


def test_reward_functions_can_group_by_the_argument_vip_group(tmp_path):
    seen = []

    def compared(prompts, completions, vip_group, vip_rollouts, **_):
        seen.append((prompts, vip_group, vip_rollouts))
        return [float(group % 2) for group in vip_group]

    more = {"eval_strategy": "steps", "eval_steps": 1, "num_generations_eval": 2, "per_device_eval_batch_size": 8}
    _, batches = run("grpo", tmp_path, reward=[compared, tiny.contains], max_steps=1,
                     extra={"eval_dataset": tiny.dataset(4)}, **more)  # fmt: skip
    (prompts, group, counts), (_, evaluated, sizes) = seen
    assert group == [q for q, n in enumerate(batches[0].counts) for _ in range(n)]
    assert (
        counts == [n for n in batches[0].counts for _ in range(n)] and len(set(zip(prompts, group, strict=True))) == 4
    )
    assert evaluated == [0, 0, 1, 1, 2, 2, 3, 3] and sizes == [2] * 8
