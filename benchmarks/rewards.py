"""Rewards of many kinds: the gradient variance of each strategy relative to uniform allocation, by visit.

usage: python benchmarks/rewards.py [--seeds 8] [--strategies default,ema] [--streams "format credit,scores"]
                                     [--pool runs/quickstart/arms/default-seed0/history.jsonl.gz]

Each of 256 prompts is visited ten times, in batches of 64 with 8 rollouts on average, at least 2 and at most 48. The
variances are the true ones. "oracle" allocates with the true variances. Prints one JSON object: for each stream and
strategy the mean ratio at visits 1, 2, 3 to 5 and 6 to 10, and its standard error over seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

import numpy as np
from reward_streams import STREAMS
from rich.console import Console
from rich.table import Table

from viprl import VIP
from viprl.allocation.optimum import allocate_weights
from viprl.runs.engine_logs import read_history
from viprl.utils.arrays import FloatArray
from viprl.utils.numerics import logit

PROMPTS, BATCH, ROLLOUTS, VISITS = 256, 64, 8, 10
BOUNDS = {"min_rollouts": 2, "max_rollouts": 48}
PHASES = {"1": (0, 1), "2": (1, 2), "3-5": (2, 5), "6-10": (5, 10)}


def play(
    stream: str, strategy: str, seed: int, rates: FloatArray | None = None
) -> Iterator[tuple[int, float, float, float]]:
    """(visit, variance, uniform's, the oracle's) of each batch. `rates` replace the pool's success probabilities."""
    pool, rng = STREAMS[stream](PROMPTS, np.random.default_rng([seed, 1])), np.random.default_rng([seed, 2])
    if rates is not None:
        pool.right = logit(rng.choice(rates, PROMPTS, replace=False))
    vip = VIP(strategy=strategy, features=None, cache=None, seed=seed, **BOUNDS)
    for visit in range(VISITS):
        for rows in np.split(rng.permutation(PROMPTS), PROMPTS // BATCH):
            pool.move()
            counts = vip.allocate([f"prompt {row}" for row in rows], BATCH * ROLLOUTS).counts
            rewards = np.split(pool.draw(np.repeat(rows, counts), rng), np.cumsum(counts)[:-1])
            vip.observe([f"prompt {row}" for row in rows], [group.tolist() for group in rewards])
            variance = pool.variance()[rows]
            best = allocate_weights(variance, budget=BATCH * ROLLOUTS, **BOUNDS).counts
            yield visit, *(float((variance / (n - 1)).sum()) for n in (counts, np.full(BATCH, ROLLOUTS), best))


def success_rates(history: str) -> FloatArray:
    """[N] success rate of each prompt of a history file over all its visits, within 0 and 1."""
    sums = np.array([(h.successes.sum(), h.rollouts.sum()) for h in read_history(history)])
    return (sums[:, 0] + 0.05) / (sums[:, 1] + 0.1)


def ratios(
    stream: str, strategy: str, seeds: int, rates: FloatArray | None = None
) -> dict[str, dict[str, tuple[float, float]]]:
    """For the strategy and the oracle, by phase: mean ratio to uniform and its standard error over seeds."""
    found: dict[str, dict[str, list[float]]] = {who: {phase: [] for phase in PHASES} for who in (strategy, "oracle")}
    for seed in range(seeds):
        steps = np.array(list(play(stream, strategy, seed, rates)))
        for phase, (first, end) in PHASES.items():
            inside = steps[(steps[:, 0] >= first) & (steps[:, 0] < end)].sum(axis=0)
            for who, column in ((strategy, 1), ("oracle", 3)):
                found[who][phase].append(inside[column] / inside[2] if inside[2] > 0 else 1.0)
    return {
        who: {phase: (float(np.mean(r)), float(np.std(r) / np.sqrt(max(len(r) - 1, 1)))) for phase, r in rows.items()}
        for who, rows in found.items()
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--strategies", default="default")
    parser.add_argument("--streams", default=",".join(STREAMS))
    parser.add_argument("--pool", help="a history file, whose success rates replace those of the simulated pool")
    args = parser.parse_args()
    table = Table("stream", "strategy", *(f"visit {phase}" for phase in PHASES))
    rates = success_rates(args.pool) if args.pool else None
    results = {}
    for stream in args.streams.split(","):
        results[stream] = {}
        for strategy in args.strategies.split(","):
            results[stream] |= ratios(stream, strategy, args.seeds, rates)
        for who, row in results[stream].items():
            table.add_row(stream, who, *(f"{mean:.3f} ({error:.3f})" for mean, error in row.values()))
    Console(stderr=True).print(table)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
