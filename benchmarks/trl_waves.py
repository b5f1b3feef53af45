"""What a second call of generation costs a training step of TRL: stock TRL, VIP with one wave, VIP with two.

usage: python benchmarks/trl_waves.py [--repetitions 5] [--steps 4] [--prompts 16] [--average 8] [--tokens 128]
                                      [--width 128] [--json OUT]

A small model with random weights generates with transformers on the CPU, in batches that end with their longest
completion. Lengths are geometric and cut off, so that each call has stragglers. Three quarters of the prompts are never
solved, and VIP has learned that from other prompts, so that every step takes first looks. One repetition trains each
arm for some steps, in an order that rotates; the first step of an arm is left out. Ratios are those to stock TRL in the
same repetition. On a busy machine compare processor times instead of wall-clock times.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    PrinterCallback,
    TrainerCallback,
    set_seed,
)
from trl import RLOOConfig, RLOOTrainer

from viprl import VIP
from viprl.engines.trl import VIPRLOOConfig, VIPRLOOTrainer

WORDS = [f"w{i}" for i in range(45)]
ARMS = {"stock TRL": 0, "VIP, one wave": 1, "VIP, two waves": 2}


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", "<unk>", *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )


def model(width: int, tokens: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(WORDS) + 3, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=tokens + 64, pad_token_id=0, eos_token_id=1,
            bos_token_id=None,
        )
    )  # fmt: skip


def taught(seed: int) -> VIP:
    """Has seen other prompts, three quarters of which are never solved."""
    vip, rng = VIP(features=None, seed=seed), np.random.default_rng(seed)
    for batch in range(4):
        p = np.where(np.arange(64) % 4 > 0, 0.0, np.linspace(0.05, 0.95, 64))
        vip.observe([f"other {batch} {i}" for i in range(64)], [(rng.random(8) < one).tolist() for one in p])
    return vip


def reward(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
    """One prompt in four can be solved, by completions whose first tokens are even in sum."""
    return [
        float(int(prompt.split()[-1][1:]) % 4 == 0 and sum(ids[:4]) % 2 == 0)
        for prompt, ids in zip(prompts, completion_ids, strict=True)
    ]


class Clock(TrainerCallback):
    """Wall-clock and processor seconds of each step."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = time.perf_counter(), time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.wall.append(time.perf_counter() - self._began[0])
        self.cpu.append(time.process_time() - self._began[1])


def run(waves: int, arguments: argparse.Namespace, seed: int) -> dict[str, float]:
    """Means over the steps of one arm, the first left out."""
    rng, steps = np.random.default_rng(seed), arguments.steps + 1
    prompts = [" ".join(rng.choice(WORDS, 8)) for _ in range(arguments.prompts * steps)]
    settings = {
        "output_dir": tempfile.mkdtemp(), "per_device_train_batch_size": arguments.prompts * arguments.average,
        "num_generations": arguments.average, "max_completion_length": arguments.tokens, "max_steps": steps,
        "report_to": [], "use_cpu": True, "bf16": False, "beta": 0.0, "save_strategy": "no", "disable_tqdm": True,
        "logging_strategy": "no", "gradient_checkpointing": False, "seed": seed, "learning_rate": 1e-6,
    }  # fmt: skip
    own = {"vip_waves": waves, "vip_features": "none", "vip_strategy": "default"} if waves else {}
    args = (VIPRLOOConfig if waves else RLOOConfig)(**settings, **own)
    extra = {"vip": taught(seed)} if waves else {}
    trainer = (VIPRLOOTrainer if waves else RLOOTrainer)(
        model(arguments.width, arguments.tokens), reward, args, train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=tokenizer(), **extra,
    )  # fmt: skip
    clock, calls = Clock(), []
    trainer.add_callback(clock)
    trainer.remove_callback(PrinterCallback)
    generate = trainer._generate

    def watched(given: list[Any]) -> Any:
        began = time.perf_counter(), time.process_time()
        found = generate(given)
        lengths = [len(ids) for ids in found[1]]
        spent = np.subtract((time.perf_counter(), time.process_time()), began)
        calls.append((*spent, len(lengths), sum(lengths), max(lengths)))
        return found

    trainer._generate = watched
    set_seed(seed)
    trainer.train()
    per_step, first = len(calls) / steps, round(len(calls) / steps)
    kept = np.array(calls[first:])
    return {
        "step, wall": float(np.mean(clock.wall[1:])),
        "step, processor": float(np.mean(clock.cpu[1:])),
        "generation, wall": float(kept[:, 0].sum() / arguments.steps),
        "generation, processor": float(kept[:, 1].sum() / arguments.steps),
        "calls": per_step,
        "rollouts": float(kept[:, 2].sum() / arguments.steps),
        "tokens": float(kept[:, 3].sum() / arguments.steps),
        "decoding steps": float(kept[:, 4].sum() / arguments.steps),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("repetitions", 5), ("steps", 4), ("prompts", 16), ("average", 8), ("tokens", 128)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("viprl").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    results: dict[str, list[dict[str, float]]] = defaultdict(list)
    for repetition in range(arguments.repetitions):
        for at in range(len(ARMS)):
            name = list(ARMS)[(at + repetition) % len(ARMS)]
            results[name].append(run(ARMS[name], arguments, repetition))
    stock = results["stock TRL"]
    print(
        f"{arguments.repetitions} repetitions of {arguments.steps} steps: means; ratios to stock TRL ± their deviation"
    )
    print("| | " + " | ".join(ARMS) + " |\n|" + "---|" * (len(ARMS) + 1))
    for measure in stock[0]:
        cells = []
        for rows in (results[name] for name in ARMS):
            ratios = [row[measure] / base[measure] for row, base in zip(rows, stock, strict=True)]
            unit = f"{np.mean([row[measure] for row in rows]):.3g}"
            spread = np.std(ratios, ddof=1) if len(ratios) > 1 else 0.0
            cells.append(unit if rows is stock else f"{unit} ({np.mean(ratios):.2f} ± {spread:.2f})")
        print(f"| {measure} | " + " | ".join(cells) + " |")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
