"""Published ways to sample in rounds, charged for every rollout: variance plus squared bias, relative to uniform.

usage: python benchmarks/wave_peers.py [--rollouts 8] [--signals 0.3,1,3] [--batches 3] [--draws 1000] [--seeds 4]

A pool of new prompts; the estimate is of the mean gradient of all prompts, for batches of 128 of them. Each method is
simulated on every prompt, and given a common factor, because an optimizer takes any scale. The squared bias depends on
how the gradients of different prompts lie to each other. "apart" takes them as orthogonal, with the factor of the
smallest bias; "together" as parallel, where the factor removes all bias: the least and the most favourable case.

    uniform     8 rollouts, leave-one-out baseline
    dynamic     DAPO: groups of 8, those of equal rewards dropped, advantages divided by their standard deviation
    screened    SPEED-RL: 4 rollouts, more only if they are mixed, one pooled baseline, the others dropped
    adaptive    Reinforce-Ada (balanced): rounds of 4 until 2 right and 2 wrong, at most as many rounds as the budget
                allows; 4 balanced rollouts are trained on, with the mean of all as the baseline
    vigor       VIGOR (arXiv 2607.22002): 2 rollouts, then 4, 8 and 16 more for the half of the prompts, of those still
                in, whose rewards vary most so far; advantages divided by the standard deviation. A prompt counts once,
                or ("by rollouts") as often as it has rollouts
    ar3po       AR3PO (arXiv 2509.25808): 4 rollouts, 4 more if none is right; divided by the standard deviation.
                "first visit": no earlier response to reuse. "reuse": 8 earlier rollouts of each prompt, not charged; in
                a group without a right one, an earlier right one takes the place of a wrong one in the advantages, and
                has no gradient of its own (the published option with the best result)
    fixed       `viprl.allocation.waves` with a fixed rule: 5 rollouts, more if one is right, exactly weighted
    viprl       the rule of viprl, with baselines of the group; beliefs from earlier batches of other prompts
    viprl, expected     the same with expected baselines

A method that needs fewer than 8 rollouts on average gets as many prompts more.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from waves import POOLS, drawn

from viprl.allocation.budget import Budget
from viprl.allocation.waves.beliefs import SIGNAL, Beliefs
from viprl.allocation.waves.estimator import FirstLook, group_weight, orders
from viprl.allocation.waves.rule import plan_looks
from viprl.allocation.waves.second_wave import second_counts
from viprl.predictors.base import Batch
from viprl.predictors.grid_filter import GridFilter, Z
from viprl.utils.numerics import expit

BATCH = 128
LEAST, MOST = 2, 48
"""Bounds of the rollouts of a prompt, for the rule of viprl."""
EARLIER = 4
"""Batches from which it has learned."""


@dataclass(frozen=True)
class Sampled:
    """What a method did, [P, draws] each."""

    right: np.ndarray
    """Successes that are trained on."""
    wrong: np.ndarray
    u: np.ndarray
    """Sum of the coefficients of the successes."""
    t: np.ndarray
    """The same of the failures, with the sign changed."""
    cost: np.ndarray
    """Rollouts."""

    @classmethod
    def pooled(cls, k: np.ndarray, n: np.ndarray, weight: np.ndarray) -> Sampled:
        """Of groups that are trained on as a whole, with u = t."""
        return cls(k, n - k, weight, weight, n)


@dataclass(frozen=True)
class New:
    """Prompts that were never seen, and others from the same pool."""

    p: np.ndarray
    """[P], batches of 128 one after the other."""
    earlier: np.ndarray
    """[batches, 128]."""
    draws: int
    average: int


def uniform(new: New, rng: np.random.Generator) -> Sampled:
    n = np.full((len(new.p), new.draws), new.average)
    k = rng.binomial(n, new.p[:, None])
    return Sampled.pooled(k, n, k * (n - k) / (n * (n - 1)))


def dynamic(new: New, rng: np.random.Generator) -> Sampled:
    n = np.full((len(new.p), new.draws), new.average)
    k = rng.binomial(n, new.p[:, None])
    return Sampled.pooled(k, n, np.sqrt(k * (n - k)) / n)


def screened(new: New, rng: np.random.Generator) -> Sampled:
    first = rng.binomial(4, np.repeat(new.p[:, None], new.draws, axis=1))
    mixed = (first > 0) & (first < 4)
    m = round((new.average - 4) / mixed.mean())
    k = first + np.where(mixed, rng.binomial(m, new.p[:, None], first.shape), 0)
    n = 4 + m * mixed
    return Sampled.pooled(k, n, np.where(mixed, k * (n - k) / (n * (n - 1)), 0.0))


def adaptive(new: New, rng: np.random.Generator) -> Sampled:
    k, n = np.zeros((2, len(new.p), new.draws), dtype=np.int64)
    for _ in range(20):
        active = (k < 2) | (n - k < 2)
        if (n + 4 * active).mean() > new.average:
            break
        k = k + np.where(active, rng.binomial(4, new.p[:, None], k.shape), 0)
        n = n + 4 * active
    right = np.clip(k, 4 - np.minimum(n - k, 4), 2)
    right = np.where(n - k < 2, np.minimum(4 - (n - k), k), right)
    wrong = 4 - right
    return Sampled(right, wrong, right / 4 * (1 - k / n), wrong / 4 * k / n, n)


def vigor(new: New, rng: np.random.Generator, by_rollouts: bool = False) -> Sampled:
    p = new.p.reshape(-1, BATCH, 1)
    k, n = np.zeros((2, len(p), BATCH, new.draws), dtype=np.int64)
    active, more = np.ones(k.shape, dtype=bool), new.average // 4
    for _ in range(4):
        k = k + np.where(active, rng.binomial(more, p, k.shape), 0)
        n = n + more * active
        spread = np.where(active, k * (n - k) / n**2 + 1e-9 * rng.random(k.shape), -1.0)
        place = np.argsort(np.argsort(-spread, axis=1), axis=1)
        active, more = place < active.sum(axis=1, keepdims=True) // 2, 2 * more
    k, n = k.reshape(-1, new.draws), n.reshape(-1, new.draws)
    return Sampled.pooled(k, n, np.sqrt(k * (n - k)) / n * (n / new.average if by_rollouts else 1.0))


def ar3po(new: New, rng: np.random.Generator, earlier: int = 0) -> Sampled:
    half, p = new.average // 2, new.p[:, None]
    first = rng.binomial(half, np.repeat(p, new.draws, axis=1))
    k = first + np.where(first == 0, rng.binomial(half, p, first.shape), 0)
    n = half + half * (first == 0)
    weight = np.sqrt(k * (n - k)) / n
    reused = (k == 0) & (rng.binomial(earlier, p, k.shape) > 0)
    t = np.where(reused, np.sqrt(n - 1) / n, weight)
    return Sampled(k, n - k - reused, weight, t, n)


def fixed(new: New, rng: np.random.Generator) -> Sampled:
    w, label = 5, range(1, 6)
    first = rng.binomial(w, np.repeat(new.p[:, None], new.draws, axis=1))
    m = round((new.average - w) / (first > 0).mean())
    k = first + np.where(first > 0, rng.binomial(m, new.p[:, None], first.shape), 0)
    n = w + m * (first > 0)
    weight = np.array([0.0] + [group_weight(FirstLook.of(w, label), each, w + m) for each in range(1, w + m + 1)])
    return Sampled.pooled(k, n, np.where(first > 0, weight[k], 0.0))


def viprl(new: New, rng: np.random.Generator, trust: float = 0.0, signal: float = SIGNAL) -> Sampled:
    learner, budget = GridFilter(), Budget.of(BATCH, BATCH * new.average, LEAST, MOST, "rloo")

    def plan(name: str):
        batch = Batch(tuple(f"{name}.{i}" for i in range(BATCH)), None)
        chance = learner.belief.before(batch.keys, np.zeros(BATCH))
        return batch, plan_looks(Beliefs(expit(Z), chance, np.ones(BATCH), trust, signal), budget, rng)

    for number, p in enumerate(new.earlier):
        batch, looks = plan(f"earlier{number}")
        counts = second_counts(looks, rng.binomial(looks.first, p), budget, rng)
        learner.observe(batch, rng.binomial(counts, p).astype(float), counts.astype(float))
    found = np.zeros((5, len(new.p), new.draws))
    for start in range(0, len(new.p), BATCH):
        p, (_, looks) = new.p[start : start + BATCH], plan(f"new{start}")
        mean = looks.beliefs.mean
        for draw in range(new.draws):
            k = rng.binomial(looks.first, p)
            n = second_counts(looks, k, budget, rng)
            theta, labels = looks.shares(n), looks.labels(k)
            k = k + rng.binomial(n - looks.first, p)
            ones, zeros, c = np.array([parts(*each) for each in zip(labels, k.tolist(), n.tolist(), strict=True)]).T
            u = theta * (1 - mean) * ones + (1 - theta) * c
            t = theta * mean * zeros + (1 - theta) * c
            found[:, start : start + BATCH, draw] = k, n - k, u, t, n
    return Sampled(*found)


@functools.lru_cache(maxsize=1 << 20)
def parts(look: FirstLook, k: int, n: int) -> tuple[float, float, float]:
    """Expected shares of the first wave that are successes and failures, and c(K, n)."""
    zero, one = orders(look, k, n).single
    return one * k / look.size, zero * (n - k) / look.size, group_weight(look, k, n)


METHODS: dict[str, Callable[[New, np.random.Generator], Sampled]] = {
    "uniform": uniform,
    "dynamic": dynamic,
    "screened": screened,
    "adaptive": adaptive,
    "vigor": vigor,
    "vigor, by rollouts": functools.partial(vigor, by_rollouts=True),
    "ar3po, first visit": ar3po,
    "ar3po, reuse": functools.partial(ar3po, earlier=8),
    "fixed": fixed,
    "viprl": viprl,
    "viprl, expected": functools.partial(viprl, trust=1.0),
}


def errors(p: np.ndarray, sampled: Sampled, signal: float, average: int) -> dict[str, float]:
    """Variance plus squared bias of a batch, with gradients apart and together.

    Where the rollouts of a prompt depend on the rewards of others, parallel gradients can have covariances.
    """
    q = p[:, None]
    noise = float((sampled.u**2 / np.maximum(sampled.right, 1) + sampled.t**2 / np.maximum(sampled.wrong, 1)).mean())
    along = (1 - q) * sampled.u + q * sampled.t  # of the difference of the mean scores
    mean, size = along.mean(axis=1), np.sqrt(signal) * p * (1 - p)
    own = noise + signal * float(along.var(axis=1).mean())
    shared = noise + signal * BATCH * float(along.reshape(-1, BATCH, along.shape[1]).mean(axis=1).var(axis=1).mean())
    prompts = BATCH * average / sampled.cost.mean()
    scale = np.sqrt(signal) * mean
    apart = float((scale * size).sum() / max((scale**2).sum(), 1e-300))
    together = float(size.sum() / max(scale.sum(), 1e-300))
    return {
        "apart": apart**2 * own / prompts + float(((apart * scale - size) ** 2).mean()) / prompts,
        "together": together**2 * shared / prompts + float(np.mean(together * scale - size)) ** 2,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pools", default="", help="Only pools whose names contain this.")
    parser.add_argument("--rollouts", type=int, default=8)
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--signals", default="0.3,1,3")
    parser.add_argument("--assumed", type=float, default=SIGNAL)
    given = parser.parse_args()
    ours = {"viprl": {}, "viprl, expected": {"trust": 1.0}}
    methods = METHODS | {name: functools.partial(viprl, signal=given.assumed, **more) for name, more in ours.items()}
    for pool in [name for name in POOLS if given.pools in name]:
        ratios: dict[str, list[float]] = {}
        for seed in range(given.seeds):
            rng = np.random.default_rng(seed)
            p = np.clip(drawn(pool, (EARLIER + given.batches) * BATCH, rng), 1e-4, 1 - 1e-4)
            earlier, p = p[: EARLIER * BATCH].reshape(EARLIER, BATCH), p[EARLIER * BATCH :]
            new = New(p, earlier, given.draws, given.rollouts)
            played = {name: method(new, rng) for name, method in methods.items()}
            for signal in map(float, given.signals.split(",")):
                base = errors(p, played["uniform"], signal, given.rollouts)
                for name in list(methods)[1:]:
                    for how, error in errors(p, played[name], signal, given.rollouts).items():
                        ratios.setdefault(f"{name}, signal {signal:g}, {how}", []).append(error / base[how])
        found = {name: [round(float(np.mean(r)), 3), round(float(np.std(r)), 3)] for name, r in ratios.items()}
        print(json.dumps({"pool": pool, "error relative to uniform": found}), flush=True)


if __name__ == "__main__":
    main()
