"""Ragged groups in TRL: rows, prompts, rewards and advantages stay together, and every prompt has the same weight."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from datasets import Dataset, IterableDataset
from trl import GRPOTrainer
from trl_runs import KINDS, C, N, build, independent_advantages, trained, watched

import tiny
from viprl.errors import InputError

SCALE = {"rloo": 1.0, "grpo": 1 - 1 / N}
"""Of the advantages, relative to reward minus the mean of the others."""


def same(given, expected) -> bool:
    """Equal up to the order of the rows, which TRL shuffles."""
    return np.allclose(sorted(given), sorted(expected), atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "estimator", "weighting"),
    [
        *((kind, "rloo", weighting) for kind in KINDS for weighting in ("prompt", "rollout")),
        ("grpo", "dr_grpo", "rollout"),  # as published: the mean of the group, groups of at least 3
    ],
)
def test_ragged_advantages_reach_the_loss(kind, estimator, weighting, tmp_path):
    more = {"vip_estimator": estimator, "vip_prompt_weighting": weighting}
    batches, losses = trained(kind, tmp_path, max_steps=4, **more)
    assert len(batches) == 4
    assert len({tuple(batch.counts) for batch in batches}) > 1
    scale = SCALE[kind] if estimator == "rloo" else 1.0
    for batch, advantages in zip(batches, losses, strict=True):
        assert sum(batch.counts) == C and len(batch.counts) == C // N
        assert min(batch.counts) >= (2 if estimator == "rloo" else 3) and max(batch.counts) > N
        assert [len(group) for group in batch.rewards] == batch.counts
        expected = independent_advantages(batch.rewards, estimator == "rloo", weighting == "prompt")
        assert same(advantages, [a * scale for a in expected])


@pytest.mark.parametrize(
    ("kind", "accumulation", "per_generation", "iterations", "streamed"),
    [("rloo", 2, 4, 2, False), ("grpo", 4, 2, 3, False), ("grpo", 1, 2, 2, True)],
)
def test_each_rollout_is_used_num_iterations_times(kind, accumulation, per_generation, iterations, streamed, tmp_path):
    """Generation batches that serve several optimizer steps, and optimizer steps that need several batches."""
    generations, share = 2, 8
    batches, losses = trained(
        kind, tmp_path, data=tiny.dataset().to_iterable_dataset() if streamed else None,
        per_device_train_batch_size=share, gradient_accumulation_steps=accumulation,
        steps_per_generation=per_generation, num_iterations=iterations,
        max_steps=generations * per_generation * iterations // accumulation,
    )  # fmt: skip
    assert [sum(batch.counts) for batch in batches] == [share * per_generation] * generations
    expected = [a for batch in batches for a in independent_advantages(batch.rewards, True, True)] * iterations
    assert same([a for loss in losses for a in loss], [a * SCALE[kind] for a in expected])


def test_duplicates_with_workers_and_in_a_stream(tmp_path):
    twice = Dataset.from_dict({"prompt": ["a b", "a b", "c d", "e f"] * 4, "solution": ["a", "a", "c", "e"] * 4})
    for data, more in ((twice, {"dataloader_num_workers": 2}), (twice.to_iterable_dataset(), {})):
        batches, losses = trained("rloo", tmp_path, data=data, vip_strategy="default", **more)
        assert [len(batch.prompts) for batch in batches] == [C // N] * 3
        for batch, advantages in zip(batches, losses, strict=True):
            assert sum(batch.counts) == C
            assert same(advantages, independent_advantages(batch.rewards, True, True))


def test_a_stream_without_end(tmp_path):
    def endless():
        while True:
            yield from tiny.dataset(8)

    data = IterableDataset.from_generator(endless)
    batches, _ = trained("rloo", tmp_path, data=data, shuffle_dataset=False)
    assert [len(set(batch.prompts)) for batch in batches] == [C // N] * 3
    with pytest.raises(InputError, match="vip_register_pool"):
        build("rloo", tmp_path, data=data, vip_register_pool=True)


@pytest.mark.parametrize(("column", "values"), [("key", list(range(8))), ("info.key", [{"key": i} for i in range(8)])])
def test_an_id_distinguishes_equal_prompts(column, values, tmp_path):
    name = column.partition(".")[0]
    data = Dataset.from_dict({"prompt": ["a b"] * 8, "solution": list("aabbccdd"), name: values})
    batches, _ = trained("rloo", tmp_path, data=data, vip_strategy="default", vip_id_column=column, max_steps=1)
    assert len(set(batches[0].observation.keys)) == C // N


def test_chat_prompts(tmp_path):
    chats = [[{"role": "system", "content": "be brief"}, {"role": "user", "content": f"{x} b"}] for x in "abcdefgh"]
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"

    class Chatting(KINDS["rloo"][0]):
        def __init__(self, *args, processing_class, **more):
            super().__init__(*args, processing_class=tokenizer, **more)

    def reward(completions, **_):
        return [float("a" in c[-1]["content"]) for c in completions]

    data = Dataset.from_dict({"prompt": chats})
    batches, _ = trained("rloo", tmp_path, reward=reward, data=data, trainer=Chatting, vip_features="length")
    assert [sum(batch.counts) for batch in batches] == [C] * 3


def test_each_rollout_has_a_row_of_its_own(tmp_path):
    """TRL writes the fields of a rollout function into the rows."""

    def rollout(prompts, trainer):
        ids = [[3 + i % 5, 1] for i in range(len(prompts))]
        return {
            "prompt_ids": trainer.processing_class(list(prompts))["input_ids"],
            "completion_ids": ids,
            "logprobs": [[-1.0, -1.0]] * len(ids),
            "position": list(range(len(ids))),
        }

    positions = []

    def reward(prompts, completions, position, **_):
        positions.append(list(position))
        return [float(p % 2) for p in position]

    trained("grpo", tmp_path, reward=reward, extra={"rollout_func": rollout})
    assert positions == [list(range(C))] * 3


EXACT = ("dr_grpo", "grpo", "sapo", "luspo")
APPROXIMATE = ("dapo", "bnpo", "cispo", "vespo")
LOSSES = [name for name in EXACT + APPROXIMATE if f'"{name}"' in inspect.getsource(GRPOTrainer._compute_loss)]
"""Those that the installed TRL has."""


@pytest.mark.parametrize("loss_type", LOSSES)
def test_which_losses_keep_prompt_weights_exact(loss_type, tmp_path):
    """Exact: the effect of an advantage on the loss does not depend on the lengths of the other rollouts. Otherwise the
    weights of the prompts of a batch relative to each other hold, and the size of the step varies with the tokens."""
    trainer = build("grpo", tmp_path, loss_type=loss_type, max_steps=1, max_completion_length=6)
    inner, found = trainer.compute_loss, []

    def pull(model, inputs, *args) -> torch.Tensor:
        advantages = inputs["advantages"].clone().requires_grad_()
        return torch.autograd.grad(inner(model, inputs | {"advantages": advantages}, *args), advantages)[0]

    def compute_loss(model, inputs, *args, **kwargs):
        inputs = inputs | {"advantages": torch.linspace(-1, 1, C)}
        shorter = inputs["completion_mask"].clone()
        shorter[C // 2 :, 1:] = 0
        tokens = {"num_items_in_batch": shorter.sum()} if "num_items_in_batch" in inputs else {}
        found.append((pull(model, inputs), pull(model, inputs | {"completion_mask": shorter} | tokens)))
        return inner(model, inputs, *args, **kwargs)

    trainer.compute_loss = compute_loss
    trainer.train()
    whole, cut = (pulled[: C // 2] for pulled in found[0])
    assert (whole != 0).any()
    assert torch.allclose(whole, cut, atol=1e-7) == (loss_type in EXACT)
    ratio = (cut / whole)[whole != 0]
    assert torch.allclose(ratio, ratio[0], rtol=1e-4), "relative to each other the rollouts keep their weights"


def test_evaluation_is_that_of_trl(tmp_path):
    trainer = build(
        "rloo", tmp_path, eval_strategy="steps", eval_steps=1, per_device_eval_batch_size=8, num_generations_eval=2,
        extra={"eval_dataset": tiny.dataset(8)},
    )  # fmt: skip
    batches, _ = watched(trainer)
    trainer.train()
    assert len(batches) == 3
    keys = {key for row in trainer.state.log_history for key in row}
    assert "eval_reward" in keys and not any(key.startswith("eval_vip") for key in keys)
