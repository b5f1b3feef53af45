"""Pools, jobs and the results file of the learning curves."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from learning.arms import ARMS, Planned
from learning.moments import moments
from learning.policy import Policy, Task, tasks_of
from learning.training import Run, Setting, train
from viprl.features.cache import Features
from viprl.quickstart.tasks import POOL_SHARES, Group, late_rl_pool
from viprl.utils.json_lines import append_json_line, log_rows

PROMPTS, HELD_OUT = 512, 256


@dataclass(frozen=True)
class Regime:
    """A pool and an optimizer."""

    title: str
    shares: dict[Group, float]
    """Of live, solved and out-of-reach problems."""
    optimizer: str = "adamw"
    lr: float | None = None
    """In place of the arm's."""
    clip: float = Setting.clip
    """Largest norm of the gradient."""
    prompts: int = PROMPTS
    """In the pool."""
    budget: int = Setting.budget
    free_tokens: int = 0
    """After each answer."""
    features: bool = True
    """Whether the text of a prompt may be read."""


def _shares(live: float, solved: float, out_of_reach: float) -> dict[Group, float]:
    return {"live": live, "solved": solved, "out_of_reach": out_of_reach}


REGIMES = {
    "late": Regime("25 % live, 35 % solved, 40 % out of reach; AdamW", dict(POOL_SHARES)),
    "live": Regime("70 % live, 15 % solved, 15 % out of reach; AdamW", _shares(0.70, 0.15, 0.15)),
    "dead": Regime("10 % live, 45 % solved, 45 % out of reach; AdamW", _shares(0.10, 0.45, 0.45)),
    "sgd": Regime(
        "25 % live, 35 % solved, 40 % out of reach; SGD at a small rate, no clipping",
        dict(POOL_SHARES),
        "sgd",
        0.01,
        1e9,
    ),
    "new": Regime(
        "25 % live, 35 % solved, 40 % out of reach; AdamW; no prompt is seen twice, 8 rollouts each",
        dict(POOL_SHARES),
        prompts=8192,
        budget=256,
        features=False,
    ),
    "text": Regime(
        "25 % live, 35 % solved, 40 % out of reach; AdamW; no prompt is seen twice, 8 rollouts each, free text after "
        "each answer",
        dict(POOL_SHARES),
        prompts=8192,
        budget=256,
        free_tokens=4,
        features=False,
    ),
}


@dataclass(frozen=True)
class Job:
    """One training run."""

    arm: str
    seed: int
    regime: str = "late"
    lr: float | None = None
    """In place of the regime's or the arm's."""
    steps: int = Setting.steps
    measured: tuple[int, ...] = ()
    """Steps at which the second moment is measured."""

    @property
    def rate(self) -> float:
        """The learning rate."""
        return self.lr or REGIMES[self.regime].lr or ARMS[self.arm].lr


def run_all(jobs: Sequence[Job], folder: Path, processes: int | None = None) -> Iterator[dict[str, Any]]:
    """The results of all jobs, as rows; those that are in the folder are not run again."""
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "results.jsonl"
    known = {_key(row): row for row in log_rows(results)} if results.exists() else {}
    wanted = {_key({**asdict(job), "lr": job.rate}): job for job in jobs}
    yield from (row for key, row in known.items() if key in wanted)
    missing = [job for key, job in wanted.items() if key not in known]
    if not missing:
        return
    _setup(folder)  # once, before the processes need it
    workers = processes or len(os.sched_getaffinity(0))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for done in as_completed([pool.submit(run_one, job, folder) for job in missing]):
            append_json_line(results, done.result())
            yield done.result()


def run_one(job: Job, folder: Path) -> dict[str, Any]:
    """One row of the results."""
    start, pool, held_out = _pool(job.regime, folder)
    regime = REGIMES[job.regime]
    setting = replace(
        Setting(),
        steps=job.steps,
        optimizer=regime.optimizer,
        clip=regime.clip,
        budget=regime.budget,
        free_tokens=regime.free_tokens,
    )
    plan = ARMS[job.arm]
    run = Run(start.copy(), pool, setting, job.seed, plan.by_steps)
    arm = plan.build(_features(folder) if regime.features else None, job.seed)
    curve, measured = [], []
    for point in train(run, arm, held_out, job.rate):
        curve.append(list(asdict(point).values()))
        if point.step in job.measured and isinstance(arm, Planned):
            measured.append(asdict(moments(run, arm, point.step)))
    return {**asdict(job), "lr": job.rate, "curve": curve, "moments": measured}


@cache
def _setup(folder: Path) -> Policy:
    return Policy.pretrained(folder / "start")


@cache
def _pool(regime: str, folder: Path) -> tuple[Policy, list[Task], list[Task]]:
    """The policy at the start, the pool and the held-out problems, the same for every seed."""
    problems = late_rl_pool(np.random.default_rng(0), REGIMES[regime].prompts, HELD_OUT, REGIMES[regime].shares)
    return _setup(folder), tasks_of(problems[0]), tasks_of(problems[1])


@cache
def _features(folder: Path) -> Callable[[list[str]], np.ndarray]:
    """MiniLM and length, as by default, cached in the folder and in memory."""
    features, known = Features(folder / "features"), dict[str, np.ndarray]()
    features.prepare("minilm+length")

    def vectors(texts: list[str]) -> np.ndarray:
        new = [text for text in texts if text not in known]
        if new:
            known.update(zip(new, np.asarray(features("minilm+length", new)), strict=True))
        return np.stack([known[text] for text in texts])

    return vectors


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["arm"], row["seed"], row["regime"], row["lr"], row["steps"], tuple(row["measured"])
