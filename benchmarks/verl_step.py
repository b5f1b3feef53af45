"""The time of a step on verl's driver: stock verl and VIP in turns, in one process.

usage (in the environment of `make test-verl`): PYTHONPATH=src python benchmarks/verl_step.py [--prompts 512] [--n 8]
    [--tokens 1024] [--steps 12] [--pool 1000000] [--estimator grpo] [--no-logprobs] [--waves]

verl's own `step` on a real TransferQueue and a local Ray: data, plan, submission to the agent loops, replay buffer,
balancing, advantages, outcomes, metrics. Agent loops and workers are stubs: rows are written as agent loops write them,
and that time is subtracted. So is the time in which the driver waits for the update of the actors (--update seconds,
far less than a real one). What verl does besides with log probabilities of its workers is left out. Stock verl is
`trainer_mode=sync` with `adv_estimator=grpo`, whose advantages take a loop over rows; `--estimator grpo_vectorized` has
none. The third arm reads the outcomes of rollouts on the driver, not in a process beside it. Differences are those to
stock verl in the same round; the order of the arms is random, the first round is left out. On a busy machine compare
processor times, of all threads of the driver.

--pool: prompts that VIP has seen before. --waves: the third arm has up to two waves, and three of four prompts are
hopeless.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import time
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
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

RANKS = 8
STOCK, VIP, ALONE, WAVES = "stock verl", "VIP", "VIP, the driver reads", "VIP, two waves"
SHARE = "% of the rollouts in the second wave"


def configuration(arguments: argparse.Namespace, arm: str) -> Any:
    own = {
        "trainer.v1.trainer_mode": "vip_sync",
        "algorithm.adv_estimator": "vip_rloo",
        "+trainer.v1.vip_sync.features": arguments.features,
        "+trainer.v1.vip_sync.cache": "null",
        "+trainer.v1.vip_sync.use_logprobs": not arguments.no_logprobs,
        "+trainer.v1.vip_sync.waves": 2 if arm == WAVES else 1,
    }
    options = {
        "data.train_batch_size": arguments.prompts,
        "actor_rollout_ref.rollout.n": arguments.n,
        "actor_rollout_ref.rollout.name": "vllm",
        "actor_rollout_ref.actor.ppo_mini_batch_size": arguments.prompts,
        "transfer_queue.backend.SimpleStorage.num_data_storage_units": arguments.units,
        **({"algorithm.adv_estimator": arguments.estimator} if arm == STOCK else own),
    }
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=[f"{key}={value}" for key, value in options.items()])


def prompt(i: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"How much is {i} plus {i % 97}?"}]


def batches(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    while True:
        chosen = rng.choice(max(arguments.pool, arguments.prompts), arguments.prompts, replace=False).tolist()
        yield collate_fn([{"raw_prompt": prompt(i), "index": i, "dummy_tensor": torch.zeros(1)} for i in chosen])


def chance(number: int) -> float:
    """Success probability of a prompt."""
    rng = np.random.default_rng(number)
    return float((rng.random() > 0.75) * rng.random())


class AgentLoops:
    """A stub of verl's: rows of random length, put into the queue as agent loops do, before the call returns."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.rng, self.seconds, self.sizes = arguments, np.random.default_rng(0), np.zeros(2), [0]

    def generate_sequences(self, batch: Any) -> None:
        began = clocks()
        prompts = batch.get("uid").tolist()
        counts = (
            batch.get("__rollout_n__").tolist()
            if "__rollout_n__" in batch.keys()  # noqa: SIM118 (not a dict)
            else [self.arguments.n] * len(prompts)
        )
        keys, fields, tags = [], [], []
        for uid, index, n in zip(prompts, batch.get("index").tolist(), counts, strict=True):
            p = chance(int(index))
            for session in range(n):
                length = int(self.rng.integers(self.arguments.tokens // 4, self.arguments.tokens + 1))
                scores = torch.zeros(length)
                scores[-1] = float(self.rng.random() < p)
                keys.append(f"{uid}_{session}_0")
                logprobs = torch.full((length,), -0.3)
                mask = torch.ones(length, dtype=torch.int64)
                row = {"uid": uid, "rm_scores": scores, "response_mask": mask}
                fields.append(row | {"old_log_probs": logprobs, "rollout_log_probs": logprobs})
                tags.append({"status": "success", "seq_len": length + 100, "response_len": length})
        tq.kv_batch_put(keys=keys, partition_id="train", fields=list_of_dict_to_tensordict(fields), tags=tags)
        tq.kv_batch_put(keys=prompts, partition_id="train", tags=[{"status": "finished"}] * len(prompts))
        self.sizes.append(len(keys))
        self.seconds += clocks() - began


def clocks() -> np.ndarray:
    """Wall clock, and processor time of this process."""
    return np.array([time.perf_counter(), time.process_time()])


class Timed:
    """Time spent in a method of an object."""

    def __init__(self, owner: Any, name: str) -> None:
        self.seconds, inner = np.zeros(2), getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            began = clocks()
            try:
                return inner(*args, **kwargs)
            finally:
                self.seconds += clocks() - began

        setattr(owner, name, call)

    def take(self) -> np.ndarray:
        seconds, self.seconds = self.seconds, np.zeros(2)
        return seconds


class Arm:
    """A trainer whose workers are stubs."""

    def __init__(self, arguments: argparse.Namespace, name: str) -> None:
        config = configuration(arguments, name)
        trainer: Any = (PPOTrainerSync if name == STOCK else VIPTrainerSync)(config)
        trainer.global_steps, trainer.train_dataloader_it = 1, batches(arguments)
        trainer.agent_loop_manager = AgentLoops(arguments)
        trainer.reward_loop_manager = SimpleNamespace(reward_loop_worker_handles=[])
        trainer.checkpoint_manager = SimpleNamespace(sleep_replicas=lambda: None)
        trainer.actor_rollout_wg = SimpleNamespace(_dispatch_info={"actor": list(range(RANKS))})
        trainer.tokenizer = SimpleNamespace(eos_token_id=0)
        trainer.curr_step_profile, trainer.use_reference_policy = False, False
        trainer._compute_old_log_prob, trainer._update_actor = lambda batch, metrics: batch, self.update
        self.trainer, self.process = trainer, None
        self.timed = {"data and plan": Timed(trainer, "_next_train_batch")}
        self.timed |= {"advantages, outcomes": Timed(trainer, "_compute_advantage")}
        if name != STOCK:
            fill(trainer, arguments)
            if name != ALONE:
                trainer._vip_reader.start()
                self.process = trainer._vip_reader._process
            for method in ("allocate", "next", "observe"):
                self.timed[f"VIP.{method}"] = Timed(trainer.vip, method)
            self.timed["asking for outcomes"] = Timed(trainer._vip_reader, "request")
            self.timed["waiting for them"] = Timed(trainer._vip_reader, "_wait")

    def step(self) -> dict[str, np.ndarray]:
        """Wall-clock and processor seconds of a step, and of its parts."""
        loops, helped = self.trainer.agent_loop_manager, self.processor()
        loops.seconds, loops.sizes, began = np.zeros(2), [], clocks()
        rows = self.trainer.step({}, {})
        seconds = clocks() - began - loops.seconds
        tq.kv_clear(keys=rows.keys, partition_id="train")
        parts = {"step": seconds} | {name: one.take() for name, one in self.timed.items()}
        if self.process is not None:
            parts["process beside the driver"] = np.full(2, self.processor() - helped)
        return parts | {SHARE: np.full(2, sum(loops.sizes[1:]) / sum(loops.sizes) / 10)}

    def update(self, batch: Any, metrics: dict[str, Any]) -> Any:
        """The driver waits for the actors."""
        began = clocks()
        time.sleep(self.trainer.agent_loop_manager.arguments.update)
        self.trainer.agent_loop_manager.seconds[0] += (clocks() - began)[0]
        return batch

    def processor(self) -> float:
        """Processor seconds of the process that reads outcomes, so far."""
        return 0.0 if self.process is None else ray.get(self.process.__ray_call__.remote(lambda _: time.process_time()))


def fill(trainer: VIPTrainerSync, arguments: argparse.Namespace) -> None:
    """Let VIP see a pool of prompts; with waves, others than those of the steps."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    numbers = range(-4096, 0) if arguments.waves else range(arguments.pool)
    for start in range(0, len(numbers), 4096):
        own = numbers[start : start + 4096]
        k = [successes(i) if arguments.waves else i % 9 for i in own]
        trainer.vip.observe_counts([prompt(i) for i in own], k, [8] * len(own))
    if len(numbers) > 10**5:
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(f"memory of the driver: +{grown:.0f} MiB for {len(numbers):,} prompts seen", flush=True)


def successes(number: int) -> int:
    """Successes of 8 rollouts of a prompt."""
    return int(np.random.default_rng(10**6 - number).binomial(8, chance(-number)))


def quartiles(values: Any) -> str:
    low, middle, high = np.percentile(1e3 * np.asarray(values), [25, 50, 75])
    return f"{middle:.0f} [{low:.0f}, {high:.0f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("prompts", 512), ("n", 8), ("tokens", 1024), ("steps", 12), ("pool", 0), ("units", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--update", type=float, default=3.0, help="seconds that the driver waits for the actors")
    for name, text in (("features", "length"), ("estimator", "grpo")):
        parser.add_argument(f"--{name}", default=text)
    for flag in ("no-logprobs", "waves"):
        parser.add_argument(f"--{flag}", action="store_true")
    arguments = parser.parse_args()
    if arguments.waves:
        arguments.pool = arguments.pool or 10**5
    os.environ.setdefault("RAY_worker_niceness", "0")  # otherwise the queue waits for whatever else runs
    ray.init(num_cpus=16, include_dashboard=False, log_to_driver=False, namespace=str(uuid.uuid4()))
    tq.init(configuration(arguments, STOCK).transfer_queue)
    arms = {name: Arm(arguments, name) for name in (STOCK, VIP, WAVES if arguments.waves else ALONE)}
    found: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in arms}
    rng = np.random.default_rng(0)
    for step in range(arguments.steps + 1):
        for name in rng.permutation(list(arms)).tolist():
            gc.collect()  # what other arms left
            parts = arms[name].step()
            if step:  # the first step includes one-time work
                found[name].append(parts)
    print(
        f"Q = {arguments.prompts}, rollout.n = {arguments.n}, responses of {arguments.tokens // 4} to "
        f"{arguments.tokens} tokens, features {arguments.features}, {arguments.pool:,} prompts seen, "
        f"{arguments.steps} steps, stock verl with {arguments.estimator}, load {os.getloadavg()[0]:.1f}"
        + ", no log probabilities" * arguments.no_logprobs
        + "\nmilliseconds, medians [quartiles]"
    )
    for clock, what in enumerate(("wall clock", "processor time of the driver")):
        print(f"\n| {what} | " + " | ".join(arms) + " |\n|" + "---|" * (len(arms) + 1))
        for part in dict.fromkeys(part for rows in found.values() for part in rows[0]):
            cells = [
                quartiles([row[part][clock] for row in rows]) if part in rows[0] else "" for rows in found.values()
            ]
            print(f"| {part} | " + " | ".join(cells) + " |")
        steps = [np.array([row["step"][clock] for row in rows]) for rows in found.values()]
        print("| step, more than stock verl | | " + " | ".join(quartiles(own - steps[0]) for own in steps[1:]) + " |")
        print("| step, least | " + " | ".join(f"{1e3 * own.min():.0f}" for own in steps) + " |")
    for arm in arms.values():
        if arm.process is not None:
            arm.trainer._vip_reader.stop()
    tq.close()
    ray.shutdown()


if __name__ == "__main__":
    main()
