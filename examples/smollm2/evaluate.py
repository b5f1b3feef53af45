"""Sample answers of a model to a set of problems, and print mean@k with an interval.

    python -m examples.smollm2.evaluate runs/smollm2/start runs/smollm2/held_out.jsonl start.jsonl --samples 16

It writes a JSON object for each problem (`id`, `level`, `answer`, `completions`), which `viprl evaluate --generations`
also reads, and prints mean@k with a 95 % bootstrap interval over problems.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from examples.smollm2.problems import last_number
from transformers import AutoModelForCausalLM, AutoTokenizer

from viprl.quickstart.model import sample_completions
from viprl.utils.arrays import FloatArray
from viprl.utils.json_lines import log_rows, write_json_lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Sample answers to problems and score them.")
    parser.add_argument("model", type=Path)
    parser.add_argument("problems", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = AutoModelForCausalLM.from_pretrained(args.model).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(args.model, padding_side="left")
    problems = list(log_rows(args.problems))
    generator = torch.Generator().manual_seed(args.seed)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        drawn = sample_completions(
            model, tokenizer, [p["prompt"] for p in problems], args.samples, generator, max_new_tokens=6, max_rows=512
        )
    rows = [
        {
            "id": p["id"],
            "level": p["level"],
            "answer": p["solution"],
            "completions": tokenizer.batch_decode(group, skip_special_tokens=True),
        }
        for p, group in zip(problems, drawn, strict=True)
    ]
    write_json_lines(args.out, rows)
    rates = success_rates(args.out)
    low, high = bootstrap(rates, np.random.default_rng(args.seed))
    print(f"mean@{args.samples} {rates.mean():.3f} ({low:.3f} to {high:.3f}), {len(rates)} problems: {args.out}")


def success_rates(generations: Path) -> FloatArray:
    """[N] share of right answers of each problem in a file of completions."""
    rates = []
    for row in log_rows(generations):
        texts = row["completions"]
        rates.append(np.mean(last_number([None] * len(texts), texts, [row["answer"]] * len(texts))))
    return np.array(rates)


def bootstrap(values: FloatArray, rng: np.random.Generator, draws: int = 10_000) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of `values` [N] over problems."""
    means = values[rng.integers(len(values), size=(draws, len(values)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


if __name__ == "__main__":
    main()
