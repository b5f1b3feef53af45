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

from viprl.allocation import Budget, IntArray, even_share, relaxed_counts
from viprl.encoders import FeatureSpec
from viprl.features import Features, default_folder
from viprl.guard import SHARES, mixed
from viprl.lab.runs import Estimate
from viprl.lab.trajectories import Trajectory
from viprl.predictors.protocol import Batch, Prediction
from viprl.prompts import text
from viprl.rules.paper import published
from viprl.rules.protocol import Rule
from viprl.rules.variance import minimum_variance
from viprl.strategies import Proposal, Strategy, preset
from viprl.variance import FloatArray

PHASES = (("1", 0, 1), ("2", 1, 2), ("3", 2, 3), ("4-5", 3, 5), ("6-10", 5, 10), ("11+", 10, None))
"""Label, first visit and end (from 0, end excluded) of the phases that scores are averaged over."""

SCORES = {
    "capture": "share of the possible variance reduction that is attained",
    "variance_ratio": "variance of the allocation against uniform",
    "log_loss": "of the predictions against the logged outcomes, clipped to [1e-4, 1 - 1e-4]",
    "brier": "squared error of the predictions against the single outcomes",
    "mae": "mean absolute error of the predictions against the logged rates",
    "spearman": "rank correlation of predictions and logged rates within a batch",
    "zero_advantage_rollouts": "share of the rollouts on prompts whose outcomes were all equal",
    "milliseconds": "predict, allocate and observe, a batch",
}
BINS = 10

_WEIGHTS: dict[Rule, Callable[[Prediction], FloatArray]] = {
    minimum_variance: lambda prediction: prediction.weight,
    published: lambda prediction: prediction.success_probability * (1 - prediction.success_probability),
}
"""What the rules that minimise sum a f(n) take for a."""


@dataclass(frozen=True)
class Protocol:
    """What is replayed. Raises ValueError for numbers that make no sense and budgets that cannot be met."""

    batch_size: int = 64
    rollouts: int = 8
    low: int = 4
    high: int = 16
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
        return Budget.check(self.batch_size, total, self.low, self.high, self.estimator)


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
    def of(cls, trajectories: Sequence[Trajectory], protocol: Protocol) -> Pool:
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
    trajectories: Sequence[Trajectory],
    strategies: Sequence[str] = ("default", "paper", "uniform"),
    protocol: Protocol = Protocol(),
    *,
    features: FeatureSpec = "auto",
    store: Features | None = None,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, list[Phase]]:
    """Every strategy on the same logged outcomes, for seeds 0 to `protocol.seeds` - 1.

    Args:
        strategies: names from `viprl.STRATEGIES`.
        features: as for `viprl.VIP`; "auto" is what each strategy asks for. Those that read none get none.
        store: where features come from; default: the cache in `viprl.features.default_folder`.
        tick: called after each visit of each strategy and seed.

    Returns: the phases of each strategy that the visits reach.

    Raises: ValueError for unknown names and too few prompts; ImportError where features need a missing extra.
    """
    asked = {name: preset(name).features for name in strategies}
    pool = Pool.of(trajectories, protocol)
    store = Features(default_folder()) if store is None else store
    auto = isinstance(features, str) and features == "auto"
    vectors = {name: store(spec if auto or spec is None else features, pool.texts) for name, spec in asked.items()}
    results = {}
    for name in asked:
        seeds = []
        for seed in range(protocol.seeds):
            steps: list[Step] = []
            for step in play(name, pool, vectors[name], protocol, seed):
                if steps and step.visit != steps[-1].visit:
                    tick()
                steps.append(step)
            tick()
            seeds.append(steps)
        results[name] = summarise(seeds)
    return results


def play(name: str, pool: Pool, vectors: FloatArray | None, protocol: Protocol, seed: int) -> Iterator[Step]:
    """One strategy from its first batch to its last; `vectors` [N, d] are the prompts' features."""
    strategy = Strategy(name, features=vectors is not None)
    order, chance = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    spec, size = protocol.budget(), protocol.batch_size
    for visit in range(pool.truth.shape[1]):
        shuffled = order.permutation(len(pool.keys))
        for start in range(0, len(shuffled) - size + 1, size):
            at = shuffled[start : start + size]
            batch = Batch(tuple(pool.keys[i] for i in at), None if vectors is None else vectors[at])
            truth, k, n = pool.truth[at, visit], pool.successes[at, visit], pool.rollouts[at, visit]
            if hasattr(strategy.predictor, "tell"):
                strategy.predictor.tell(dict(zip(batch.keys, truth.tolist(), strict=True)))
            tie, draws = int(chance.integers(2**63)), chance.random((size, int(spec.high.max())))
            began = time.perf_counter()
            proposal = strategy.propose(batch, np.arange(size), spec, tie)
            seconds = time.perf_counter() - began
            counts = proposal.allocation.counts
            seen_k, seen_n = (drawn(draws, truth, counts), counts.astype(float)) if protocol.closed else (k, n)
            rate, guess = k / n, proposal.prediction.success_probability
            scores = predictive_scores(guess, rate) | variance_scores(strategy, proposal, truth, spec)
            settled = (seen_k == 0) | (seen_k == seen_n)
            scores["zero_advantage_rollouts"] = float(counts[settled].sum() / counts.sum())
            began = time.perf_counter()
            strategy.review(proposal, seen_k, seen_n, spec.estimator)
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


def variance_scores(strategy: Strategy, proposal: Proposal, truth: FloatArray, spec: Budget) -> dict[str, float]:
    """Capture and ratio to uniform of the allocation; NaN where uniform can hardly be improved upon."""
    law, a = spec.estimator, truth * (1 - truth)
    if strategy.rule in _WEIGHTS:
        played = proposal.prediction
        if strategy.guard is not None:
            played = mixed(played, SHARES[strategy.guard.mixture])
        relaxed = relaxed_counts(_WEIGHTS[strategy.rule](played), spec)
        value = float(a @ law.factor(relaxed))
    else:
        value = float(a @ law.factor(proposal.allocation.counts))
    even, best = float(a @ law.factor(even_share(spec))), float(a @ law.factor(relaxed_counts(a, spec)))
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
