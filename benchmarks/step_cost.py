"""Cost of a step, predict + allocate + observe at Q = 512 and C = 8Q, against the number of prompts seen so far.

usage: python benchmarks/step_cost.py [--pools 1000,10000,100000,1000000] [--steps 10]

Embeddings are synthetic (unit vectors of 386 columns), made when needed as a memory-mapped file would deliver them. In
one run beside the default: the published recursion, and scikit-learn's Gaussian process refitted to all prompts seen.
Prints medians with the quartiles; memory is the growth of the process since before the pool was seen.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np

from viprl.allocation import Budget
from viprl.predictors.protocol import Batch
from viprl.strategies import Strategy
from viprl.variance import get_estimator

Q, COLUMNS = 512, 386
DENSE_LIMIT, REFIT_LIMIT = 20_000, 2_000
"""Pools above which the published recursion, and the refitted process, take minutes or do not fit in memory."""


def prompts(rows: np.ndarray) -> Batch:
    """Keys and embeddings of rows; the same row always gets the same embedding."""
    seeds = np.random.default_rng(1).normal(size=(64, COLUMNS))
    mix = np.stack([np.sin((rows + 1.0) * (k + 1.7)) for k in range(64)], axis=1) @ seeds
    return Batch(tuple(map(str, rows)), mix / np.linalg.norm(mix, axis=1, keepdims=True))


def outcomes(rows: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    p = 0.5 + 0.5 * np.sin(rows * 12.9898)
    return rng.binomial(8, p).astype(float), np.full(len(rows), 8.0)


def filled(name: str, pool: int, rng: np.random.Generator) -> Strategy:
    strategy = Strategy(name)
    for start in range(0, pool, 4096):
        rows = np.arange(start, min(start + 4096, pool))
        strategy.predictor.observe(prompts(rows), *outcomes(rows, rng))
    return strategy


def one_step(strategy: Strategy, pool: int, spec: Budget, rng: np.random.Generator) -> dict[str, float]:
    rows = rng.choice(pool, Q, replace=False)
    batch, everyone = prompts(rows), np.arange(Q)
    k, n = outcomes(rows, rng)
    began = time.perf_counter()
    proposal = strategy.propose(batch, everyone, spec, seed=0)
    proposed = time.perf_counter()
    strategy.review(proposal, k, n, get_estimator("rloo"))
    strategy.predictor.observe(batch, k, n)
    return {"propose": proposed - began, "observe": time.perf_counter() - proposed}


def refit(pool: int, rng: np.random.Generator) -> Callable[[], None]:
    """scikit-learn's exact process on the clipped logits of all prompts seen, fixed kernel."""
    from scipy.special import logit
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF

    rows = np.arange(pool)
    k, n = outcomes(rows, rng)
    x, y = prompts(rows).features, logit(np.clip(k / n, 0.05, 0.95))
    asked = prompts(rng.choice(pool, Q, replace=False)).features
    return lambda: GaussianProcessRegressor(RBF(1.0), alpha=1e-4, optimizer=None).fit(x, y).predict(asked)


def report(name: str, pool: int, seconds: list[float], note: str = "") -> None:
    low, middle, high = 1e3 * np.percentile(seconds, [25, 50, 75])
    print(f"{name:<28} pool {pool:>9,}   {middle:8.1f} ms  [{low:.1f}, {high:.1f}]   {note}", flush=True)


def memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pools", default="1000,10000,100000,1000000")
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    spec = Budget.check(Q, 8 * Q, 2, 48, "rloo")
    for pool in map(int, arguments.pools.split(",")):
        for name in ("default", "paper"):
            if name == "paper" and pool > DENSE_LIMIT:
                continue
            rng, before = np.random.default_rng(0), memory()
            strategy = filled(name, pool, rng)
            one_step(strategy, pool, spec, rng)  # the first one pays for what is built once
            parts = [one_step(strategy, pool, spec, rng) for _ in range(arguments.steps)]
            split = ", ".join(f"{key} {1e3 * np.median([p[key] for p in parts]):.1f}" for key in parts[0])
            report(name, pool, [sum(p.values()) for p in parts], f"({split}; +{memory() - before:.0f} MiB)")
        if pool <= REFIT_LIMIT:
            step, seconds = refit(pool, np.random.default_rng(0)), []
            for _ in range(3):
                began = time.perf_counter()
                step()
                seconds.append(time.perf_counter() - began)
            report("scikit-learn GP, refitted", pool, seconds)


if __name__ == "__main__":
    main()
