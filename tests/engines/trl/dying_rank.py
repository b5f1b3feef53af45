"""Run by test_trl_dying_rank.py under torchrun on two gloo processes: one of them is killed in its third step."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from trl_runs import options

import tiny
from viprl.engines.trl import VIPRLOOConfig, VIPRLOOTrainer


def kills_one_rank(completions: list, trainer_state: object, **columns: object) -> list[float]:
    if trainer_state.global_step == 2 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return tiny.contains(completions=completions, **columns)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    more = {"per_device_train_batch_size": 10, "max_steps": 4, "save_strategy": "steps", "save_steps": 1}
    args = VIPRLOOConfig(**options(folder, vip_features="none", **more))
    trainer = VIPRLOOTrainer(
        tiny.model(), kills_one_rank, args, train_dataset=tiny.dataset(15), processing_class=tiny.tokenizer()
    )
    trainer.train()
