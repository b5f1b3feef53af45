"""Tokens at uniform's variance: streams of prompts whose rollouts differ in length.

    python benchmarks/tokens.py                       # all streams, 5 seeds; minutes
    python benchmarks/tokens.py --study lengths       # how well lengths are predicted

A late pool of 8Q prompts: a quarter is live, 45 % are hopeless, 30 % are solved; probabilities drift slowly. Lengths
are log-normal within a prompt, failures are 1.3 times as long as successes, and rollouts are cut off at 8,000 tokens.
C = 8Q, bounds [2, 48]. Streams:

    hopeless_long   hopeless prompts are three times as long as the others
    unrelated       length has nothing to do with success
    live_long       live prompts are three times as long as the others

Arms, all on the same prompts:

    match, rollouts   VIP(spend="match")
    match, tokens     VIP(spend="match", cost="tokens")
    oracle, tokens    the same with true probabilities and mean lengths
    budget, tokens    VIP(cost="tokens"): uniform's tokens, for the smallest variance
    duet              DUET's rule and running means, with the tokens that "match, tokens" spent in the same step
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from viprl import VIP
from viprl.allocation.budget import Budget
from viprl.allocation.optimum import allocate_weights
from viprl.baselines.duet import CostedDeviation, DeviationMean
from viprl.predictors.base import Batch
from viprl.predictors.length_filter import LengthFilter
from viprl.utils.arrays import FloatArray, IntArray

STREAMS = ("hopeless_long", "unrelated", "live_long")
WITHIN, FAILURES, CUT = 0.4, 1.3, 8000.0
"""Standard deviation of the log length within a prompt, how much longer failures are, and the longest rollout."""
LIMITS = {"min_rollouts": 2, "max_rollouts": 48}


@dataclass(frozen=True)
class World:
    """A pool over its epochs."""

    p: FloatArray
    """[E, N] success probabilities."""
    scale: FloatArray
    """[E, N] median length of a success."""

    @classmethod
    def of(cls, stream: str, prompts: int, epochs: int, rng: np.random.Generator) -> World:
        kind = rng.choice(3, prompts, p=[0.25, 0.45, 0.3])
        start = np.choose(kind, [rng.beta(2, 2, prompts), np.full(prompts, 0.004), np.full(prompts, 0.996)])
        walk = np.cumsum(rng.normal(0, 0.15, (epochs, prompts)), axis=0)
        p = 1 / (1 + np.exp(-np.log(start / (1 - start)) - walk))
        hopeless, live = np.clip((0.15 - p) / 0.1, 0, 1), np.clip(np.minimum(p, 1 - p) / 0.1 - 0.5, 0, 1)
        other = rng.random(prompts) < 0.45
        long = {"hopeless_long": hopeless, "unrelated": np.broadcast_to(other, p.shape), "live_long": live}[stream]
        return cls(p, 400 * rng.lognormal(0, 0.3, prompts) * 3.0**long)

    def mean(self, epoch: int, at: IntArray) -> FloatArray:
        """[Q] true mean length, but for the cut."""
        p = self.p[epoch, at]
        return self.scale[epoch, at] * np.exp(WITHIN**2 / 2) * (p + FAILURES * (1 - p))

    def sample(
        self, epoch: int, at: IntArray, counts: IntArray, rng: np.random.Generator
    ) -> tuple[list[FloatArray], list[FloatArray]]:
        """Rewards and lengths [Q][n]."""
        rewards = [(rng.random(n) < self.p[epoch, i]).astype(float) for i, n in zip(at, counts, strict=True)]
        lengths = [
            np.minimum(self.scale[epoch, i] * np.where(r > 0, 1, FAILURES) * rng.lognormal(0, WITHIN, len(r)), CUT)
            for i, r in zip(at, rewards, strict=True)
        ]
        return rewards, [np.maximum(np.round(length), 1) for length in lengths]


class Arm:
    """What allocates, and learns from what it sampled itself."""

    def counts(self, keys: list[str], epoch: int, at: IntArray) -> IntArray:
        raise NotImplementedError

    def observe(self, keys: list[str], rewards: list[FloatArray], lengths: list[FloatArray]) -> None:
        """Nothing to learn."""


class OfVIP(Arm):
    def __init__(self, budget: int, **options: str) -> None:
        self.vip, self.budget = VIP(features="none", cache=None, **LIMITS, **options), budget

    def counts(self, keys: list[str], epoch: int, at: IntArray) -> IntArray:
        return self.vip.allocate(keys, self.budget).counts

    def observe(self, keys: list[str], rewards: list[FloatArray], lengths: list[FloatArray]) -> None:
        self.vip.observe(keys, [r.tolist() for r in rewards], lengths=[length.tolist() for length in lengths])


class OfOracle(Arm):
    def __init__(self, budget: int, world: World) -> None:
        self.budget, self.world = budget, world

    def counts(self, keys: list[str], epoch: int, at: IntArray) -> IntArray:
        p, costs = self.world.p[epoch, at], self.world.mean(epoch, at)
        return allocate_weights(p * (1 - p), match_uniform=self.budget, costs=costs, **LIMITS).counts


class OfDuet(Arm):
    """Running means of deviation and length; `limit` says how many tokens a step may cost, with true mean lengths."""

    def __init__(self, budget: int, world: World) -> None:
        self.budget, self.world, self.limit = budget, world, 0.0
        self.predictor, self.rule = DeviationMean(), CostedDeviation()
        self.sums: dict[str, FloatArray] = {}

    def counts(self, keys: list[str], epoch: int, at: IntArray) -> IntArray:
        known = np.array([self.sums.get(key, [np.nan, 1.0]) for key in keys]).T
        length = known[0] / known[1]
        overall = np.nanmean(length) if np.isfinite(length).any() else 1.0
        length = np.where(np.isnan(length), overall, length)
        budget = Budget.of(len(at), self.budget, estimator="rloo", **LIMITS)
        share = self.limit / float(self.world.mean(epoch, at).sum() * self.budget / len(at))
        limited = budget.limited(share * float(length.sum() * self.budget / len(at)), length)
        return self.rule(self.predictor.predict(Batch(tuple(keys), None)), limited, np.random.default_rng(0))

    def observe(self, keys: list[str], rewards: list[FloatArray], lengths: list[FloatArray]) -> None:
        k, n = np.array([(r.sum(), len(r)) for r in rewards], dtype=float).T
        self.predictor.observe(Batch(tuple(keys), None), k, n)
        for key, length in zip(keys, lengths, strict=True):
            self.sums[key] = self.sums.get(key, np.zeros(2)) + np.array([length.sum(), len(length)])


def run(stream: str, size: int, epochs: int, seed: int) -> dict[str, FloatArray]:
    """[epochs, 3] rollouts and tokens spent and true variance ratio of each arm, relative to uniform."""
    rng = np.random.default_rng([seed, STREAMS.index(stream)])
    world, total = World.of(stream, 8 * size, epochs, rng), 8 * size
    duet = OfDuet(total, world)
    arms = {
        "match, rollouts": OfVIP(total, spend="match"),
        "match, tokens": OfVIP(total, spend="match", cost="tokens"),
        "oracle, tokens": OfOracle(total, world),
        "budget, tokens": OfVIP(total, cost="tokens"),
        "duet": duet,
    }
    found = {name: np.zeros((epochs, 3)) for name in arms}
    for epoch in range(epochs):
        for at in rng.permutation(8 * size).reshape(8, size):
            keys, p = [f"prompt {i}" for i in at], world.p[epoch, at]
            a, length = p * (1 - p), world.mean(epoch, at)
            for name, arm in arms.items():
                n = arm.counts(keys, epoch, at)
                arm.observe(keys, *world.sample(epoch, at, n, rng))
                tokens = length @ n
                if name == "match, tokens":
                    duet.limit = float(tokens)
                found[name][epoch] += (
                    n.sum() / total / 8,
                    tokens / (8 * length.sum()) / 8,
                    (a / (n - 1)).sum() / (a.sum() / 7) / 8,
                )
    return found


def compare(streams: list[str], size: int, epochs: int, seeds: int) -> None:
    for stream in streams:
        results = [run(stream, size, epochs, seed) for seed in range(seeds)]
        print(f"\n{stream}, Q = {size}, {seeds} seeds: tokens spent / true variance ratio by epoch; in brackets sd of")
        print(f"tokens over seeds. {'epoch':>12}", *(f"{e + 1:>17}" for e in range(epochs)))
        for arm in results[0]:
            values = np.array([result[arm] for result in results])
            mean, sd = values.mean(axis=0), values[:, :, 1].std(axis=0, ddof=1 if seeds > 1 else 0)
            cells = [f"{t:.3f} ({s:.3f}) / {v:.2f}" for (_, t, v), s in zip(mean, sd, strict=True)]
            print(f"{arm:24}", *(f"{cell:>17}" for cell in cells))


def lengths_study(size: int, epochs: int, seeds: int) -> None:
    """Error of predicted mean lengths: mean absolute log ratio to the truth, for prompts seen before (and new ones)."""

    def hint(world: World, at: IntArray, noise: FloatArray) -> FloatArray:
        return np.column_stack([np.log(world.scale[0, at]) - 6.3 + noise[at], np.ones(len(at))])

    predictors: dict[str, Callable[[], LengthFilter]] = {"filter": LengthFilter, "filter, with features": LengthFilter}
    for stream in STREAMS:
        table: dict[str, list[FloatArray]] = {}
        for seed in range(seeds):
            rng = np.random.default_rng([seed, 5])
            world = World.of(stream, 8 * size, epochs, rng)
            noise = rng.normal(0, 0.3, 8 * size)
            filters = {name: build() for name, build in predictors.items()}
            sums, average = np.zeros((8 * size, 2)), np.full(8 * size, np.nan)
            errors = {name: np.zeros(epochs) for name in (*filters, "running mean", "moving average .5")}
            for epoch in range(epochs):
                for at in rng.permutation(8 * size).reshape(8, size):
                    keys, truth = tuple(f"prompt {i}" for i in at), world.mean(epoch, at)
                    rewards, lengths = world.sample(epoch, at, np.full(size, 8), rng)
                    for name, one in filters.items():
                        batch = Batch(keys, hint(world, at, noise) if "features" in name else None)
                        guess = one.predict(batch, world.p[epoch, at])
                        errors[name][epoch] += np.abs(np.log(guess / truth)).mean() / 8
                        one.observe(batch, lengths, rewards)
                    for name, guess in (
                        ("running mean", sums[at, 0] / np.maximum(sums[at, 1], 1)),
                        ("moving average .5", average[at]),
                    ):
                        safe = np.where(guess > 0, guess, np.nanmean(sums[:, 0]) / max(sums[:, 1].mean(), 1e-9) or 1.0)
                        errors[name][epoch] += np.abs(np.log(np.maximum(safe, 1) / truth)).mean() / 8
                    means = np.array([length.mean() for length in lengths])
                    sums[at] += np.column_stack([means * 8, np.full(size, 8.0)])
                    average[at] = np.where(np.isnan(average[at]), means, (average[at] + means) / 2)
            for name, error in errors.items():
                table.setdefault(name, []).append(error)
        print(f"\n{stream}: mean |log(predicted/true mean length)| by epoch, {seeds} seeds")
        for name, of_seeds in table.items():
            print(f"{name:24}", *(f"{x:8.3f}" for x in np.mean(of_seeds, axis=0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", default=",".join(STREAMS))
    parser.add_argument("--size", type=int, default=64, help="Q")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--study", choices=("arms", "lengths"), default="arms")
    options = parser.parse_args()
    if options.study == "arms":
        compare(options.streams.split(","), options.size, options.epochs, options.seeds)
    else:
        lengths_study(options.size, options.epochs, options.seeds)


if __name__ == "__main__":
    main()
