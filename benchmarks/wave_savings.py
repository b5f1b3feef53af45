"""Rollouts that `spend="match"` saves with two waves on prompts that were never seen, and the variance that results.

usage: python benchmarks/wave_savings.py [--batch 128] [--rollouts 8] [--batches 10] [--seeds 10]

Every batch has new prompts of one of the pools of `waves.py`, so that a VIP without features knows their population
alone, from the second batch on. The variance is that which the groups showed, relative to uniform counts at the whole
budget: unbiased, without the part of the signal (rho). Prints one JSON object a line: mean and standard error over
seeds, without the first two batches.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

import numpy as np
from waves import POOLS, drawn

from viprl import VIP


def rolled(p: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> list[list[float]]:
    """[Q][n] rewards of 0 or 1."""
    return [(rng.random(n) < chance).astype(float).tolist() for chance, n in zip(p, counts, strict=True)]


def steps(vip: VIP, pool: str, waves: int, given: argparse.Namespace, rng: np.random.Generator) -> Iterator[tuple]:
    """Of each batch the share of the rollouts that was spent, its variance, and that of uniform counts."""
    budget = given.rollouts * given.batch
    for number in range(given.batches):
        prompts, p = [f"{number}.{i}" for i in range(given.batch)], drawn(pool, given.batch, rng)
        first = vip.allocate(prompts, budget, waves=waves)
        rewards = rolled(p, first.counts, rng)
        second = vip.next(first, rewards)
        rewards = [a + b for a, b in zip(rewards, rolled(p, second.counts, rng), strict=True)]
        variance = vip.observe(prompts, rewards).variance
        if number >= 2 and variance is not None:
            yield (first.counts + second.counts).sum() / budget, *variance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("batch", 128), ("rollouts", 8), ("least", 2), ("most", 48), ("batches", 10), ("seeds", 10)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    for pool in POOLS:
        for waves in (1, 2):
            found = []
            for seed in range(given.seeds):
                vip = VIP(features=None, min_rollouts=given.least, max_rollouts=given.most, spend="match", seed=seed)
                rows = np.array(list(steps(vip, pool, waves, given, np.random.default_rng(seed))))
                found.append((rows[:, 0].mean(), rows[:, 1].sum() / rows[:, 2].sum()))
            mean, error = np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / np.sqrt(given.seeds)
            numbers = {
                name: [round(float(m), 3), round(float(e), 3)]
                for name, m, e in zip(("spent", "variance ratio"), mean, error, strict=True)
            }
            print(json.dumps({"pool": pool, "waves": waves, **numbers}), flush=True)


if __name__ == "__main__":
    main()
