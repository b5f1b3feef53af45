"""Run by test_trl_distributed.py under torchrun on two gloo processes; every rank checks its own part."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch

import tiny
from viprl.advantages import group_advantages, rollout_weights
from viprl.engines.trl import VIPGRPOConfig, VIPGRPOTrainer, VIPRLOOConfig, VIPRLOOTrainer

KINDS = {"rloo": (VIPRLOOTrainer, VIPRLOOConfig), "grpo": (VIPGRPOTrainer, VIPGRPOConfig)}


def run(kind: str, folder: Path, steps: int, save: int, resume: str | None) -> list[list[int]]:
    trainer_class, config = KINDS[kind]
    args = config(
        str(folder), per_device_train_batch_size=10, num_generations=4, max_completion_length=4, max_steps=steps,
        report_to=[], use_cpu=True, bf16=False, beta=0.1, learning_rate=1e-2, save_strategy="steps", save_steps=save,
        disable_tqdm=True, gradient_checkpointing=False, seed=3, vip_features="none", vip_strategy="random",
        vip_shadow=["default"],
    )  # fmt: skip
    trainer = trainer_class(
        str(folder / "start"), tiny.contains, args, train_dataset=tiny.dataset(15),
        processing_class=tiny.tokenizer(),
    )  # fmt: skip
    rank, world = trainer.accelerator.process_index, trainer.accelerator.num_processes
    assert world == 2, f"expected two processes, got {world}"
    batches, seen = [], []
    trainer.vip_listeners.append(batches.append)
    inner = trainer.compute_loss

    def compute_loss(model, inputs, *a, **k):
        seen.append(sorted(inputs["advantages"].tolist()))
        return inner(model, inputs, *a, **k)

    trainer.compute_loss = compute_loss
    trainer.train(resume_from_checkpoint=resume)
    for batch, local in zip(batches, seen, strict=True):
        assert sum(batch.counts) == 20 and len(batch.counts) == 5, "prompts straddle the ranks"
        flat = np.array([r for group in batch.rewards for r in group])
        expected = group_advantages(flat, batch.counts)
        if kind == "grpo":  # without a KL in the reward the advantages follow from the rewards alone
            share = (expected * (1 - 1 / 4) * rollout_weights(batch.counts))[rank * 10 : rank * 10 + 10]
            assert np.allclose(sorted(share), local, atol=1e-6)
        assert (batch.observation is not None) == (rank == 0), "one process keeps the state"
    return [batch.counts for batch in batches]


if __name__ == "__main__":
    kind, folder = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    first = run(kind, folder, steps=6, save=4, resume=None)
    second = run(kind, folder, steps=6, save=100, resume=str(folder / "checkpoint-4"))
    assert second == first[4:], f"resumed counts {second} differ from {first[4:]}"
    Path(folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps(first))
