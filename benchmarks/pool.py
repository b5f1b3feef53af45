"""The time of a step of `viprl.VIP` after POOL prompts have been seen, and its memory.

usage: python benchmarks/pool.py POOL [--strategy default] [--steps 40] [--free-threads]

Prints one JSON object. A step is what an engine calls: `allocate` (texts to keys, embeddings from the memory-mapped
file, prediction, counts) and `observe` (rewards to outcomes, learning), with Q = 512 and C = 8 Q.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import nullcontext
from types import SimpleNamespace

import measure
import numpy as np
import stream

import viprl.utils.threads
import viprl.vip
from viprl import VIP
from viprl.features.cache import Features
from viprl.predictors.grid_filter import GridFilter
from viprl.predictors.text_regression import TextMixture
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
    ("rewards to outcomes", viprl.vip, "tally"),
    ("rewards to outcomes", viprl.vip.RewardReader, "__call__"),
    ("rest", VIP, "allocate"),
    ("rest", VIP, "observe"),
]


def filled(strategy: str, pool: int, folder: str, rng: np.random.Generator) -> tuple[VIP, float]:
    """A VIP that has seen `pool` prompts once, and the peak of its memory."""
    vip = VIP(strategy=strategy, features=stream.features(), cache=folder, min_rollouts=2, max_rollouts=48)
    peak = 0.0
    for start in range(0, pool, 4096):
        numbers = np.arange(start, min(start + 4096, pool))
        vip.observe_counts(stream.prompts(numbers), *stream.outcomes(numbers, rng))
        peak = max(peak, measure.megabytes())
    return vip, peak


def steps(vip: VIP, pool: int, repetitions: int, rng: np.random.Generator) -> tuple[measure.Times, dict[str, float]]:
    """Times of whole steps, and mean milliseconds of `allocate` and `observe`."""
    times, parts = measure.Times([], []), {"allocate": 0.0, "observe": 0.0}
    for repetition in range(repetitions + 1):
        numbers = rng.choice(pool, min(Q, pool), replace=False)
        asked = stream.prompts(numbers)
        wall, cpu = time.perf_counter(), time.process_time()
        counts = vip.allocate(asked, budget=8 * len(numbers)).counts
        allocated, allocated_cpu = time.perf_counter(), time.process_time()
        answers = stream.rewards(numbers, counts, rng)
        wall_again, cpu_again = time.perf_counter(), time.process_time()
        vip.observe(asked, answers)
        done, done_cpu = time.perf_counter(), time.process_time()
        if repetition == 0:
            continue  # a warm-up: some things are built once
        times.wall.append(1e3 * (allocated - wall + done - wall_again))
        times.cpu.append(1e3 * (allocated_cpu - cpu + done_cpu - cpu_again))
        parts["allocate"] += 1e3 * (allocated - wall) / repetitions
        parts["observe"] += 1e3 * (done - wall_again) / repetitions
    return times, parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", type=int)
    parser.add_argument("--strategy", default="default")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--free-threads", action="store_true", help="run the linear algebra on all cores")
    arguments = parser.parse_args()
    if arguments.free_threads:
        viprl.utils.threads._controller = lambda: SimpleNamespace(limit=lambda **_: nullcontext())
    rng, start = np.random.default_rng(0), measure.megabytes()
    with tempfile.TemporaryDirectory() as folder:
        vip, peak = filled(arguments.strategy, arguments.pool, folder, rng)
        times, halves = steps(vip, arguments.pool, arguments.steps, rng)
        shares = measure.Shares()
        with shares.of(PARTS):
            steps(vip, arguments.pool, 20, rng)
        peak = max(peak, measure.megabytes())
    print(
        json.dumps(
            {
                "pool": arguments.pool,
                "strategy": arguments.strategy,
                "milliseconds": times.summary(),
                "halves": halves,
                "parts": {part: total / 21 for part, total in shares.milliseconds.items()},
                "megabytes": {"start": start, "peak": peak, "mapped": measure.megabytes("RssFile")},
            }
        )
    )


if __name__ == "__main__":
    main()
