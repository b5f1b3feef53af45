"""The exact allocation against general solvers: SLSQP, cvxpy and a heap, on the same problems in one run.

usage: python benchmarks/allocation_speed.py [--prompts 128,512,2048,10000,100000] [--seeds 3] [--limit 60]
                                             [--bounds 2:32,4:16,2:64] [--without METHODS] [--json OUT]

A problem is Q success probabilities, C = 8 Q rollouts and bounds [L, U]: minimise sum_q p_q (1 - p_q)/(n_q - 1) with
whole n_q, L <= n_q <= U, sum n_q = C. The probabilities come from four distributions: U-shaped Beta(.4, .4), uniform,
successes of 8 rollouts (many ties), and two levels, which break rounding.

    viprl.allocate     exact; what `VIP.allocate` calls
    SLSQP              the solver of the paper's released code, `scipy.optimize.minimize(method="SLSQP")`, on the
                       relaxation, from uniform counts, with the gradient; then floor, and one rollout at a time to the
                       largest decrease
    SLSQP without gradient
                       the same with a gradient by finite differences
    cvxpy              the same relaxation by Clarabel, rounded in the same way
    heap               one rollout at a time from L to the largest decrease, with `heapq`; exact, because the decreases
                       of a prompt fall

The methods take turns on each problem. Times are processor time, which depends little on other work of the machine. A
method gets no further problem of a size after --limit seconds, and none at all where one problem would take longer,
by its time at the size before. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cvxpy
import numpy as np
from scipy.optimize import minimize

import viprl

AVERAGE = 8
OURS, HEAP = "viprl.allocate", "heap"


@dataclass(frozen=True)
class Problem:
    """Success probabilities [Q] and bounds; the budget is C = 8 Q."""

    p: np.ndarray
    least: int
    most: int

    @property
    def weights(self) -> np.ndarray:
        return self.p * (1 - self.p)

    @property
    def budget(self) -> int:
        return AVERAGE * len(self.p)

    def value(self, counts: np.ndarray) -> float:
        return math.fsum((self.weights / (np.asarray(counts, dtype=float) - 1)).tolist())  # exact up to one rounding


DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "beta(.4, .4)": lambda rng, q: rng.beta(0.4, 0.4, q),
    "uniform": lambda rng, q: rng.random(q),
    "k of 8": lambda rng, q: rng.binomial(8, rng.beta(0.4, 0.4, q)) / 8,
    "two levels": lambda rng, q: np.where(np.arange(q) < q * rng.uniform(0.02, 0.12), 0.5, rng.uniform(0.005, 0.03)),
}


def ours(problem: Problem) -> np.ndarray:
    bounds = {"min_rollouts": problem.least, "max_rollouts": problem.most}
    return viprl.allocate(problem.p, budget=problem.budget, **bounds).counts


def slsqp(problem: Problem, *, gradient: bool = True) -> np.ndarray:
    a, q = problem.weights, len(problem.p)
    derivative = {"jac": lambda n: -a / (n - 1) ** 2} if gradient else {}
    found = minimize(
        lambda n: float((a / (n - 1)).sum()),
        np.full(q, float(AVERAGE)),
        method="SLSQP",
        bounds=[(problem.least, problem.most)] * q,
        constraints={"type": "eq", "fun": lambda n: n.sum() - problem.budget, "jac": np.ones_like},
        options={"maxiter": 1000},
        **derivative,
    )
    return rounded(found.x, problem)


def convex(problem: Problem) -> np.ndarray:
    n = cvxpy.Variable(len(problem.p))
    variance = cvxpy.sum(cvxpy.multiply(problem.weights, cvxpy.inv_pos(n - 1)))
    bounds = [n >= problem.least, n <= problem.most, cvxpy.sum(n) == problem.budget]
    cvxpy.Problem(cvxpy.Minimize(variance), bounds).solve(solver=cvxpy.CLARABEL)
    if n.value is None:
        raise RuntimeError("Clarabel found no solution")
    return rounded(n.value, problem)


def rounded(relaxed: np.ndarray, problem: Problem) -> np.ndarray:
    """The floor, then one rollout at a time to the largest decrease."""
    return filled(np.clip(np.floor(relaxed + 1e-9), problem.least, problem.most).astype(int), problem)


def heap(problem: Problem) -> np.ndarray:
    return filled(np.full(len(problem.p), problem.least), problem)


def filled(start: np.ndarray, problem: Problem) -> np.ndarray:
    """Counts with the rollouts that are left, each to the prompt whose variance it lowers most."""
    counts, a, most = start.tolist(), problem.weights.tolist(), problem.most
    queue = [(-a[q] / (n * (n - 1)), q) for q, n in enumerate(counts) if n < most]
    heapq.heapify(queue)
    for _ in range(problem.budget - sum(counts)):
        _, q = queue[0]
        counts[q] = n = counts[q] + 1
        if n < most:
            heapq.heapreplace(queue, (-a[q] / (n * (n - 1)), q))
        else:
            heapq.heappop(queue)
    return np.array(counts)


METHODS: dict[str, Callable[[Problem], np.ndarray]] = {
    OURS: ours,
    "SLSQP": slsqp,
    "SLSQP without gradient": lambda problem: slsqp(problem, gradient=False),
    "cvxpy": convex,
    HEAP: heap,
}
GROWTH = {"SLSQP": 3.0, "SLSQP without gradient": 3.0}
"""Power of Q with which the time of a method grows; 1 for the others."""


def timed(solve: Callable[[Problem], np.ndarray], problem: Problem) -> tuple[float, float]:
    """Milliseconds of processor time, and the variance."""
    began = time.process_time()
    counts = solve(problem)
    elapsed = 1e3 * (time.process_time() - began)
    if counts.sum() != problem.budget or counts.min() < problem.least or counts.max() > problem.most:
        raise RuntimeError("the counts do not spend the budget within the bounds")
    return elapsed, problem.value(counts)


def measured(prompts: list[int], bounds: list[tuple[int, int]], seeds: int, limit: float) -> list[dict[str, Any]]:
    """One row for each size and method: the time and the variance of every problem."""
    rows, expected = [], dict.fromkeys(METHODS, 0.0)
    for size in prompts:
        problems = [
            Problem(draw(np.random.default_rng([seed, size, turn]), size), least, most)
            for seed in range(seeds)
            for turn, draw in enumerate(DISTRIBUTIONS.values())
            for least, most in bounds
        ]
        own: dict[str, list[tuple[float, float]]] = {name: [] for name in METHODS if expected[name] <= limit}
        for problem in problems:
            for name in list(own):
                if sum(ms for ms, _ in own[name]) <= 1e3 * limit:  # otherwise the first problems have to do
                    own[name].append(timed(METHODS[name], problem))
        for name in METHODS:
            row: dict[str, Any] = {"prompts": size, "method": name, "expected_seconds": expected[name]}
            if name in own:
                row["milliseconds"], row["variance"] = map(list, zip(*own[name], strict=True))
                later = prompts[prompts.index(size) + 1 :]
                if later:
                    growth = (later[0] / size) ** GROWTH.get(name, 1.0)
                    expected[name] = np.median(row["milliseconds"]) / 1e3 * growth
            rows.append(row)
            print(line(row, rows), flush=True)
    return rows


def line(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """A row of the table."""
    label = f"| {row['prompts']:,} | {row['method']} |"
    if "milliseconds" not in row:
        return f"{label} not run: about {row['expected_seconds']:,.0f} s or more | | | | |"
    reference = next(one for one in rows if one["prompts"] == row["prompts"] and one["method"] == OURS)
    count = len(row["milliseconds"])
    times = np.array(row["milliseconds"])
    ratio = times / np.array(reference["milliseconds"][:count])
    excess = np.array(row["variance"]) / np.array(reference["variance"][:count]) - 1
    low, middle, high = np.percentile(times, [25, 50, 75])
    cells = [f"{middle:.3g} ms ({low:.3g} to {high:.3g})"]
    if row["method"] == OURS:
        return f"{label} {cells[0]} | 1 | | | {count} |"
    cells.append("{1:.3g} ({0:.3g} to {2:.3g})".format(*np.percentile(ratio, [25, 50, 75])))
    cells.append(f"{excess.min():.1e}")
    cells.append(f"{excess.max():.1e}")
    return f"{label} {' | '.join(cells)} | {count} |"


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


def pairs(text: str) -> list[tuple[int, int]]:
    return [(int(least), int(most)) for least, _, most in (pair.partition(":") for pair in text.split(","))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=numbers, default=[128, 512, 2048, 10_000, 100_000])
    parser.add_argument("--bounds", type=pairs, default=[(2, 32), (4, 16), (2, 64)])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds of a method at one size")
    parser.add_argument("--without", default="", help="methods to leave out, separated by commas")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    arguments = parser.parse_args()
    for name in filter(None, arguments.without.split(",")):
        del METHODS[name]
    warnings.simplefilter("ignore")  # of the solvers, about accuracy
    timed(ours, Problem(np.full(8, 0.5), 2, 32))  # imports
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}. Quartiles over distributions, bounds and seeds.\n")
    print(
        "| Q | method | processor time (quartiles) | relative to ours | variance above ours: least | most | problems |"
    )
    print("|---|---|---|---|---|---|---|")
    rows = measured(arguments.prompts, arguments.bounds, arguments.seeds, arguments.limit)
    worst = min(
        other / own - 1
        for row in rows
        if "variance" in row
        for other, own in zip(row["variance"], next(
            one for one in rows if one["prompts"] == row["prompts"] and one["method"] == OURS
        )["variance"], strict=False)
    )  # fmt: skip
    print(f"\nLargest share by which another method was better than viprl.allocate: {max(0.0, -worst):.1e}.")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
