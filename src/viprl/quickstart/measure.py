"""What the quickstart measures at a checkpoint: exact gradient variance of every strategy, and held-out accuracy.

Each function takes paths, returns a JSON-ready result and runs in a process of its own.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import gammaln

from viprl.prompts import identity
from viprl.quickstart.scale import Settings
from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.json_lines import log_rows
from viprl.vip import VIP


def measure_variance(run: str, pool: str, step: int, seed: int, settings: Settings) -> dict[str, Any]:
    """Allocations of all strategies, on common rollouts, at one checkpoint of the run driven by "default".

    For each of `settings.batches` random batches: every strategy's counts, as its state in the checkpoint implies, and
    per prompt the variance law estimated from `settings.rollouts` rollouts. The oracle is told success rates of
    `settings.truth` other rollouts.
    """
    import torch

    from viprl.analysis.gradient_variance import measure_law
    from viprl.quickstart.model import sample_completions

    checkpoint = Path(run) / f"checkpoint-{step}"
    model, tokenizer = _load(checkpoint)
    rows = list(log_rows(pool))
    driver, *others = settings.measured()
    vip = VIP(
        min_rollouts=settings.min_rollouts,
        max_rollouts=settings.max_rollouts,
        strategy=driver,
        shadow=others,
        seed=seed,
    )
    vip.load(checkpoint / "vip_state.safetensors")
    visits = _visits(Path(run) / "outcomes.jsonl", step)
    rng = np.random.default_rng([seed, step])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    batches = []
    for _ in range(settings.batches):
        batch = [rows[i] for i in rng.choice(len(rows), settings.prompts, replace=False)]
        texts = [row["prompt"] for row in batch]
        drawn = sample_completions(
            model, tokenizer, texts, settings.rollouts + settings.truth, generator, settings.max_tokens
        )
        rewards = np.array([_score(tokenizer, group, row["solution"]) for group, row in zip(drawn, batch, strict=True)])
        common, truth = rewards[:, : settings.rollouts], rewards[:, settings.rollouts :].mean(axis=1)
        vip.tell_oracle(batch, truth)
        proposals = vip.propose(batch, settings.budget, rng=rng)
        prompt_ids = tokenizer(texts)["input_ids"]
        laws = [
            measure_law(model, ids, group[: settings.rollouts], r)
            for ids, group, r in zip(prompt_ids, drawn, common, strict=True)
        ]
        batches.append(
            {
                "ids": [row["id"] for row in batch],
                "visits": [visits[identity(row)] for row in batch],
                "successes": common.sum(axis=1).astype(int).tolist(),
                "truth": truth.tolist(),
                "A": [float(law.A) for law in laws],
                "B": [float(law.B) for law in laws],
                "squared_gradient": [float(law.squared_gradient) for law in laws],
                "counts": {name: plan.counts.tolist() for name, plan in proposals.items()},
                "predicted": {
                    name: proposals[name].success_probability.tolist()  # type: ignore[union-attr]
                    for name in ("default", "paper")
                },
            }
        )
    return {"seed": seed, "step": step, "rollouts": settings.rollouts, "batches": batches}


def measure_accuracy(
    model: str, held_out: str, strategy: str, step: int, seed: int, settings: Settings
) -> dict[str, Any]:
    """mean@8 on the held-out prompts; the same random numbers for all strategies of a seed."""
    import torch

    from viprl.quickstart.model import sample_completions

    network, tokenizer = _load(Path(model))
    rows = list(log_rows(held_out))
    generator = torch.Generator().manual_seed(1_000_003 * seed + step)
    drawn = sample_completions(
        network, tokenizer, [row["prompt"] for row in rows], settings.answers, generator, settings.max_tokens
    )
    scores = [float(np.mean(_score(tokenizer, group, row["solution"]))) for group, row in zip(drawn, rows, strict=True)]
    return {"strategy": strategy, "seed": seed, "step": step, "scores": scores}


def variance_ratio(batch: dict[str, Any], strategy: str) -> float:
    """Gradient variance of a strategy's counts against uniform's, by the measured RLOO law of each prompt."""
    a, b = np.array(batch["A"]), np.array(batch["B"])

    def variance(counts: list[int]) -> float:
        n = np.array(counts, dtype=float)
        return float((a / n + b / (n * (n - 1))).sum())

    return variance(batch["counts"][strategy]) / variance(batch["counts"]["uniform"])


def zero_advantage_share(batch: dict[str, Any], strategy: str, rollouts: int) -> float:
    """Expected share of rollouts in groups that are all right or all wrong: sum_q n_q (p^n_q + (1-p)^n_q) / C."""
    n, k = np.array(batch["counts"][strategy]), np.array(batch["successes"])
    settled = _all_chosen(k, n, rollouts) + _all_chosen(rollouts - k, n, rollouts)
    return float((n * settled).sum() / n.sum())


def _all_chosen(k: IntArray, n: IntArray, m: int) -> FloatArray:
    """C(k, n)/C(m, n), unbiased for p^n from k successes among m >= n rollouts."""
    log = gammaln(k + 1) - gammaln(np.maximum(k - n, 0) + 1) - gammaln(m + 1) + gammaln(m - n + 1)
    return np.where(k >= n, np.exp(log), 0.0)


def _score(tokenizer: Any, completions: list[list[int]], solution: str) -> list[float]:
    from viprl.rewards import exact_match

    texts = tokenizer.batch_decode(completions, skip_special_tokens=True)
    return [float(r or 0) for r in exact_match([None] * len(texts), texts, [solution] * len(texts))]


def _visits(outcomes: Path, step: int) -> Counter[str]:
    return Counter(key for row in log_rows(outcomes) if row["step"] <= step for key in row["ids"])


def _load(folder: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(str(folder))
    return model.eval(), AutoTokenizer.from_pretrained(str(folder), padding_side="left")


def read_result(path: Path) -> dict[str, Any] | None:
    """A result written before, None where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
