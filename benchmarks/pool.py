"""The time of a step of `viprl.VIP` after POOL prompts have been seen, and its memory.

usage: python benchmarks/pool.py POOL [--strategy default] [--options plain] [--steps 40] [--free-threads]
                                [--folder FOLDER]

Prints one JSON object. A step is what an engine calls: `allocate` (texts to keys, embeddings from the memory-mapped
file, prediction, counts) and `observe` (rewards to outcomes, learning), with Q = 512 and C = 8 Q. With --options it
selects from 1,024 candidates, matches the variance of uniform counts, has expected baselines, or two waves. --folder
keeps the state of VIP, and reads it if it is there; the memory is then not that of a run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import measure
import numpy as np
import stream

import viprl.utils.threads
import viprl.vip
from viprl import VIP
from viprl.features.cache import Features
from viprl.outcomes import GivenRollouts, RewardReader
from viprl.predictors.grid_filter import GridFilter
from viprl.predictors.text_regression import TextMixture
from viprl.reward_groups import GroupOutcomes, RewardGroups
from viprl.strategies import Strategy

Q = 512
PARTS = [
    ("keys and texts of the prompts", viprl.vip, "PromptBatch"),
    ("embeddings from the file", Features, "__call__"),
    ("text regressions", TextMixture, "predict"),
    ("text regressions", TextMixture, "observe"),
    ("filter of each prompt", GridFilter, "predict"),
    ("filter of each prompt", GridFilter, "observe"),
    ("counts, guard", Strategy, "propose"),
    ("counts, guard", Strategy, "review"),
    ("rewards to outcomes", GivenRollouts, "read"),
    ("rewards to outcomes", RewardReader, "batch"),
    ("rewards to outcomes", RewardGroups, "of_rewards"),
    ("rewards to outcomes", GroupOutcomes, "of"),
    ("rest", VIP, "select"),
    ("rest", VIP, "allocate"),
    ("rest", VIP, "next"),
    ("rest", VIP, "observe"),
]


OPTIONS: dict[str, dict[str, str]] = {
    "plain": {},
    "candidates": {},
    "match": {"spend": "match"},
    "expected": {"baseline": "expected"},
    "waves": {},
}


def filled(vip: VIP, pool: int, rng: np.random.Generator) -> float:
    """Let `vip` see `pool` prompts once. Returns the peak of its memory."""
    peak = 0.0
    for start in range(0, pool, 4096):
        numbers = np.arange(start, min(start + 4096, pool))
        vip.observe(stream.prompts(numbers), stream.rewards(numbers, np.full(len(numbers), 8), rng))
        peak = max(peak, measure.megabytes())
    return peak


def steps(
    vip: VIP, pool: int, repetitions: int, rng: np.random.Generator, options: str = "plain"
) -> tuple[measure.Times, dict[str, float]]:
    """Times of whole steps, and mean milliseconds of `allocate` and `observe`."""
    times, parts = measure.Times([], []), {"allocate": 0.0, "observe": 0.0}
    for repetition in range(repetitions + 1):
        numbers = rng.choice(pool, min(2 * Q if options == "candidates" else Q, pool), replace=False)
        watch = Watch()
        asked = stream.prompts(numbers)
        with watch:
            if options == "candidates":
                chosen = vip.select(asked, budget=8 * Q, size=min(Q, pool))
                numbers, plan = numbers[chosen.positions], chosen.allocation
                asked = [asked[position] for position in chosen.positions]
            else:
                plan = vip.allocate(asked, budget=8 * len(numbers), waves=2 if options == "waves" else 1)
        answers = stream.rewards(numbers, plan.counts, rng)
        if plan.waves is not None:
            with watch:
                plan = vip.next(plan, answers)
            later = stream.rewards(numbers, plan.counts, rng)
            answers = [first + second for first, second in zip(answers, later, strict=True)]
        planned = watch.wall
        with watch:
            vip.observe(asked, answers)
        if repetition == 0:
            continue  # a warm-up: some things are built once
        times.wall.append(1e3 * watch.wall)
        times.cpu.append(1e3 * watch.cpu)
        parts["allocate"] += 1e3 * planned / repetitions
        parts["observe"] += 1e3 * (watch.wall - planned) / repetitions
    return times, parts


class Watch:
    """Seconds inside its contexts."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter() - self._began[0]
        self.cpu += time.process_time() - self._began[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", type=int)
    parser.add_argument("--strategy", default="default")
    parser.add_argument("--options", choices=OPTIONS, default="plain")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--free-threads", action="store_true", help="run the linear algebra on all cores")
    arguments = parser.parse_args()
    if arguments.free_threads:
        viprl.utils.threads._controller = lambda: SimpleNamespace(limit=lambda **_: nullcontext())
    rng, start = np.random.default_rng(0), measure.megabytes()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary if arguments.folder is None else arguments.folder)
        options = {"strategy": arguments.strategy, "min_rollouts": 2, "max_rollouts": 48} | OPTIONS[arguments.options]
        vip = VIP(features=stream.features(), cache=str(folder / "cache"), **options)
        if (folder / "state").exists():
            vip.load(folder / "state")
            peak = float("nan")
        else:
            peak = filled(vip, arguments.pool, rng)
            if arguments.folder is not None:
                vip.save(folder / "state")
        times, halves = steps(vip, arguments.pool, arguments.steps, rng, arguments.options)
        shares = measure.Shares()
        with shares.of(PARTS):
            steps(vip, arguments.pool, 20, rng, arguments.options)
        peak = max(peak, measure.megabytes())
    print(
        json.dumps(
            {
                "pool": arguments.pool,
                "strategy": arguments.strategy,
                "options": arguments.options,
                "milliseconds": times.summary(),
                "halves": halves,
                "parts": {part: total / 21 for part, total in shares.milliseconds.items()},
                "megabytes": {"start": start, "peak": peak, "mapped": measure.megabytes("RssFile")},
            }
        )
    )


if __name__ == "__main__":
    main()
