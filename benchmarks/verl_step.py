"""The time that VIP adds to a step of verl on the driver: allocate, exchange of data with verl's queue, observe.

usage (in the environment of `make test-verl`): PYTHONPATH=src python benchmarks/verl_step.py [--prompts 512] [--n 8]
    [--tokens 1024] [--steps 10] [--pool 1000000] [--waves]

Real TransferQueue on a local Ray, rows as verl's agent loops write them (a stub of the rollout engine), the trainer's
own methods. For comparison, stock verl on the driver with the same rows: `_compute_advantage` of the base class, which
exchanges the same data and more. --pool: number of prompts that have been seen before. Prints medians with quartiles.

--waves: in place of all this, the driver's time for a step with one and with up to two waves, in turns: verl's own
submission to the agent loops, its replay buffer, and advantages, without the time in which rollouts are made. Prompts
are new in every step, and three of four are hopeless.
"""

from __future__ import annotations

import argparse
import resource
import time
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import ray
import torch
import transfer_queue as tq
from hydra import compose, initialize_config_module
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.dataset.rl_dataset import collate_fn
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from viprl.engines.verl.sync_trainer import VIPTrainerSync


def configuration(arguments: argparse.Namespace, features: str) -> Any:
    overrides = [
        "trainer.v1.trainer_mode=vip_sync",
        "algorithm.adv_estimator=vip_rloo",
        f"data.train_batch_size={arguments.prompts}",
        f"actor_rollout_ref.rollout.n={arguments.n}",
        "actor_rollout_ref.rollout.name=vllm",
        f"+trainer.v1.vip_sync.features={features}",
        "+trainer.v1.vip_sync.cache=null",
        f"+trainer.v1.vip_sync.use_logprobs={not arguments.no_logprobs}",
        f"+trainer.v1.vip_sync.waves={arguments.waves}",
        "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
    ]
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=overrides)


