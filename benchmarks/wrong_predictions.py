"""`spend="match"` where predictions are wrong: what is spent, and the true gradient variance relative to uniform.

    python benchmarks/wrong_predictions.py

512 prompts, a quarter of them live, 8 rollouts on average within [2, 48], batches of 64. The log is simulated, so that
the true success probabilities of every visit are known.

    steady      probabilities drift slowly: predictions are right
    jumps       a tenth of the prompts gets a new probability at every visit
    shuffled    all prompts exchange their probabilities at visit 7: everything that was learned is wrong
    flips       from visit 7 on, the prompts that were live and dead change places at every visit
"""

from __future__ import annotations

import argparse

import numpy as np

from viprl.allocation.guard import Guard
from viprl.analysis.pool import Pool
from viprl.analysis.protocol import Protocol
from viprl.analysis.replay import play
from viprl.predictors.base import Batch, Prediction, Predictor
from viprl.strategies import Strategy, build_strategy
from viprl.utils.arrays import FloatArray
from viprl.utils.state_file import State

VISITS, PROMPTS = 20, 512
COLUMNS = ((1, 2), (2, 4), (4, 6), (6, 7), (7, 8), (8, 10), (10, 14), (14, 20))
"""Visits, counted from 0, end excluded."""


class LastRate(Predictor):
    """Believes the last success rate, whatever the number of rollouts was: overconfident."""

    def __init__(self) -> None:
        self.rates: dict[str, float] = {}

    def predict(self, batch: Batch) -> Prediction:
        return Prediction.of_points(np.array([self.rates.get(key, 0.5) for key in batch.keys]))

    def observe(self, batch: Batch, successes: FloatArray, rollouts: FloatArray) -> None:
        rates = np.clip(successes / np.maximum(rollouts, 1), 0.01, 0.99)
        self.rates |= {key: rate for key, rate, n in zip(batch.keys, rates.tolist(), rollouts, strict=True) if n > 0}

    def state_dict(self) -> State:
        return {"rates": dict(self.rates)}

    def load_state_dict(self, state: State) -> None:
        self.rates = dict(state["rates"])


def streams(rng: np.random.Generator) -> dict[str, FloatArray]:
    """True success probabilities [PROMPTS, VISITS] of each stream."""

    def some(n: int) -> FloatArray:
        live, dead = rng.beta(2.0, 2.0, n), np.where(rng.random(n) < 0.5, 0.002, 0.998)
        return np.where(rng.random(n) < 0.25, live, dead)

    first, drift = some(PROMPTS), np.cumsum(rng.normal(0, 0.15, (PROMPTS, VISITS)), axis=1)
    steady = 1 / (1 + np.exp(-np.log(first / (1 - first))[:, None] - drift))
    jumps = steady.copy()
    for t in range(1, VISITS):
        jumps[:, t] = np.where(rng.random(PROMPTS) < 0.1, some(PROMPTS), jumps[:, t - 1])
    shuffled = steady.copy()
    shuffled[:, 6:] = rng.permutation(steady)[:, 6:]
    other = rng.permutation(PROMPTS)
    flips = np.array([steady[other if t >= 6 and t % 2 == 0 else slice(None), t] for t in range(VISITS)]).T
    return {"steady": steady, "jumps": jumps, "shuffled": shuffled, "flips": flips}


def pool_of(p: FloatArray, rng: np.random.Generator) -> Pool:
    """8 logged rollouts for each visit, with the true probabilities in place of estimates."""
    keys = tuple(f"prompt {i}" for i in range(len(p)))
    return Pool(keys, keys, rng.binomial(8, p).astype(float), np.full(p.shape, 8.0), p, p * (1 - p))


def strategies() -> list[Strategy]:
    return [
        build_strategy("default"),
        Strategy(LastRate(), guard=Guard(), name="overconfident, guarded"),
        Strategy(LastRate(), name="overconfident"),
        build_strategy("oracle"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--spend", default="match")
    options = parser.parse_args()
    protocol = Protocol(64, 8, 2, 48, VISITS, 1, closed=True, spend=options.spend)
    labels = [str(a + 1) if b == a + 1 else f"{a + 1}-{b}" for a, b in COLUMNS]
    print(f"share of the rollouts spent / true variance ratio, by visit; {options.seeds} seeds")
    print("stream     strategy                ", *(f"{label:>11}" for label in labels))
    for stream in ("steady", "jumps", "shuffled", "flips"):
        found: dict[str, list[FloatArray]] = {}
        for seed in range(options.seeds):
            rng = np.random.default_rng([seed, 7])
            pool = pool_of(streams(rng)[stream], rng)
            for strategy in strategies():
                steps = list(play(strategy, pool, None, protocol, seed))
                names = ("rollouts_spent", "spent_variance_ratio")
                values = np.array([[step.visit, *(step.scores.get(name, np.nan) for name in names)] for step in steps])
                inside = [(values[:, 0] >= a) & (values[:, 0] < b) for a, b in COLUMNS]
                found.setdefault(strategy.name, []).append(np.array([values[at, 1:].mean(axis=0) for at in inside]))
        for name, of_seeds in found.items():
            cells = [f"{spent:.2f} / {ratio:.2f}" for spent, ratio in np.mean(of_seeds, axis=0)]
            print(f"{stream:10} {name:24}", *(f"{cell:>11}" for cell in cells))


if __name__ == "__main__":
    main()
