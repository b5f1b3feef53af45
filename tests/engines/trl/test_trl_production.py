"""What production runs add: adapters, streams, every loss type, several passes over a batch."""

from __future__ import annotations

import inspect
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("trl", reason='needs pip install "viprl[trl]"')

import torch
from datasets import IterableDataset
from safetensors.torch import load_file
from test_trl import KINDS, C, N, build, distance, independent_advantages, watched, weights
from trl import GRPOTrainer

import tiny
from viprl.engines.trl.trainers import STATE_FILE

EXACT = ("dr_grpo", "grpo", "sapo", "luspo")
APPROXIMATE = ("dapo", "bnpo", "cispo", "vespo")


def known(*loss_types: str) -> list[str]:
    """Those of them that the installed TRL has."""
    return [name for name in loss_types if f'"{name}"' in inspect.getsource(GRPOTrainer._compute_loss)]


@pytest.mark.parametrize("loss_type", known(*EXACT, *APPROXIMATE))
def test_which_losses_keep_prompt_weights_exact(loss_type, tmp_path):
    """Exact: what a rollout's advantage moves the loss by does not depend on how long the other rollouts are. Else the
    weights of a batch's prompts among each other hold, and the size of the step varies with the tokens sampled."""
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
    assert torch.allclose(ratio, ratio[0], rtol=1e-4), "among each other the rollouts keep their weights"


def stream(n: int = 16) -> IterableDataset:
    return tiny.dataset(n).to_iterable_dataset()


@pytest.mark.parametrize(
    ("kind", "loss_type"), [("rloo", None), *(("grpo", name) for name in known("dr_grpo", "sapo", "vespo", "luspo"))]
)
def test_each_rollout_of_a_stream_is_used_num_iterations_times(kind, loss_type, tmp_path):
    generations, share, per_generation, iterations = 2, 8, 2, 2
    more = {} if loss_type is None else {"loss_type": loss_type}
    trainer = build(
        kind, tmp_path, data=stream(), per_device_train_batch_size=share, steps_per_generation=per_generation,
        num_iterations=iterations, max_steps=generations * per_generation * iterations, **more,
    )  # fmt: skip
    batches, losses = watched(trainer)
    trainer.train()
    assert [sum(batch.counts) for batch in batches] == [share * per_generation] * generations
    used = sorted(a for loss in losses for a in loss["advantages"].tolist())
    scale = 1.0 if kind == "rloo" else 1 - 1 / N
    expected = [
        a * scale for b in batches for a in independent_advantages(b.rewards, True, True) for _ in range(iterations)
    ]
    assert used == pytest.approx(sorted(expected), abs=1e-6)


def test_a_stream_is_resumed_where_it_stopped(tmp_path):
    """In its first pass: same prompts, same counts, same weights. Later the trainer, which cannot know how long a
    stream is, begins the pass anew, with what VIP has learned."""

    def run(folder, **more):
        return build("rloo", tmp_path / folder, data=stream(), max_steps=8, vip_strategy="default", **more)

    whole = run("whole")
    batches, _ = watched(whole)
    whole.train()
    assert len({p for b in batches[:4] for p in b.prompts}) == 16, "four steps see the whole stream"
    assert [b.prompts for b in batches[4:]] != [b.prompts for b in batches[:4]], "each pass has its own order"
    for stop, goes_on in ((2, 2), (6, 4)):
        run(f"at{stop}", save_strategy="steps", save_steps=stop).train()
        second = run(f"at{stop}")
        later, _ = watched(second)
        second.train(resume_from_checkpoint=str(tmp_path / f"at{stop}" / f"checkpoint-{stop}"))
        assert len(later) == 8 - stop
        assert [b.prompts for b in later] == [b.prompts for b in batches[goes_on : goes_on + 8 - stop]]
        if goes_on == stop:
            assert [b.counts for b in later] == [b.counts for b in batches[stop:]]
            assert distance(weights(whole), weights(second)) < 1e-6


def endless():
    while True:
        yield from tiny.dataset(8)


def test_a_stream_without_end(tmp_path):
    trainer = build("rloo", tmp_path, data=IterableDataset.from_generator(endless), shuffle_dataset=False)
    batches, _ = watched(trainer)
    trainer.train()
    assert [len(set(b.prompts)) for b in batches] == [C // N] * 3
    with pytest.raises(ValueError, match="this one is a stream"):
        build("rloo", tmp_path, data=IterableDataset.from_generator(endless), vip_register_pool=True)


@pytest.mark.parametrize("kind", KINDS)
def test_lora(kind, tmp_path):
    """Adapters move, the model below them does not; beta asks for the reference without them; resume."""
    peft = pytest.importorskip("peft", reason="needs pip install peft")

    def run(folder, **more):
        adapters = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        settings = {"beta": 0.1, "max_steps": 4, "lr_scheduler_type": "constant"} | more
        return build(kind, tmp_path / folder, extra={"peft_config": adapters}, **settings)

    whole = run("whole", save_strategy="steps", save_steps=2)
    batches, _ = watched(whole)
    before = weights(whole)
    whole.train()
    after = weights(whole)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all("lora_" in name for name in moved)
    assert any("lora_A" in name for name in moved) and any("lora_B" in name for name in moved)
    assert len({tuple(batch.counts) for batch in batches}) > 1
    checkpoint = tmp_path / "whole" / "checkpoint-2"
    assert (checkpoint / STATE_FILE).exists()
    assert all("lora_" in name for name in load_file(checkpoint / "adapter_model.safetensors"))
    second = run("resumed")
    later, _ = watched(second)
    second.train(resume_from_checkpoint=str(checkpoint))
    assert [(b.prompts, b.counts) for b in later] == [(b.prompts, b.counts) for b in batches[2:]]
    assert distance(after, weights(second)) < 1e-6


def test_the_supported_versions_are_those_that_are_installed():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert engine.SUPPORTED in project["optional-dependencies"]["trl"]
