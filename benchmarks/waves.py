"""First looks on prompts that were never seen: the exact variance relative to uniform counts, and capture on a log.

usage: python benchmarks/waves.py [LOG] [--pools dead] [--batch 128] [--rollouts 8] [--seeds 5] [--signals 0,0.3,1,3]

Batches of new prompts are drawn from a pool, or taken from the first visit of LOG. The filter of each prompt (without
features) gives the beliefs, and learns from what was sampled, so that from the second batch on it knows the population.
The variance is exact (`viprl.allocation.waves.variance`) at the true p, over all outcomes of a prompt, given the first
waves of the others, which decide the price. On a log, p is the mean of the first five visits.

The plan assumes the signal `viprl.allocation.waves.beliefs.SIGNAL`; the variance is given for several true signals.
Arms, all of C rollouts a batch: uniform counts with baselines of the group; the same with expected baselines; waves
with either; and the oracle, one wave with known p. Prints one JSON object a line: means over the batches after the
first, and the standard deviation over seeds.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict

import numpy as np
from scipy.stats import beta

from viprl.allocation.budget import Budget
from viprl.allocation.exact import exact_counts
from viprl.allocation.waves.beliefs import SIGNAL, Beliefs
from viprl.allocation.waves.look_plan import LookPlan
from viprl.allocation.waves.rule import plan_looks
from viprl.allocation.waves.second_wave import second_counts
from viprl.allocation.waves.tabulated import TabulatedVariance
from viprl.allocation.waves.variance import factors, look_table
from viprl.predictors.base import Batch
from viprl.predictors.grid_filter import GridFilter, Z
from viprl.runs.engine_logs import read_history
from viprl.utils.numerics import expit

Run = tuple[int, int]
POOLS = {
    "75 % dead, live uniform": (0.25, 0.0, (1, 1)),
    "75 % dead, live 1/2": (0.25, 0.0, (1e6, 1e6)),
    "75 % dead, live hard": (0.25, 0.0, (1, 3)),
    "half dead, live uniform": (0.5, 0.0, (1, 1)),
    "half dead, live 1/2": (0.5, 0.0, (1e6, 1e6)),
    "quarter dead, quarter solved, live uniform": (0.5, 0.5, (1, 1)),
    "all live, uniform": (1.0, 0.0, (1, 1)),
    "all live, 1/2": (1.0, 0.0, (1e6, 1e6)),
}
"""Share that is live, share of the others that is solved, and the Beta density of the live ones."""


def drawn(pool: str, prompts: int, rng: np.random.Generator) -> np.ndarray:
    """[prompts] success probabilities."""
    live, solved, (a, b) = POOLS[pool]
    others = (rng.random(prompts) < solved).astype(float)
    return np.where(rng.random(prompts) < live, rng.beta(a, b, prompts), others)


def population(pool: str) -> np.ndarray:
    """[G] the chance of each value of the grid of the filter in a pool."""
    live, solved, (a, b) = POOLS[pool]
    chance = live * np.diff(beta.cdf(np.concatenate([[0], expit((Z[1:] + Z[:-1]) / 2), [1]]), a, b))
    chance[[0, -1]] += (1 - live) * np.array([1 - solved, solved])
    return chance


class Law:
    """The exact variance at the true p, for one signal."""

    def __init__(self, p: np.ndarray, most: int, signal: float) -> None:
        self.p, self.most, self.signal = p, most, signal
        self.constant = signal * float(((p * (1 - p)) ** 2).sum())

    def one_wave(self, counts: np.ndarray, share: np.ndarray, mean: np.ndarray) -> float:
        table = look_table(2, self.most, self.p, self.signal)
        every = np.arange(len(self.p))
        moments = table.moments[:, table.label(0, 2)][:, counts, every]
        return float((factors(share, mean) * moments).sum()) - self.constant

    def waves(self, plan: LookPlan, sizes: list[dict[Run, int]]) -> float:
        """With all labels of each prompt, and the rollouts that follow from them."""
        total, every = 0.0, np.arange(len(self.p))
        alone = np.flatnonzero(~plan.looks)
        table = look_table(2, self.most, self.p, self.signal)
        counts = np.array([sizes[q][plan.runs[q][0]] if len(plan.runs[q]) == 1 else 2 for q in every])
        terms = factors(plan.shares(counts), plan.beliefs.mean)
        total += float((terms * table.moments[:, table.label(0, 2)][:, counts, every])[:, alone].sum())
        for q in np.flatnonzero(plan.looks):
            table = look_table(int(plan.first[q]), self.most, self.p, self.signal)
            for run in plan.runs[q]:
                total += float(terms[:, q] @ table.moments[:, table.label(*run), sizes[q][run], q])
        return total - self.constant

    def oracle(self, budget: Budget) -> np.ndarray:
        table = look_table(2, self.most, self.p, self.signal)
        values = table.moments[2, table.label(0, 2)].T.copy()
        model = TabulatedVariance.of(values, budget.min_rollouts)
        rest = Budget(budget.total, budget.min_rollouts, np.minimum(budget.max_rollouts, self.most), model, model)
        return exact_counts(np.ones(len(self.p)), rest, np.random.default_rng(0))


def group_sizes(plan: LookPlan, p: np.ndarray, budget: Budget, rng: np.random.Generator) -> list[dict[Run, int]]:
    """[Q] the rollouts of both waves that follow from each label of a prompt, given the first waves of the others.

    Prompts with equal plans and beliefs, as all new ones, are given what others with the same label got.
    """
    successes = rng.binomial(plan.first, p)
    found: dict[tuple, list[int]] = defaultdict(list)

    def play(k: np.ndarray, only: int | None = None) -> None:
        counts = second_counts(plan, k, budget, rng)
        assert counts.sum() == budget.total
        for q, look in enumerate(plan.labels(k)):
            if only is None or q == only:
                run = (min(look.marked), max(look.marked))
                found[int(plan.first[q]), plan.runs[q], run].append(int(counts[q]))

    play(successes)
    sizes = []
    for q in range(len(p)):
        each = {}
        for run in plan.runs[q]:
            key = int(plan.first[q]), plan.runs[q], run
            if key not in found:
                play(np.where(np.arange(len(p)) == q, run[0], successes), only=q)
            each[run] = int(rng.choice(found[key]))
        sizes.append(each)
    return sizes


def batch_variances(
    p: np.ndarray, filters: dict, number: int, given: argparse.Namespace, rng: np.random.Generator
) -> dict[tuple[str, float], float]:
    """The variance of each arm at each signal; the filters learn."""
    q = len(p)
    batch = Batch(tuple(f"{number}.{i}" for i in range(q)), None)
    budget = Budget.of(q, given.rollouts * q, given.least, given.most, "rloo")
    laws = {signal: Law(p, given.most, signal) for signal in given.signals}
    found: dict[tuple[str, float], float] = {}
    even, zero = np.full(q, given.rollouts), np.zeros(q)
    for signal, law in laws.items():
        found["uniform", signal] = law.one_wave(even, zero, zero)
        found["oracle", signal] = law.one_wave(law.oracle(budget), zero, zero)
    for arm, learner in filters.items():
        chance = learner.belief.before(batch.keys, np.zeros(q))
        if given.known is not None:
            chance = np.tile(given.known, (q, 1))
        beliefs = Beliefs(expit(Z), chance, np.ones(q), float(arm.endswith("expected")), given.assumed)
        if arm.startswith("one wave"):
            counts, share = even, beliefs.shares(given.rollouts)
            for signal, law in laws.items():
                found[arm, signal] = law.one_wave(counts, share, beliefs.mean)
        else:
            plan = plan_looks(beliefs, budget, rng)
            sizes = group_sizes(plan, p, budget, rng)
            for signal, law in laws.items():
                found[arm, signal] = law.waves(plan, sizes)
            counts = second_counts(plan, rng.binomial(plan.first, p), budget, rng)
        learner.observe(batch, rng.binomial(counts, p).astype(float), counts.astype(float))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", nargs="?")
    parser.add_argument("--pools", default="", help="Only pools whose names contain this.")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rollouts", type=int, default=8)
    parser.add_argument("--least", type=int, default=2)
    parser.add_argument("--most", type=int, default=48)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--assumed", type=float, default=SIGNAL)
    parser.add_argument("--signals", default="0,0.3,1,3")
    parser.add_argument("--known", action="store_true", help="Beliefs are the true population of the pool.")
    given = parser.parse_args()
    known = given.known
    given.signals = [float(signal) for signal in given.signals.split(",")]
    for pool in ["log"] if given.log else [name for name in POOLS if given.pools in name]:
        runs: dict[tuple[str, float], list[float]] = defaultdict(list)
        given.known = population(pool) if known else None
        for seed in range(given.seeds):
            rng = np.random.default_rng(seed)
            if given.log:
                histories = read_history(given.log)
                truth = np.array([sum(h.successes[:5]) / sum(h.rollouts[:5]) for h in histories])
                order = rng.permutation(len(truth))
                batches = [truth[rows] for rows in np.split(order, range(given.batch, len(order), given.batch))]
                batches = [rows for rows in batches if len(rows) == given.batch]
            else:
                batches = [drawn(pool, given.batch, rng) for _ in range(given.batches)]
            names = ("one wave, expected", "waves", "waves, expected")
            filters = {name: GridFilter() for name in names}
            sums: dict[tuple[str, float], float] = defaultdict(float)
            for number, p in enumerate(batches):
                for key, value in batch_variances(p, filters, number, given, rng).items():
                    if number or given.log:
                        sums[key] += value
            for (arm, signal), value in sums.items():
                uniform, oracle = sums["uniform", signal], sums["oracle", signal]
                runs[arm, signal].append((uniform - value) / (uniform - oracle) if given.log else value / uniform)
        result = {
            f"{arm}, signal {signal:g}": [round(float(np.mean(v)), 3), round(float(np.std(v)), 3)]
            for (arm, signal), v in runs.items()
            if arm != "uniform"
        }
        print(json.dumps({"pool": pool, "capture" if given.log else "variance ratio": result}))


if __name__ == "__main__":
    main()
