"""What VIP adds to a training step of TRL outside generation and gradients: stock trainers and VIP's in turns.

usage: python benchmarks/trl_step.py [--prompts 512] [--average 8] [--tokens 64] [--steps 6] [--repetitions 5]
                                     [--pool 4096] [--json OUT]

Completions are drawn at random in place of generation, and the model is tiny. Generation, log probabilities, loss and
backward are timed and subtracted; what remains is everything else in a step: data, plan, padding, decoding, rewards,
advantages, outcomes, logs, optimizer. GRPO has no log probabilities when a batch is used once; RLOO has, so that VIP
learns surprisals too. One repetition trains each arm for some steps, in an order that rotates; the first step of an arm
is left out. Prompts come from a pool that VIP knows. On a busy machine compare processor times.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import tempfile
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback, set_seed
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from trl_waves import WORDS, model, tokenizer

from viprl import VIP
from viprl.engines.trl import VIPGRPOConfig, VIPGRPOTrainer, VIPRLOOConfig, VIPRLOOTrainer

ARMS: dict[str, tuple[Any, Any]] = {
    "stock GRPO": (GRPOTrainer, GRPOConfig),
    "VIP, GRPO": (VIPGRPOTrainer, VIPGRPOConfig),
    "stock RLOO": (RLOOTrainer, RLOOConfig),
    "VIP, RLOO": (VIPRLOOTrainer, VIPRLOOConfig),
}
VIP_METHODS = ("allocate", "observe")


def clocks() -> np.ndarray:
    """Wall clock, and processor time of this process."""
    return np.array([time.perf_counter(), time.process_time()])


class Watch:
    """Time spent in methods of objects, calls inside each other counted once."""

    def __init__(self) -> None:
        self.seconds, self._depth = np.zeros(2), 0

    def over(self, owner: Any, name: str) -> None:
        inner = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            began, self._depth = clocks(), self._depth + 1
            try:
                return inner(*args, **kwargs)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.seconds += clocks() - began

        setattr(owner, name, call)


class Steps(TrainerCallback):
    """Time from one step to the next, and what is subtracted from it."""

    def __init__(self, trainer: Any, watches: dict[str, Watch]) -> None:
        self.trainer, self.watches, self.rows = trainer, watches, list[dict[str, np.ndarray]]()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        now = {"step": clocks()} | {name: watch.seconds.copy() for name, watch in self.watches.items()}
        self.rows.append(now)

    def differences(self) -> list[dict[str, np.ndarray]]:
        """Of all steps but the first."""
        return [{name: b[name] - a[name] for name in a} for a, b in zip(self.rows, self.rows[1:], strict=False)]


def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [float(sum(ids[:4]) % 2 == 0) for ids in completion_ids]


def run(name: str, arguments: argparse.Namespace, seed: int) -> list[dict[str, np.ndarray]]:
    """The steps of one arm."""
    own, (trainer_class, config_class) = name.startswith("VIP"), ARMS[name]
    rng, rollouts = np.random.default_rng(seed), arguments.prompts * arguments.average
    prompts = [" ".join(WORDS[int(digit)] for digit in f"{i:08d}") for i in range(arguments.pool)]
    args = config_class(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=rollouts // 8, gradient_accumulation_steps=8,
        num_generations=arguments.average, max_completion_length=arguments.tokens, max_steps=arguments.steps + 1,
        report_to=[], use_cpu=True, bf16=False, beta=0.0, save_strategy="no", disable_tqdm=True, logging_steps=1,
        gradient_checkpointing=False, seed=seed, learning_rate=1e-6,
        **({"vip_features": "length", "vip_strategy": "default"} if own else {}),
    )  # fmt: skip
    more: dict[str, Any] = {}
    if own:
        more["vip"] = vip = VIP(features="length", cache=None, seed=seed)
        vip.observe_counts(prompts, rng.binomial(8, rng.random(len(prompts))), [8] * len(prompts))
    trainer: Any = trainer_class(
        model(8, arguments.tokens), reward, args, train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=tokenizer(), **more,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)

    def generate(ids: list[list[int]], *rest: Any) -> Any:
        lengths = rng.integers(arguments.tokens // 4, arguments.tokens + 1, len(ids))
        found = [rng.integers(3, len(WORDS) + 3, n).tolist() for n in lengths]
        return (found, None) if "GRPO" in name else found

    trainer._generate_single_turn = generate
    watches = {"model": Watch(), "VIP": Watch()}
    for method in ("_generate_single_turn", "_get_per_token_logps_and_entropies", "compute_loss"):
        watches["model"].over(trainer, method)
    watches["model"].over(trainer.accelerator, "backward")
    for method in VIP_METHODS if own else ():
        watches["VIP"].over(more["vip"], method)
    steps = Steps(trainer, watches)
    trainer.add_callback(steps)
    set_seed(seed)
    trainer.train()
    return steps.differences()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"prompts": 512, "average": 8, "tokens": 64, "steps": 6, "repetitions": 5, "pool": 4096}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("viprl").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    found: dict[str, list[dict[str, np.ndarray]]] = defaultdict(list)
    for repetition in range(arguments.repetitions):
        for at in range(len(ARMS)):
            name = list(ARMS)[(at + repetition) % len(ARMS)]
            gc.collect()  # what other arms left
            for row in run(name, arguments, repetition):
                found[name].append(row | {"outside": row["step"] - row["model"]})
    print(
        f"{arguments.prompts} prompts, {arguments.average} rollouts on average, up to {arguments.tokens} tokens; "
        f"{arguments.repetitions} repetitions of {arguments.steps} steps, load {os.getloadavg()[0]:.1f}\n"
        "milliseconds of a step, medians [quartiles]"
    )
    for clock, what in enumerate(("wall clock", "processor time")):
        print(f"\n| {what} | " + " | ".join(ARMS) + " |\n|" + "---|" * (len(ARMS) + 1))
        for part in ("outside", "VIP"):
            label = {"outside": "outside generation and gradients", "VIP": "of it VIP.allocate and VIP.observe"}[part]
            cells = [quartiles([row[part][clock] for row in found[name]]) for name in ARMS]
            print(f"| {label} | " + " | ".join(cells) + " |")
        for kind in ("GRPO", "RLOO"):
            stock, own = ([row["outside"][clock] for row in found[f"{who} {kind}"]] for who in ("stock", "VIP,"))
            print(
                f"{kind}: VIP adds {quartiles(np.subtract(own, stock))}; of least times "
                f"{1e3 * (min(own) - min(stock)):.0f}; ratio {np.median(own) / np.median(stock):.2f}"
            )
    if arguments.json:
        rows = {name: [{k: v.tolist() for k, v in row.items()} for row in rows] for name, rows in found.items()}
        arguments.json.write_text(json.dumps(rows, indent=1))


def quartiles(values: Any) -> str:
    low, middle, high = np.percentile(1e3 * np.asarray(values), [25, 50, 75])
    return f"{middle:.0f} [{low:.0f}, {high:.0f}]"


if __name__ == "__main__":
    main()
