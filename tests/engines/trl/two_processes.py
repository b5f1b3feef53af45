"""Run by test_trl_launch.py under torchrun on two gloo processes; every rank checks its own part.

`viprl train`; both trainers, with a resume; one vLLM server for both processes, and one engine over both (tensor
parallel) with a stream of prompts; FSDP2; prompts chosen from candidates; batches with fewer rollouts than the budget;
batches in two waves.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import waves
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, gather_object
from fake_vllm import Engine, install
from saving import Gradients, Seen, expected_gradient, saving
from torch.distributed.tensor import DTensor
from trl_runs import KINDS, Recording, on_loss, options, watched

import tiny
from viprl.advantages import group_advantages, rollout_weights
from viprl.cli import app
from viprl.engines.trl import VIPGRPOConfig, VIPGRPOTrainer, VIPRLOOConfig, VIPRLOOTrainer

SHARE = {"per_device_train_batch_size": 10, "vip_features": "none", "vip_strategy": "random"}


def run(kind: str, folder: Path, steps: int, save: int, resume: str | None) -> list[list[int]]:
    trainer_class, config = KINDS[kind]
    more = {"max_steps": steps, "beta": 0.1, "save_strategy": "steps", "save_steps": save, "vip_shadow": ["default"]}
    args = config(**options(folder / kind, **SHARE, **more))
    trainer = trainer_class(
        str(folder / "start"), tiny.contains, args, train_dataset=tiny.dataset(15),
        processing_class=tiny.tokenizer(),
    )  # fmt: skip
    rank, world = trainer.accelerator.process_index, trainer.accelerator.num_processes
    assert world == 2, f"expected two processes, got {world}"
    batches, seen = [], []
    trainer.vip_listeners.append(batches.append)
    on_loss(trainer, lambda _, inputs: seen.append(sorted(inputs["advantages"].tolist())))
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


def known(prompts, **_):
    """The same for all rollouts of a prompt, so that nothing depends on which process samples."""
    return [((sum(map(ord, prompt)) * 7) % 5) / 4 for prompt in prompts]


def run_chosen(folder: Path, share: int, stream: bool = False, resume: str | None = None) -> list[list]:
    """Prompts chosen from candidates, with baselines shrunk towards expected rewards. `share`: rows of a process."""
    more = {"vip_candidates": 4, "vip_baseline": "expected", "vip_strategy": "default", "vip_use_logprobs": False}
    more |= {"max_steps": 5, "save_strategy": "steps", "save_steps": 3, "vip_features": "none"}
    args = VIPRLOOConfig(**options(folder, per_device_train_batch_size=share, **more))
    data = tiny.dataset(40).to_iterable_dataset() if stream else tiny.dataset(40)
    trainer = VIPRLOOTrainer(tiny.model(), known, args, train_dataset=data, processing_class=tiny.tokenizer())
    batches, seen = [], []
    trainer.vip_listeners.append(batches.append)
    on_loss(trainer, lambda _, inputs: seen.append(sorted(inputs["advantages"].tolist())))
    trainer.train(resume_from_checkpoint=resume)
    rank = trainer.accelerator.process_index
    for batch, local in zip(batches, seen, strict=True):
        weighted = batch.advantages * rollout_weights(batch.counts, prompt_weights=batch.weights)
        assert np.allclose(sorted(weighted[rank * share : (rank + 1) * share]), local, atol=1e-6)
    return [[b.prompts, b.counts, b.weights.tolist(), b.advantages.tolist()] for b in batches]


def run_saving(folder: Path, kind: str, share: int, parts: int) -> list[list[int]]:
    """Fewer rollouts than the budget: the same number on both processes, and the gradient of all of them. `share`: rows
    of a micro-batch."""
    seen, gradients = Seen(), Gradients()
    more = {"per_device_train_batch_size": share, "gradient_accumulation_steps": parts, "max_completion_length": 6}
    more |= {"learning_rate": 0.0, "max_grad_norm": 1e9, "vip_strategy": "uniform"}
    args, vip = KINDS[kind][1](**options(folder / kind, **more)), saving(cost="tokens")
    trainer = KINDS[kind][0](
        tiny.model(), seen.reward, args, vip=vip, train_dataset=tiny.dataset(64), processing_class=tiny.tokenizer()
    )
    trainer.add_callback(gradients)
    batches, losses = watched(trainer)
    trainer.train()
    everything = [gather_object(own) for own in seen.batches]
    shares = gather_object([[len(batch) for batch in seen.batches]])
    assert shares[0] == shares[1] and all(sum(batch.counts) < 20 for batch in batches)
    assert sum(map(len, losses)) >= sum(shares[0]) and gather_object([list(map(len, losses))])[0] == [*map(len, losses)]
    loss = "rloo" if kind == "rloo" else "dr_grpo"
    for batch, rollouts, found in zip(batches, everything, gradients.seen, strict=True):
        assert len(rollouts) == sum(batch.counts)
        expected = expected_gradient(tiny.model(), rollouts, loss, longest=6)
        assert expected.abs().max() > 1e-3 and torch.allclose(found, expected, atol=2e-6)
    logged = [row["vip/spending/tokens"] for row in trainer.state.log_history if "vip/spending/tokens" in row]
    if trainer.accelerator.is_main_process:
        assert np.allclose(logged, [sum(len(ids) for _, _, ids, _ in rollouts) for rollouts in everything])
    return [batch.counts for batch in batches]


def own(prompts, completions, completion_ids, solution, **_):
    for prompt, completion, right in zip(prompts, completions, solution, strict=True):
        assert completion.startswith(prompt) and prompt.startswith(right), f"{completion!r} does not answer {prompt!r}"
    return [float(len(ids) % 2) for ids in completion_ids]


def run_vllm(mode: str, folder: Path) -> list[list]:
    engine = install(Engine())
    more = {"max_completion_length": 6, "use_vllm": True, "vllm_mode": mode, "learning_rate": 1e-6}
    more |= {"vllm_tensor_parallel_size": 1 if mode == "server" else 2, "vllm_importance_sampling_correction": False}
    args = VIPGRPOConfig(**options(folder / mode, **SHARE, **more))
    data = tiny.dataset(15)
    vip = Recording(estimator="rloo", strategy="random", features="none", max_rollouts=15)
    trainer = VIPGRPOTrainer(
        str(folder / "start"), own, args, vip=vip, processing_class=tiny.tokenizer(),
        train_dataset=data if mode == "server" else data.to_iterable_dataset(),
    )  # fmt: skip
    batches = []
    trainer.vip_listeners.append(batches.append)
    trainer.train()
    rank = trainer.accelerator.process_index
    asks = mode == "colocate" or rank == 0
    assert engine.requests == ([(20, 1)] * 3 if asks else []), f"rank {rank} requested {engine.requests}"
    assert max(n for batch in batches for n in batch.counts) > 4
    for heard, batch in zip(getattr(vip, "heard", []), batches, strict=rank == 0):
        for prompt, n in zip(batch.prompts, batch.counts, strict=True):
            mine = engine.answers[tuple(tiny.tokenizer()(prompt)["input_ids"])]
            given, mine[:n] = [sum(logps) for _, logps in mine[:n]], []
            assert torch.allclose(torch.tensor(heard[prompt]), torch.tensor(given), atol=1e-5, equal_nan=True)
    return [[batch.prompts, batch.counts] for batch in batches]


def run_waves(folder: Path, kind: str, **more) -> list[list]:
    """Each process has rollouts of both waves: its rows are what its reward function was given, with the advantages
    that the rewards of both processes give."""
    seen, vip, engine, rows = waves.Seen(), waves.taught(), install(Engine()), []
    trainer = waves.build_waves(kind, folder, seen=seen, vip=vip, max_completion_length=8, max_steps=2, **more)
    on_loss(trainer, lambda _, inputs: rows.append((waves.rows_of(inputs), inputs["advantages"].tolist())))
    batches, _ = watched(trainer)
    trainer.train()
    rank, looks = trainer.accelerator.process_index, gather_object([getattr(vip, "looks", None)])
    assert looks[1] is None, "one process plans"
    steps = len(rows) // len(batches)
    for at, (own, batch, plan) in enumerate(zip(seen.batches, batches, looks[0], strict=True)):
        calls = [gather_object(call) for call in own]
        assert [2 * len(call) for call in own] == [len(call) for call in calls] and sum(map(len, calls)) == waves.C
        assert not trainer.use_vllm or rank or engine.requests[2 * at :][:2] == [(len(call), 1) for call in calls]
        groups, expected = waves.by_prompt([*calls[0], *calls[1]]), waves.expected_advantages(calls, plan)
        assert batch.counts == [len(groups[prompt]) for prompt in batch.prompts] and len(set(batch.counts)) > 1
        assert [sorted(group) for group in batch.rewards] == [sorted(groups[prompt]) for prompt in batch.prompts]
        mine = [one for part in rows[at * steps : (at + 1) * steps] for one in zip(*part, strict=True)]
        assert Counter(rollout for rollout, _ in mine) == Counter([*own[0], *own[1]])
        for (prompt, _, reward), advantage in mine:
            weighted = waves.SCALE[kind] * expected[prompt, reward] * plan[prompt][3] * waves.N / len(groups[prompt])
            assert abs(advantage - weighted) < 1e-5
    return [[batch.prompts, batch.counts, batch.advantages.tolist()] for batch in batches]


def run_fsdp(folder: Path, plugin: dict[str, str], resume: str | None = None) -> list[list[int]]:
    """FSDP2 with the settings of the recipe: sharded weights, one state."""
    os.environ |= {"ACCELERATE_USE_FSDP": "true", **plugin}
    AcceleratorState._reset_state(reset_partial_state=True)
    more = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    args = VIPRLOOConfig(**options(folder / "fsdp", **SHARE, **more))
    # accelerate shards on accelerators only, although torch shards on CPUs too: declare these two to be accelerators
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    trainer = VIPRLOOTrainer(
        str(folder / "start"), tiny.contains, args, train_dataset=tiny.dataset(), processing_class=tiny.tokenizer()
    )
    assert trainer.accelerator.num_processes == 2 and trainer.is_fsdp_enabled, trainer.accelerator.distributed_type
    counts, saves = [], []
    trainer.vip_listeners.append(lambda batch: counts.append(batch.counts))
    start = trainer._vip_writer.start
    trainer._vip_writer.start = lambda path: (saves.append(path), start(path))
    trainer.train(resume_from_checkpoint=resume)
    assert all(isinstance(p, DTensor) for p in trainer.model_wrapped.parameters()), "the weights are sharded"
    assert (len(saves) > 0) == (os.environ["RANK"] == "0"), "one process writes the state"
    return counts


if __name__ == "__main__":
    folder, plugin = Path(sys.argv[1]), json.loads(sys.argv[2])
    torch.set_num_threads(1)
    app(["train", "--config", str(folder / "config.yaml")], standalone_mode=False)
    AcceleratorState._reset_state(reset_partial_state=True)
    seen = {}
    for kind in KINDS:
        seen[kind] = run(kind, folder, steps=6, save=4, resume=None)
        again = run(kind, folder, steps=6, save=100, resume=str(folder / kind / "checkpoint-4"))
        assert again == seen[kind][4:], f"resumed counts {again} differ from {seen[kind][4:]}"
    for mode in ("server", "colocate"):
        seen[mode] = run_vllm(mode, folder)
    seen["fsdp"] = run_fsdp(folder, plugin)
    again = run_fsdp(folder, plugin, resume=str(folder / "fsdp" / "checkpoint-2"))
    assert again == seen["fsdp"][2:], f"resumed counts {again} differ from {seen['fsdp'][2:]}"
    for name, kind, share, parts in (("saving", "grpo", 5, 2), ("saving single", "rloo", 1, 10)):
        seen[name] = run_saving(folder / "saving", kind, share, parts)
    parts = {"per_device_train_batch_size": waves.C // 8, "gradient_accumulation_steps": 4}
    seen["waves"] = run_waves(folder / "waves", "rloo", **parts)
    vllm = {"use_vllm": True, "vllm_mode": "server", "per_device_train_batch_size": waves.C // 2}
    seen["waves, vLLM"] = run_waves(folder / "waves", "grpo", vip_candidates=2, **vllm)
    seen["chosen"] = run_chosen(folder / "chosen", 10)
    again = run_chosen(folder / "chosen", 10, resume=str(folder / "chosen" / "checkpoint-3"))
    assert again == seen["chosen"][3:], f"resumed {again} differ from {seen['chosen'][3:]}"
    seen["streamed"] = run_chosen(folder / "streamed", 10, stream=True)
    Path(folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps(seen))
