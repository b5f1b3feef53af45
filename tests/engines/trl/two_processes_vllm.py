"""Run by test_trl_launch.py under torchrun on two gloo processes: one vLLM server for both, then one engine over both
(tensor parallel); a stream of prompts in the second. Every rank checks its own rollouts."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from fake_vllm import Engine, install

import tiny
from viprl import VIP
from viprl.engines.trl import VIPGRPOConfig, VIPGRPOTrainer


class Listening(VIP):
    """Remembers the surprises of each batch."""

    def observe(self, prompts, rewards, *, surprise=None):
        self.heard = [*getattr(self, "heard", []), (prompts, surprise)]
        return super().observe(prompts, rewards, surprise=surprise)


def own(prompts, completions, completion_ids, solution, **_):
    for prompt, completion, right in zip(prompts, completions, solution, strict=True):
        assert completion.startswith(prompt) and prompt.startswith(right), f"{completion!r} is no answer to {prompt!r}"
    return [float(len(ids) % 2) for ids in completion_ids]


def run(mode: str, folder: Path) -> list[list]:
    engine = install(Engine())
    args = VIPGRPOConfig(
        str(folder), per_device_train_batch_size=10, num_generations=4, max_completion_length=6, max_steps=3,
        report_to=[], use_cpu=True, bf16=False, save_strategy="no", disable_tqdm=True, gradient_checkpointing=False,
        seed=3, use_vllm=True, vllm_mode=mode, vllm_tensor_parallel_size=1 if mode == "server" else 2,
        vllm_importance_sampling_correction=False,
    )  # fmt: skip
    data = tiny.dataset(15)
    vip = Listening(estimator="rloo", strategy="random", features="none", max_rollouts=15)
    trainer = VIPGRPOTrainer(
        str(folder / "start"), own, args, vip=vip, processing_class=tiny.tokenizer(),
        train_dataset=data if mode == "server" else data.to_iterable_dataset(),
    )  # fmt: skip
    batches = []
    trainer.vip_listeners.append(batches.append)
    trainer.train()
    rank = trainer.accelerator.process_index
    asks = mode == "colocate" or rank == 0
    assert engine.requests == ([(20, 1)] * 3 if asks else []), f"rank {rank} asked for {engine.requests}"
    assert max(n for batch in batches for n in batch.counts) > 4
    for (prompts, surprise), batch in zip(getattr(vip, "heard", []), batches, strict=rank == 0):
        for prompt, n, heard in zip(prompts, batch.counts, surprise, strict=True):
            mine = engine.answers[tuple(tiny.tokenizer()(prompt)["input_ids"])]
            given, mine[:n] = [-sum(logps) for _, logps in mine[:n]], []
            assert torch.allclose(torch.tensor(heard), torch.tensor(given), atol=1e-5, equal_nan=True)
    return [[batch.prompts, batch.counts] for batch in batches]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    seen = [run(mode, folder) for mode in ("server", "colocate")]
    Path(folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps(seen))
