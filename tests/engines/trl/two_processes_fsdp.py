"""Run by test_trl_launch.py under torchrun with FSDP2 on two gloo processes: sharded weights, one state, resume."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor

import tiny
from viprl.engines.trl import VIPRLOOConfig, VIPRLOOTrainer
from viprl.engines.trl.trainers import STATE_FILE


def run(folder: Path, resume: str | None = None) -> list[list[int]]:
    args = VIPRLOOConfig(
        str(folder), per_device_train_batch_size=8, num_generations=4, max_completion_length=4, max_steps=4,
        report_to=[], use_cpu=True, bf16=False, beta=0.0, learning_rate=1e-2, save_strategy="steps", save_steps=2,
        disable_tqdm=True, gradient_checkpointing=False, seed=3, vip_features="none", vip_strategy="random",
    )  # fmt: skip
    # accelerate shards on accelerators only, though torch shards on CPUs too: say that these two are some
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    trainer = VIPRLOOTrainer(
        str(folder / "start"), tiny.contains, args, train_dataset=tiny.dataset(), processing_class=tiny.tokenizer()
    )
    assert trainer.accelerator.num_processes == 2 and trainer.is_fsdp_enabled, trainer.accelerator.distributed_type
    counts, saves = [], []
    trainer.vip_listeners.append(lambda batch: counts.append(batch.counts))
    save = trainer.vip.save
    trainer.vip.save = lambda path: (saves.append(path), save(path))
    trainer.train(resume_from_checkpoint=resume)
    assert all(isinstance(p, DTensor) for p in trainer.model_wrapped.parameters()), "the weights are sharded"
    assert (len(saves) > 0) == (os.environ["RANK"] == "0"), "one process writes the state"
    return counts


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    whole = run(folder)
    checkpoint = folder / "checkpoint-2"
    assert (checkpoint / STATE_FILE).exists()
    resumed = run(folder, resume=str(checkpoint))
    assert resumed == whole[2:], f"resumed counts {resumed} differ from {whole[2:]}"
    Path(folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps(whole))
