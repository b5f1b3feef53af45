"""What expected baselines save on the log of a real run: the variance relative to leave-one-out baselines.

usage: python benchmarks/shrinkage.py LOG [--rollouts 2,4,8] [--batch 128] [--seeds 3]

Each visit of the log is a group. Of its outcomes the first n, in random order, are the rollouts of a step; VIP learns
from those alone. The variance of a prompt is sum_i (r_i - b_i)^2 / n^2, up to the size of the scores. Prints one JSON
object: for each n and phase of visits the ratio of the sums, mean and standard deviation over seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

import numpy as np

from viprl import VIP, group_advantages
from viprl.runs.engine_logs import read_history
from viprl.runs.history import PromptHistory

PHASES = {"1": (0, 1), "2": (1, 2), "3-5": (2, 5), "6-10": (5, 10), "11+": (10, 10**9)}


def play(histories: list[PromptHistory], n: int, batch: int, seed: int) -> Iterator[tuple[int, float, float]]:
    """(visit, squares with expected baselines, with leave-one-out baselines) of each batch."""
    rng, vip = np.random.default_rng(seed), VIP(features=None, min_rollouts=2, seed=seed, baseline="expected")
    for visit in range(max(len(history.successes) for history in histories)):
        there = [history for history in histories if len(history.successes) > visit and history.rollouts[visit] >= n]
        order = rng.permutation(len(there))
        for rows in np.split(order, range(batch, len(order), batch)):
            prompts = [there[row].id for row in rows]
            rewards = []
            for row in rows:
                k, m = int(there[row].successes[visit]), int(there[row].rollouts[visit])
                rewards.append(rng.permutation(np.repeat([1.0, 0.0], [k, m - k]))[:n].tolist())
            plan = vip.allocate(prompts, n * len(prompts), min_rollouts=n, max_rollouts=n)
            flat = np.concatenate(rewards)
            expected, group = (group_advantages(flat, plan, prior=prior) for prior in (plan.prior, None))
            yield visit, float(expected @ expected), float(group @ group)
            vip.observe(prompts, rewards)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("log")
    parser.add_argument("--rollouts", default="2,4,8")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    histories, found = read_history(given.log), {}
    for n in map(int, given.rollouts.split(",")):
        sums = np.zeros((given.seeds, len(PHASES), 2))
        for seed in range(given.seeds):
            for visit, *squares in play(histories, n, given.batch, seed):
                phase = next(i for i, (first, end) in enumerate(PHASES.values()) if first <= visit < end)
                sums[seed, phase] += squares
        ratios = sums[..., 0] / np.where(sums[..., 1] > 0, sums[..., 1], np.nan)
        found[n] = {
            phase: [round(float(np.mean(r)), 3), round(float(np.std(r)), 3)]
            for phase, r in zip(PHASES, ratios.T, strict=True)
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
