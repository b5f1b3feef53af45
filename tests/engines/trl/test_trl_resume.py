"""Checkpoints of the TRL trainers: what a resumed run does is what an uninterrupted one would have done."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from trl_runs import STOCK, build, distance, options, watched, weights

import tiny
from viprl.engines.trl import VIPRLOOTrainer
from viprl.engines.trl.trainers import STATE_FILE
from viprl.errors import FileError, StateError
from viprl.utils import state_file


@pytest.mark.parametrize(("kind", "stop"), [("rloo", 2), ("grpo", 6)])
def test_resume_mid_run_and_past_an_epoch(kind, stop, tmp_path):
    """An epoch has 4 steps."""
    whole = build(kind, tmp_path / "run", max_steps=8, vip_strategy="default", save_strategy="steps", save_steps=stop)
    batches, _ = watched(whole)
    whole.train()
    second = build(kind, tmp_path / "run", max_steps=8, vip_strategy="default")
    later, _ = watched(second)
    second.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{stop}"))
    assert [b.prompts for b in batches[:4]] != [b.prompts for b in batches[4:]], "each epoch has its own order"
    assert [(b.prompts, b.counts) for b in later] == [(b.prompts, b.counts) for b in batches[stop:]]
    assert distance(weights(whole), weights(second)) < 1e-6


def test_a_stream_is_resumed_where_it_stopped(tmp_path):
    """In its first pass: same prompts, same counts, same weights. Later the trainer, which does not know how long a
    stream is, begins the pass again, with what VIP has learned."""

    def run(folder, **more):
        stream = tiny.dataset().to_iterable_dataset()
        return build("rloo", tmp_path / folder, data=stream, max_steps=8, vip_strategy="default", **more)

    whole = run("whole", save_strategy="steps", save_steps=2)
    batches, _ = watched(whole)
    whole.train()
    assert len({p for b in batches[:4] for p in b.prompts}) == 16, "four steps see the whole stream"
    assert [b.prompts for b in batches[4:]] != [b.prompts for b in batches[:4]], "each pass has its own order"
    for stop, position in ((2, 2), (6, 4)):
        second = run(f"at{stop}")
        later, _ = watched(second)
        second.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{stop}"))
        assert [b.prompts for b in later] == [b.prompts for b in batches[position : position + 8 - stop]]
        if position == stop:
            assert [b.counts for b in later] == [b.counts for b in batches[stop:]]
            assert distance(weights(whole), weights(second)) < 1e-6


def test_lora(tmp_path):
    """Adapters are trained, the model below them is not; beta needs the reference without them; resume."""
    peft = pytest.importorskip("peft", reason="needs pip install peft")

    def run(folder, **more):
        adapters = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        settings = {"beta": 0.1, "max_steps": 4, "lr_scheduler_type": "constant"} | more
        return build("rloo", tmp_path / folder, extra={"peft_config": adapters}, **settings)

    whole = run("whole", save_strategy="steps", save_steps=2)
    batches, _ = watched(whole)
    before = weights(whole)
    whole.train()
    after = weights(whole)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all("lora_" in name for name in moved)
    assert len({tuple(batch.counts) for batch in batches}) > 1
    checkpoint = tmp_path / "whole" / "checkpoint-2"
    assert all("lora_" in name for name in load_file(checkpoint / "adapter_model.safetensors"))
    second = run("resumed")
    later, _ = watched(second)
    second.train(resume_from_checkpoint=str(checkpoint))
    assert [(b.prompts, b.counts) for b in later] == [(b.prompts, b.counts) for b in batches[2:]]
    assert distance(after, weights(second)) < 1e-6


def test_a_checkpoint_of_stock_trl_starts_without_history(tmp_path, caplog):
    base, config = STOCK["rloo"]
    settings = options(tmp_path, max_steps=2, save_strategy="steps", save_steps=2)
    tokenizer = tiny.tokenizer()
    base(
        tiny.model(), tiny.contains, config(**settings), train_dataset=tiny.dataset(), processing_class=tokenizer
    ).train()
    ours = build("rloo", tmp_path, max_steps=4)
    batches, _ = watched(ours)
    with caplog.at_level("WARNING", logger="viprl.engines"):
        ours.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert len(batches) == 2 and "checkpoint-2" in caplog.text


def test_the_strategy_may_change_on_resume_but_a_damaged_state_is_an_error(tmp_path, caplog):
    build("rloo", tmp_path, max_steps=2, vip_strategy="uniform", save_strategy="steps", save_steps=2).train()
    ours = build("rloo", tmp_path, max_steps=4, vip_strategy="default")
    batches, _ = watched(ours)
    checkpoint = tmp_path / "checkpoint-2"
    with caplog.at_level("WARNING", logger="viprl.vip"):
        ours.train(resume_from_checkpoint=str(checkpoint))
    assert len(batches) == 2 and "'default'" in caplog.text
    state = checkpoint / STATE_FILE
    state.write_bytes(state.read_bytes()[:-7])
    with pytest.raises(StateError, match=STATE_FILE):
        build("rloo", tmp_path, max_steps=4).train(resume_from_checkpoint=str(checkpoint))


def test_the_state_is_written_beside_the_weights_and_before_the_checkpoint_is_complete(tmp_path, monkeypatch):
    save, weights_are_written = state_file.save, threading.Event()

    def after_the_weights_began(*given, **more):
        assert weights_are_written.wait(20)
        save(*given, **more)

    class Watched(VIPRLOOTrainer):
        def _save(self, *given, **more):
            weights_are_written.set()
            super()._save(*given, **more)

        def _save_rng_state(self, folder):
            assert (Path(folder) / STATE_FILE).exists() and not (Path(folder) / "trainer_state.json").exists()
            super()._save_rng_state(folder)

    monkeypatch.setattr(state_file, "save", after_the_weights_began)
    trainer = build("rloo", tmp_path, trainer=Watched, max_steps=2, save_strategy="steps", save_steps=2)
    trainer.train()
    resumed = build("rloo", tmp_path, max_steps=2)
    resumed.vip.load(tmp_path / "checkpoint-2" / STATE_FILE)
    prompts = tiny.dataset()["prompt"]
    assert resumed.vip.predict(prompts).tolist() == trainer.vip.predict(prompts).tolist()


def test_a_state_that_cannot_be_written_ends_the_run_before_the_checkpoint_is_complete(tmp_path):
    trainer = build("rloo", tmp_path, max_steps=3, save_strategy="steps", save_steps=1)

    def full(batch):
        if trainer.state.global_step == 1:  # of the step whose checkpoint comes next
            (tmp_path / "checkpoint-2" / STATE_FILE).mkdir(parents=True)

    trainer.vip_listeners.append(full)
    with pytest.raises(FileError, match=STATE_FILE):
        trainer.train()
    assert (tmp_path / "checkpoint-1" / "trainer_state.json").exists()
    assert not (tmp_path / "checkpoint-2" / "trainer_state.json").exists()


def test_the_state_is_in_the_checkpoint_before_a_push(tmp_path):
    pushed = []

    class Pushing(VIPRLOOTrainer):
        def _push_from_checkpoint(self, folder):
            pushed.append((Path(folder) / STATE_FILE).exists())

    trainer = build("rloo", tmp_path, trainer=Pushing, save_strategy="steps", save_steps=1)
    trainer.args.push_to_hub = True
    trainer.train()
    assert pushed == [True] * 3
