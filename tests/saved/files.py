"""Writes what a version of viprl saves, for the test that later versions read it: python tests/saved/files.py FOLDER

Done once for each release, into tests/saved/VERSION. A release that cannot read the folder of the one before needs a
reader for it, not a new folder in its place.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import viprl
from viprl.runs.history import PromptHistory, save_history
from viprl.runs.run_log import RunLog
from viprl.runs.visits import Visit

PROMPTS = [f"How much is {i} + {i % 7}?" for i in range(12)]
OPTIONS: dict[str, Any] = {"features": "length", "cache": None, "seed": 1}
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "all_options": {"spend": "match", "cost": "tokens", "baseline": "expected", "shadow": ["ema"]},
    "paper": {"strategy": "paper"},
}
BUDGET = 48


def rewards_of(step: int, counts: np.ndarray) -> list[list[float]]:
    """Outcomes without a random generator, so that every version sees the same ones."""
    return [[float((3 * q + 5 * step + 7 * i) % 12 < q) for i in range(n)] for q, n in enumerate(counts)]


def trained(variant: str, steps: int = 3) -> viprl.VIP:
    vip = viprl.VIP(**OPTIONS | VARIANTS[variant])
    for step in range(steps):
        plan = vip.allocate(PROMPTS, BUDGET)
        lengths = [[10 + q + i % 3 for i in range(n)] for q, n in enumerate(plan.counts)]
        vip.observe(PROMPTS, rewards_of(step, plan.counts), lengths=lengths)
    return vip


def next_counts(vip: viprl.VIP) -> list[int]:
    return vip.allocate(PROMPTS, BUDGET).counts.tolist()


def histories() -> list[PromptHistory]:
    """Successes alone; with rewards; with lengths."""
    rewards = np.array([0.25, 1.0, -2.0])
    visits = [Visit(4.0, 1.0), Visit(3.0, np.nan, rewards), Visit(2.0, 2.0, None, np.array([7.0, np.nan]))]
    return [PromptHistory.of(f"id {q}", PROMPTS[q], [visit, visit], "42") for q, visit in enumerate(visits)]


def write(folder: Path) -> None:
    planned = {}
    for variant in VARIANTS:
        vip = trained(variant)
        vip.save(folder / f"{variant}.vip")
        planned[variant] = next_counts(vip)
    (folder / "next_counts.json").write_text(json.dumps(planned) + "\n")

    save_history(folder / "history.jsonl", histories())

    log = RunLog(folder / "run", strategy="default", seed=1)
    for step in (1, 2):
        counts = np.array([2, 4, 6])
        log.outcomes(step, ["a", "b", "c"], counts.tolist(), [0, 2, 6], counts.tolist())
        log.metrics(step, {"vip/success_rate": 0.5, "vip/counts/min": 2, "vip/counts/max": 6})


if __name__ == "__main__":
    write(Path(sys.argv[1]))
