"""Published ways to sample in rounds, charged for every rollout: variance plus squared bias, relative to uniform.

usage: python benchmarks/wave_peers.py [--rollouts 8] [--signals 0.3,1,3] [--prompts 400] [--draws 4000] [--seeds 3]

A pool of new prompts; the estimate is of the mean gradient of all prompts, for batches of 128 of them. Each method is
simulated on every prompt, and given a common factor, because an optimizer takes any scale. The squared bias depends on
how the gradients of different prompts lie to each other. "apart" takes them as orthogonal, with the factor of the
smallest bias; "together" as parallel, where the factor removes all bias: the least and the most favourable case.

    uniform     8 rollouts, leave-one-out baseline
    dynamic     DAPO: groups of 8, those of equal rewards dropped, advantages divided by their standard deviation
    screened    SPEED-RL: 4 rollouts, more only if they are mixed, one pooled baseline, the others dropped
    adaptive    Reinforce-Ada (balanced): rounds of 4 until 2 right and 2 wrong, at most as many rounds as the budget
                allows; 4 balanced rollouts are trained on, with the mean of all as the baseline
    waves       `viprl.allocation.waves`: 5 rollouts, more if one is right, exactly weighted

A method that needs fewer than 8 rollouts on average gets as many prompts more.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import numpy as np
from waves import POOLS, drawn

from viprl.allocation.waves.estimator import FirstLook, group_weight

Sampled = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Successes and failures that are trained on, the sums of their coefficients u and t, and rollouts: [P, draws] each."""
BATCH = 128


def pooled(k: np.ndarray, n: np.ndarray, weight: np.ndarray, cost: np.ndarray) -> Sampled:
    return k, n - k, weight, weight, cost


def uniform(p: np.ndarray, draws: int, average: int, rng: np.random.Generator) -> Sampled:
    n = np.full((len(p), draws), average)
    k = rng.binomial(n, p[:, None])
    return pooled(k, n, k * (n - k) / (n * (n - 1)), n)


def dynamic(p: np.ndarray, draws: int, average: int, rng: np.random.Generator) -> Sampled:
    n = np.full((len(p), draws), average)
    k = rng.binomial(n, p[:, None])
    return pooled(k, n, np.sqrt(k * (n - k)) / n, n)


def screened(p: np.ndarray, draws: int, average: int, rng: np.random.Generator) -> Sampled:
    first = rng.binomial(4, np.repeat(p[:, None], draws, axis=1))
    mixed = (first > 0) & (first < 4)
    m = round((average - 4) / mixed.mean())
    k = first + np.where(mixed, rng.binomial(m, p[:, None], first.shape), 0)
    n = 4 + m * mixed
    return pooled(k, n, np.where(mixed, k * (n - k) / (n * (n - 1)), 0.0), n)


def adaptive(p: np.ndarray, draws: int, average: int, rng: np.random.Generator) -> Sampled:
    k, n = np.zeros((2, len(p), draws), dtype=np.int64)
    for _ in range(20):
        active = (k < 2) | (n - k < 2)
        if (n + 4 * active).mean() > average:
            break
        k = k + np.where(active, rng.binomial(4, p[:, None], k.shape), 0)
        n = n + 4 * active
    right = np.clip(k, 4 - np.minimum(n - k, 4), 2)
    right = np.where(n - k < 2, np.minimum(4 - (n - k), k), right)
    wrong = 4 - right
    return right, wrong, right / 4 * (1 - k / n), wrong / 4 * k / n, n


def waves(p: np.ndarray, draws: int, average: int, rng: np.random.Generator) -> Sampled:
    w, label = 5, range(1, 6)
    first = rng.binomial(w, np.repeat(p[:, None], draws, axis=1))
    m = round((average - w) / (first > 0).mean())
    k = first + np.where(first > 0, rng.binomial(m, p[:, None], first.shape), 0)
    n = w + m * (first > 0)
    weight = np.array([0.0] + [group_weight(FirstLook.of(w, label), each, w + m) for each in range(1, w + m + 1)])
    return pooled(k, n, np.where(first > 0, weight[k], 0.0), n)


METHODS: dict[str, Callable[[np.ndarray, int, int, np.random.Generator], Sampled]] = {
    "uniform": uniform,
    "dynamic": dynamic,
    "screened": screened,
    "adaptive": adaptive,
    "waves": waves,
}


def errors(p: np.ndarray, sampled: Sampled, signal: float, average: int) -> dict[str, float]:
    """Variance plus squared bias of a batch, with gradients apart and together."""
    right, wrong, u, t, cost = sampled
    q = p[:, None]
    noise = u**2 / np.maximum(right, 1) + t**2 / np.maximum(wrong, 1)
    along = (1 - q) * u + q * t  # of the difference of the mean scores
    mean, size = along.mean(axis=1), np.sqrt(signal) * p * (1 - p)
    variance = float((noise + signal * along**2).mean() - signal * (mean**2).mean())
    prompts = BATCH * average / cost.mean()
    scale = np.sqrt(signal) * mean
    apart = float((scale * size).sum() / max((scale**2).sum(), 1e-300))
    together = float(size.sum() / max(scale.sum(), 1e-300))
    return {
        "apart": apart**2 * variance / prompts + float(((apart * scale - size) ** 2).mean()) / prompts,
        "together": together**2 * variance / prompts + float(np.mean(together * scale - size)) ** 2,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=400)
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--signals", default="0.3,1,3")
    given = parser.parse_args()
    for pool in POOLS:
        ratios: dict[str, list[float]] = {}
        for seed in range(given.seeds):
            rng = np.random.default_rng(seed)
            p = np.clip(drawn(pool, given.prompts, rng), 1e-4, 1 - 1e-4)
            played = {name: method(p, given.draws, given.rollouts, rng) for name, method in METHODS.items()}
            for signal in map(float, given.signals.split(",")):
                base = errors(p, played["uniform"], signal, given.rollouts)
                for name in list(METHODS)[1:]:
                    for how, error in errors(p, played[name], signal, given.rollouts).items():
                        ratios.setdefault(f"{name}, signal {signal:g}, {how}", []).append(error / base[how])
        found = {name: [round(float(np.mean(r)), 2), round(float(np.std(r)), 2)] for name, r in ratios.items()}
        print(json.dumps({"pool": pool, "error relative to uniform": found}))


if __name__ == "__main__":
    main()