def batches(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    while True:
        yield collate_fn(
            [
                {
                    "raw_prompt": [{"role": "user", "content": f"How much is {i} plus {i % 97}?"}],
                    "index": int(i),
                    "dummy_tensor": torch.zeros(1, dtype=torch.uint8),
                }
                for i in rng.choice(max(arguments.pool, arguments.prompts), arguments.prompts, replace=False)
            ]
        )


def chance(number: int) -> float:
    """Success probability of a prompt."""
    rng = np.random.default_rng(number)
    return float((rng.random() > 0.75) * rng.random())


def rollouts(batch: Any, tokens: int, rng: np.random.Generator) -> tq.KVBatchMeta:
    """A stub of the rollout engine: rows of random length, put into the queue as agent loops do."""
    keys, fields, tags = [], [], []
    for uid, index, n in zip(*(batch.get(name).tolist() for name in ("uid", "index", "__rollout_n__")), strict=True):
        p = chance(int(index))
        for session in range(n):
            length = int(rng.integers(tokens // 4, tokens + 1))
            scores = torch.zeros(length)
            scores[-1] = float(rng.random() < p)
            keys.append(f"{uid}_{session}_0")
            fields.append(
                {
                    "uid": uid,
                    "rm_scores": scores,
                    "response_mask": torch.ones(length, dtype=torch.int64),
                    "old_log_probs": torch.full((length,), -0.3),
                    "rollout_log_probs": torch.full((length,), -0.3),
                }
            )
            tags.append({"status": "success"})
    tq.kv_batch_put(keys=keys, partition_id="train", fields=list_of_dict_to_tensordict(fields), tags=tags)
    return tq.KVBatchMeta(partition_id="train", keys=keys, tags=tags)


class Timed:
    """Seconds spent in a method of an object."""

    def __init__(self, owner: Any, name: str) -> None:
        self.seconds, inner = 0.0, getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - began

        setattr(owner, name, call)

    def take(self) -> float:
        seconds, self.seconds = self.seconds, 0.0
        return seconds


def one_step(
    trainer: VIPTrainerSync, tokens: int, rng: np.random.Generator, timed: dict[str, Timed]
) -> dict[str, float]:
    began = time.perf_counter()
    PPOTrainerSync._next_train_batch(trainer)
    stock_batch = time.perf_counter() - began
    began = time.perf_counter()
    batch = trainer._next_train_batch()
    planned = time.perf_counter() - began - stock_batch
    rows = rollouts(batch, tokens, rng)
    began = time.perf_counter()
    trainer._compute_advantage(rows, {})
    whole = time.perf_counter() - began
    stock = timed["stock"].take()
    tq.kv_clear(keys=rows.keys, partition_id="train")
    return {
        "allocate": timed["allocate"].take(),
        "rest of the planning": max(planned, 0.0),
        "observe": timed["observe"].take(),
        "exchange": timed["exchange"].take(),
        "added to a step": max(planned, 0.0) + whole - stock,
        "stock verl, advantages": stock,
    }


class AgentLoops:
    """A stub of verl's: all rollouts of a call are in the queue when it returns."""

    def __init__(self, tokens: int, rng: np.random.Generator) -> None:
        self.tokens, self.rng, self.seconds, self.sizes = tokens, rng, 0.0, list[int]()

    def generate_sequences(self, batch: Any) -> None:
        began = time.perf_counter()
        self.sizes.append(len(rollouts(batch, self.tokens, self.rng)))
        prompts = batch.get("uid").tolist()
        tq.kv_batch_put(keys=prompts, partition_id="train", tags=[{"status": "finished"}] * len(prompts))
        self.seconds += time.perf_counter() - began


def driver_step(trainer: VIPTrainerSync, prompts: int, timed: dict[str, Timed]) -> dict[str, float]:
    """Seconds of a step on the driver, from the data to the advantages."""
    loops = trainer.agent_loop_manager = AgentLoops(trainer.tokens, trainer.rng)
    began = time.perf_counter()
    trainer.prepare_step()
    rows, _ = trainer.replay_buffer.sample(trainer.global_steps, "train", prompts)
    trainer._compute_advantage(rows, {})
    seconds = time.perf_counter() - began - loops.seconds
    tq.kv_clear(keys=rows.keys, partition_id="train")
    second = sum(loops.sizes[1:]) / sum(loops.sizes)
    parts = {name: one.take() for name, one in timed.items()}
    return {"driver, whole step": seconds} | parts | {"share of the second wave": second}


def compare_waves(arguments: argparse.Namespace) -> None:
    trainers, timed, found = [], [], ([], [])
    for waves in (1, 2):
        arguments.waves = waves
        trainer = VIPTrainerSync(configuration(arguments, arguments.features))
        trainer.global_steps, trainer.train_dataloader_it = 1, batches(arguments)
        trainer.tokens, trainer.rng = arguments.tokens, np.random.default_rng(0)
        seen = [[{"role": "user", "content": f"earlier {i}"}] for i in range(4096)]
        p = [chance(i) for i in range(len(seen))]
        for start in range(0, len(seen), 512):
            own = slice(start, start + 512)
            trainer.vip.observe_counts(seen[own], trainer.rng.binomial(8, p[own]).tolist(), [8] * len(seen[own]))
        trainers.append(trainer)
        own = {"allocate": Timed(trainer.vip, "allocate"), "VIP.next": Timed(trainer.vip, "next")}
        timed.append(own | {"observe": Timed(trainer.vip, "observe")})
    for step in range(arguments.steps + 1):
        for arm, trainer in enumerate(trainers):
            parts = driver_step(trainer, arguments.prompts, timed[arm])
            if step:  # the first step includes one-time work
                found[arm].append(parts)
    print(f"Q = {arguments.prompts}, rollout.n = {arguments.n}, responses up to {arguments.tokens} tokens")
    for name in found[0][0]:
        unit = 1e2 if name.startswith("share") else 1e3
        rows = [unit * np.percentile([part[name] for part in parts], [25, 50, 75]) for parts in found]
        print(f"{name:<26}" + "".join(f"{b:9.1f} [{a:.1f}, {c:.1f}]" for a, b, c in rows), flush=True)
    more = [1e3 * (two["driver, whole step"] - one["driver, whole step"]) for one, two in zip(*found, strict=True)]
    low, middle, high = np.percentile(more, [25, 50, 75])
    print(f"{'two waves, more':<26}{middle:9.1f} [{low:.1f}, {high:.1f}]")


def memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fill(trainer: VIPTrainerSync, pool: int) -> None:
    for start in range(0, pool, 4096):
        numbers = range(start, min(start + 4096, pool))
        prompts = [[{"role": "user", "content": f"How much is {i} plus {i % 97}?"}] for i in numbers]
        trainer.vip.observe_counts(prompts, [i % 9 for i in numbers], [8] * len(prompts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=512)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--pool", type=int, default=0)
    parser.add_argument("--features", default="length")
    parser.add_argument("--no-logprobs", action="store_true")
    parser.add_argument("--waves", action="store_true")
    arguments = parser.parse_args()
    compare, arguments.waves = arguments.waves, 1
    if compare:
        arguments.pool = arguments.pool or 10**5
    config = configuration(arguments, arguments.features)
    if compare:
        ray.init(num_cpus=16, include_dashboard=False, namespace=str(uuid.uuid4()))
        tq.init(config.transfer_queue)
        compare_waves(arguments)
        tq.close()
        ray.shutdown()
        return
    trainer = VIPTrainerSync(config)
    trainer.global_steps, trainer.train_dataloader_it = 1, batches(arguments)
    if arguments.pool:
        before = memory()
        fill(trainer, arguments.pool)
        print(f"memory of the driver: +{memory() - before:.0f} MiB for {arguments.pool:,} prompts seen", flush=True)
    ray.init(num_cpus=16, include_dashboard=False, namespace=str(uuid.uuid4()))
    tq.init(config.transfer_queue)
    stock = Timed(PPOTrainerSync, "_compute_advantage")
    timed = {
        "allocate": Timed(trainer.vip, "allocate"),
        "observe": Timed(trainer.vip, "observe"),
        "exchange": Timed(trainer, "_vip_outcomes"),
        "stock": stock,
    }
    rng = np.random.default_rng(0)
    one_step(trainer, arguments.tokens, rng, timed)  # the first step includes one-time work
    parts = [one_step(trainer, arguments.tokens, rng, timed) for _ in range(arguments.steps)]
    sizes = f"Q = {arguments.prompts}, rollout.n = {arguments.n}, responses up to {arguments.tokens} tokens"
    logprobs = ", no log probabilities" * arguments.no_logprobs
    print(f"{sizes}, features {arguments.features}, pool {arguments.pool:,}{logprobs}")
    for name in parts[0]:
        low, middle, high = 1e3 * np.percentile([part[name] for part in parts], [25, 50, 75])
        print(f"{name:<24} {middle:8.1f} ms  [{low:.1f}, {high:.1f}]", flush=True)
    tq.close()
    ray.shutdown()


if __name__ == "__main__":
    main()
