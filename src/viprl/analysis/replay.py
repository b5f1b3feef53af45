"""Replay: what each strategy would have predicted and allocated on the logged outcomes of a real run.

    symbol  meaning                                                                    shape
    k, n    logged successes and rollouts of each prompt at each visit                 [N, T]
    p       truth: mean of a prompt's logged rates over visits t-4 to t+4               [N, T]
    Q, C    prompts of a batch; rollouts to spend on them, `Protocol.rollouts` x Q      scalars
    V       sum_q p_q (1-p_q) f(n_q), the variance that an allocation n leaves          scalar

Every visit is one seeded permutation of the prompts, cut into batches; a short last batch is dropped. A batch is
predicted, allocated and observed. *Open loop* observes all that was logged, whatever the counts were. *Closed loop*
observes only the allocated rollouts, drawn from p, so that a strategy lives with what its own counts taught it.
Permutations, ties and draws are the same for all strategies.

    capture = (V_uniform - V) / (V_uniform - V_oracle)

is the share of the possible saving that is attained: 1 with perfect knowledge of p, 0 for no better than uniform,
negative for harm. Batches in which the oracle would save less than a hundredth have none: there is nothing to attain.
All three V are of the relaxed allocation, which leaves rounding out of the comparison; strategies
that do not minimise the variance law have no relaxation and are judged by their integer counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from viprl.allocation.budget import Budget, even_counts
from viprl.allocation.published import continuous_counts
from viprl.analysis.statistics import Estimate
from viprl.errors import InputError
from viprl.features.cache import Features, default_folder
from viprl.features.encoders import FeatureChoice, auto_features
from viprl.metrics import ZERO_ADVANTAGE
from viprl.predictors.base import Batch
from viprl.prompts import text
from viprl.runs.history import PromptHistory
from viprl.strategies import Proposal, Strategy, build_strategy
from viprl.utils.arrays import FloatArray, IntArray

PHASES = (("1", 0, 1), ("2", 1, 2), ("3", 2, 3), ("4-5", 3, 5), ("6-10", 5, 10), ("11+", 10, None))
"""Label, first visit and end (from 0, end excluded) of the phases that scores are averaged over."""

SCORES = {
    "capture": "share of the possible variance reduction that is attained",
    "variance_ratio": "variance of the allocation against uniform",
    "log_loss": "of the predictions against the logged outcomes, clipped to [1e-4, 1 - 1e-4]",
    "brier": "squared error of the predictions against the single outcomes",
    "mae": "mean absolute error of the predictions against the logged rates",
    "spearman": "rank correlation of predictions and logged rates within a batch",
    ZERO_ADVANTAGE: "share of the rollouts on prompts whose outcomes were all equal",
    "milliseconds": "predict, allocate and observe, a batch",
}
BINS = 10


@dataclass(frozen=True)
class Protocol:
    """What is replayed. Raises ValueError for numbers that make no sense and budgets that cannot be met."""

    batch_size: int = 64
    rollouts: int = 8
    min_rollouts: int = 4
    max_rollouts: int = 16
    visits: int = 40
    """Only prompts with at least that many visits are replayed, and only that many of each."""
    seeds: int = 3
    closed: bool = False
    estimator: str = "rloo"

    def __post_init__(self) -> None:
        for name in ("batch_size", "rollouts", "visits", "seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        self.budget()

    def budget(self) -> Budget:
        """The budget of a batch."""
        total = self.rollouts * self.batch_size
        return Budget.of(self.batch_size, total, self.min_rollouts, self.max_rollouts, self.estimator)


@dataclass(frozen=True, eq=False)
class Pool:
    """The prompts of a replay."""

    keys: tuple[str, ...]
    texts: tuple[str, ...]
    successes: FloatArray
    """[N, T]"""
    rollouts: FloatArray
    """[N, T]"""
    truth: FloatArray
    """[N, T]"""

    @classmethod
    def of(cls, trajectories: Sequence[PromptHistory], protocol: Protocol) -> Pool:
        """Prompts with enough visits, cut to as many. Raises ValueError where they do not fill one batch."""
        t = protocol.visits
        kept = [trajectory for trajectory in trajectories if len(trajectory.successes) >= t]
        if len(kept) < protocol.batch_size:
            visits = sorted((len(trajectory.successes) for trajectory in trajectories), reverse=True)
            enough = visits[protocol.batch_size - 1] if len(visits) >= protocol.batch_size else 0
            mend = f"--visits {enough}" if enough else f"--batch-size {max(len(kept), 1)}"
            raise ValueError(
                f"{len(kept)} of {len(trajectories)} prompts have at least {t} visits, fewer than one batch of "
                f"{protocol.batch_size}; {mend} would do"
            )
        return cls(
            tuple(trajectory.id for trajectory in kept),
            tuple(text(trajectory.prompt) for trajectory in kept),
            np.array([trajectory.successes[:t] for trajectory in kept]),
            np.array([trajectory.rollouts[:t] for trajectory in kept]),
            np.array([smoothed(trajectory.successes / trajectory.rollouts)[:t] for trajectory in kept]),
        )


@dataclass(frozen=True, eq=False)
class Step:
    """One batch of one strategy."""

    visit: int
    counts: IntArray
    """[Q] the allocation played."""
    observed: FloatArray
    """[Q] rollouts that the strategy learned from."""
    scores: Mapping[str, float]
    bins: FloatArray
    """[3, BINS] prompts, their summed predictions and summed logged rates, by tenth of the prediction."""


@dataclass(frozen=True)
class Phase:
    """The scores of a strategy over some visits."""

    visits: str
    scores: Mapping[str, Estimate | None]
    """By the names of `SCORES`, over seeds; None where nothing was defined (Spearman of equal predictions)."""
    calibration: Sequence[Mapping[str, float]]
    """`predicted`, `observed` and `count` of each tenth of the predictions, all seeds together."""


def replay(
    histories: Sequence[PromptHistory],
    strategies: Sequence[str | Strategy] = ("default", "paper", "uniform"),
    protocol: Protocol = Protocol(),
    *,
    features: FeatureChoice = "auto",
    store: Features | None = None,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, list[Phase]]:
    """Every strategy on the same logged outcomes, for seeds 0 to `protocol.seeds` - 1.

    Args:
        histories: from `viprl.runs.engine_logs.read_history`.
        strategies: names from `viprl.STRATEGIES`, or `viprl.Strategy` objects, which are copied.
        protocol: budget, bounds, visits and seeds.
        features: as for `viprl.VIP`. Strategies whose predictor reads no features get none.
        store: where features come from. Default: the cache in `viprl.features.cache.default_folder`.
        tick: called after each visit of each strategy and seed.

    Returns: by name, the phases of each strategy that the visits reach.

    Raises InputError (a ValueError) for unknown names and too few prompts, MissingPackageError (an ImportError) if
    features need a package that is not installed.
    """
    asked = [build_strategy(strategy) for strategy in dict.fromkeys(strategies)]
    pool = Pool.of(histories, protocol)
    store = Features(default_folder()) if store is None else store
    results = {}
    for strategy in asked:
        vectors = store(_features(strategy, features), pool.texts)
        seeds = []
        for seed in range(protocol.seeds):
            steps: list[Step] = []
            for step in play(strategy.fresh(), pool, vectors, protocol, seed):
                if steps and step.visit != steps[-1].visit:
                    tick()
                steps.append(step)
            tick()
            seeds.append(steps)
        results[strategy.name] = summarise(seeds)
    return results


def _features(strategy: Strategy, features: FeatureChoice) -> FeatureChoice:
    """The features of a strategy: its own choice for "auto", none if its predictor reads none."""
    wanted = strategy.predictor.features
    auto = isinstance(features, str) and features == "auto"
    choice = auto_features(wanted) if auto or wanted is None else features
    if choice in (None, "none") and strategy.predictor.needs_features:
        raise InputError(f"strategy {strategy.name!r} predicts from prompt features; set features='minilm' or 'length'")
    return choice


def play(strategy: Strategy, pool: Pool, vectors: FloatArray | None, protocol: Protocol, seed: int) -> Iterator[Step]:
    """One strategy from its first batch to its last; `vectors` [N, d] are the features of the prompts."""
    order, chance = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    budget, size = protocol.budget(), protocol.batch_size
    for visit in range(pool.truth.shape[1]):
        shuffled = order.permutation(len(pool.keys))
        for start in range(0, len(shuffled) - size + 1, size):
            at = shuffled[start : start + size]
            batch = Batch(tuple(pool.keys[i] for i in at), None if vectors is None else vectors[at])
            truth, k, n = pool.truth[at, visit], pool.successes[at, visit], pool.rollouts[at, visit]
            strategy.predictor.tell(dict(zip(batch.keys, truth.tolist(), strict=True)))
            tie, draws = int(chance.integers(2**63)), chance.random((size, int(budget.max_rollouts.max())))
            began = time.perf_counter()
            proposal = strategy.propose(batch, np.arange(size), budget, tie)
            seconds = time.perf_counter() - began
            counts = proposal.allocation.counts
            seen_k, seen_n = (drawn(draws, truth, counts), counts.astype(float)) if protocol.closed else (k, n)
            rate, guess = k / n, proposal.prediction.success_probability
            scores = predictive_scores(guess, rate) | variance_scores(strategy, proposal, truth, budget)
            settled = (seen_k == 0) | (seen_k == seen_n)
            scores[ZERO_ADVANTAGE] = float(counts[settled].sum() / counts.sum())
            began = time.perf_counter()
            strategy.review(proposal, seen_k, seen_n, budget.model)
            strategy.observe(batch, seen_k, seen_n, proposal.believed)
            scores["milliseconds"] = 1e3 * (seconds + time.perf_counter() - began)
            yield Step(visit, counts, seen_n, scores, binned(guess, rate))


def drawn(draws: FloatArray, p: FloatArray, counts: IntArray) -> FloatArray:
    """[Q] successes of the first `counts` of uniform `draws` [Q, U], each a success below p."""
    taken = np.arange(draws.shape[1]) < counts[:, None]
    return ((draws < p[:, None]) & taken).sum(axis=1).astype(float)


def smoothed(rates: FloatArray, reach: int = 4) -> FloatArray:
    """[T] mean over the visits t - reach to t + reach that there are."""
    return np.array([rates[max(0, t - reach) : t + reach + 1].mean() for t in range(len(rates))])


def variance_scores(strategy: Strategy, proposal: Proposal, truth: FloatArray, budget: Budget) -> dict[str, float]:
    """Capture and ratio to uniform of the allocation; NaN if uniform can hardly be improved on."""
    model, a = budget.model, truth * (1 - truth)
    weights = strategy.variance_weights(proposal.prediction)
    counts = proposal.allocation.counts if weights is None else continuous_counts(weights, budget)
    value = float(a @ model.factor(counts))
    even, best = float(a @ model.factor(even_counts(budget))), float(a @ model.factor(continuous_counts(a, budget)))
    improvable = even - best > 0.01 * even
    return {
        "capture": (even - value) / (even - best) if improvable else math.nan,
        "variance_ratio": value / even if even > 0 else math.nan,
    }


def predictive_scores(guess: FloatArray, rate: FloatArray) -> dict[str, float]:
    """How well predictions [Q] meet logged rates [Q]; Spearman is NaN where either is constant."""
    safe = np.clip(guess, 1e-4, 1 - 1e-4)
    ranks = rankdata(guess), rankdata(rate)
    varied = all(rank.std() > 0 for rank in ranks)
    return {
        "log_loss": float(np.mean(-rate * np.log(safe) - (1 - rate) * np.log1p(-safe))),
        "brier": float(np.mean(rate * (1 - guess) ** 2 + (1 - rate) * guess**2)),
        "mae": float(np.mean(np.abs(guess - rate))),
        "spearman": float(np.corrcoef(*ranks)[0, 1]) if varied else math.nan,
    }


def binned(guess: FloatArray, rate: FloatArray) -> FloatArray:
    """[3, BINS] prompts, summed predictions and summed rates by tenth of the prediction."""
    tenth = np.clip((BINS * guess).astype(int), 0, BINS - 1)
    return np.array([np.bincount(tenth, of, BINS) for of in (np.ones_like(guess), guess, rate)])


def summarise(seeds: Sequence[Sequence[Step]]) -> list[Phase]:
    """The phases of one strategy: means over the batches of each seed, then mean and spread over seeds."""
    phases = []
    for label, first, end in PHASES:
        inside = [[s for s in steps if s.visit >= first and (end is None or s.visit < end)] for steps in seeds]
        if not any(inside):
            continue
        scores = {name: Estimate.of([_mean([s.scores[name] for s in steps]) for steps in inside]) for name in SCORES}
        count, predicted, observed = np.sum([s.bins for steps in inside for s in steps], axis=0)
        curve = [
            {
                "predicted": float(predicted[b] / count[b]),
                "observed": float(observed[b] / count[b]),
                "count": int(count[b]),
            }
            for b in np.flatnonzero(count)
        ]
        phases.append(Phase(label, scores, curve))
    return phases


def as_json(results: Mapping[str, Sequence[Phase]]) -> dict[str, Any]:
    """`{"strategies": {name: {"phases": [{"visits": "1", "capture": .., "capture_sd": .., ...}, ...]}}}`.

    Each score with its mean and sd over seeds, null where there is none; `calibration` is a list of tenths.
    """
    return {"strategies": {name: {"phases": [_plain(phase) for phase in phases]} for name, phases in results.items()}}


def _plain(phase: Phase) -> dict[str, Any]:
    row: dict[str, Any] = {"visits": phase.visits}
    for name, estimate in phase.scores.items():
        row |= {name: estimate and estimate.mean, f"{name}_sd": estimate and estimate.sd}
    return row | {"calibration": [dict(tenth) for tenth in phase.calibration]}


def _mean(values: ArrayLike) -> float:
    array: NDArray[np.float64] = np.asarray(values, dtype=float)
    known = array[np.isfinite(array)]
    return float(known.mean()) if known.size else math.nan
