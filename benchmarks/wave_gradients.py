"""Variance of whole batch gradients, by sampling: uniform counts, two waves and counts with true p on the same prompts.

usage: PYTHONPATH=benchmarks python benchmarks/wave_gradients.py FOLDER [--draws 150] [--free 0,4] [--batches 8]

The policy at the start and the pool of the regime `new` of the learning benchmark; FOLDER keeps the policy. VIP has
learned the population from some batches. Then one further batch is sampled again and again at the same parameters.
`--free` are numbers of tokens of free text after each answer. Prints one JSON object for each of them: the variance of
the gradient (trace) relative to uniform counts, with its standard error, and |mean gradient|^2 of each design.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from learning.arms import Planned
from learning.experiment import _pool
from learning.training import Run, Setting, Update, ascend

from viprl import allocate

PROMPTS, BUDGET = 32, 256


def gradient(run: Run, update: Update) -> torch.Tensor:
    """[parameters]."""
    still = torch.optim.SGD(run.policy.parameters, lr=0.0)
    ascend(run.policy, update, still, 0.0, 1e9)
    return torch.cat([p.grad.reshape(-1) for p in run.policy.parameters if p.grad is not None]).clone()


def measured(draw: Callable[[], torch.Tensor], draws: int) -> tuple[float, float, float]:
    """Variance, its standard error, and |mean|^2 without bias."""
    found = torch.stack([draw() for _ in range(draws)])
    squares = ((found - found.mean(0)) ** 2).sum(1) * draws / (draws - 1)
    variance, error = float(squares.mean()), float(squares.std()) / draws**0.5
    return variance, error, float(found.mean(0) @ found.mean(0)) - variance / draws


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draws", type=int, default=150)
    parser.add_argument("--free", default="0,4")
    parser.add_argument("--batches", type=int, default=8)
    given = parser.parse_args()
    torch.set_num_threads(1)
    start, pool, _ = _pool("new", given.folder)
    for free in map(int, given.free.split(",")):
        run = Run(start.copy(), pool, Setting(budget=BUDGET, free_tokens=free), 0)
        arm = Planned("default", None, 0, waves=2)
        for _ in range(given.batches):
            arm.step(run)
        tasks = run.draw(PROMPTS)
        p, state = run.policy.success(tasks), arm.vip.state_dict()
        best = allocate(np.clip(p, 1e-4, 1), budget=BUDGET, min_rollouts=2, max_rollouts=48).counts
        again = replace(run, order=[])

        def two_waves(run: Run = again, tasks: list = tasks, state: dict = state) -> Update:
            arm = Planned("default", None, 0, waves=2)
            arm.vip.load_state_dict(state)
            run.order = [run.pool.index(task) for task in reversed(tasks)]
            return arm.step(run)

        designs = {
            "uniform": lambda run=run, tasks=tasks: Update(run.roll(tasks, np.full(PROMPTS, BUDGET // PROMPTS))),
            "two waves": two_waves,
            "true p": lambda run=run, tasks=tasks, best=best: Update(run.roll(tasks, best)),
        }
        found = {
            name: measured(lambda run=run, make=make: gradient(run, make()), given.draws)
            for name, make in designs.items()
        }
        unit = found["uniform"][0]
        numbers = {
            name: {"variance": [round(v / unit, 3), round(e / unit, 3)], "|mean|^2": round(square, 3)}
            for name, (v, e, square) in found.items()
        }
        print(json.dumps({"free tokens": free, **numbers}), flush=True)


if __name__ == "__main__":
    main()
