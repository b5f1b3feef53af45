"""Replay: what each strategy would have predicted and allocated on the logged outcomes of a real run.

    symbol  meaning                                                                    shape
    a       true reward variance, p(1-p) of binary rewards (`viprl.analysis.pool`)     [N, T]
    Q, C    prompts of a batch; its budget, `Protocol.rollouts` x Q                    scalars
    V       sum_q a_q f(n_q), the variance of the gradient with counts n               scalar

For each visit, all prompts are put in a random order and cut into batches; a short last batch is dropped. Each batch is
predicted, allocated and observed, as in training. In the *open loop* a strategy observes all logged outcomes, whatever
it allocated. In the *closed loop* it observes only the rollouts it allocated, drawn with probability p, or from the
logged rewards, so that its counts decide what it learns. Order, ties and draws are the same for all strategies.

    capture = (V_uniform - V) / (V_uniform - V_oracle)

is the share of the possible variance reduction that a strategy achieves: 1 with perfect knowledge of a, 0 if it is no
better than uniform, negative if it is worse. Batches in which the oracle would reduce the variance by less than 1 %
have no capture. All three V use continuous counts, so that rounding does not matter; strategies whose rule does not
minimise the variance are evaluated with their whole counts. Scores of predicted probabilities are undefined for rewards
with more than two values.

With `Protocol.spend` or `Protocol.cost` a batch may spend less than its budget, as with these options of `viprl.VIP`:
what it spends is decided by predictions and by the outcomes of earlier batches. Scores of spending
(`viprl.analysis.spending_scores`) are those of the whole counts; capture and variance ratio stay those of the whole
budget.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from viprl.allocation.budget import Budget, even_counts
from viprl.allocation.published import continuous_counts
from viprl.analysis.lengths import Shown
from viprl.analysis.pool import Pool
from viprl.analysis.protocol import DEFAULT_PROTOCOL, Protocol
from viprl.analysis.spending_scores import SPENDING_SCORES, spending_scores
from viprl.analysis.statistics import Estimate, finite
from viprl.errors import InputError
from viprl.features.cache import Features, default_folder
from viprl.features.encoders import FeatureChoice, auto_features
from viprl.metrics import ZERO_ADVANTAGE
from viprl.predictors.base import Batch
from viprl.reward_groups import GroupOutcomes, RewardScale
from viprl.runs.history import PromptHistory
from viprl.spending import Spending
from viprl.strategies import Proposal, Strategy, named_strategies
from viprl.utils.arrays import FloatArray, IntArray
from viprl.weights.surprisal import measured_weight

PHASES = (("1", 0, 1), ("2", 1, 2), ("3", 2, 3), ("4-5", 3, 5), ("6-10", 5, 10), ("11+", 10, None))
"""Label, first visit and end (counted from 0, end excluded) of the phases over which scores are averaged."""

SCORES = {
    "capture": "share of the possible variance reduction (uniform: 0, oracle: 1)",
    "variance_ratio": "gradient variance relative to uniform (lower is better)",
    "log_loss": "of the predictions, for the logged outcomes; predictions clipped to [1e-4, 1 - 1e-4]",
    "brier": "mean squared error of the predictions, for single outcomes",
    "mae": "mean absolute error of the predictions, for logged success rates",
    "spearman": "rank correlation of predictions and logged success rates (mean rewards) within a batch; – if one is "
    "constant",
    ZERO_ADVANTAGE: "share of the rollouts of prompts whose outcomes were all equal",
    "milliseconds": "time to predict, allocate and observe one batch",
}
BINS = 10
"""Bins of the prediction, each a tenth wide, for the calibration."""


@dataclass(frozen=True, eq=False)
class Step:
    """One batch of one strategy."""

    visit: int
    counts: IntArray
    """[Q] the allocation."""
    observed: FloatArray
    """[Q] rollouts that the strategy learned from."""
    scores: Mapping[str, float]
    """By the names of `SCORES` and, where less than the budget may be spent, `SPENDING_SCORES`; NaN if undefined."""
    bins: FloatArray
    """[3, BINS] prompts, sum of their predictions and sum of their logged rates, by bin of the prediction."""


@dataclass(frozen=True)
class Phase:
    """The scores of a strategy over some visits."""

    visits: str
    scores: Mapping[str, Estimate | None]
    """By the names of `Step.scores`, over seeds; None if undefined, as Spearman's of equal predictions."""
    calibration: Sequence[Mapping[str, float]]
    """Mean `predicted` probability, mean `observed` rate and `count` of each bin of the prediction, over all seeds."""


def replay(
    histories: Sequence[PromptHistory],
    strategies: Sequence[str | Strategy] = ("default", "paper", "uniform"),
    protocol: Protocol = DEFAULT_PROTOCOL,
    *,
    features: FeatureChoice = "auto",
    store: Features | None = None,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, list[Phase]]:
    """Replay the same logged outcomes with each strategy.

    Example:
        log = read_log("runs/mine")
        protocol = Protocol.of(log)
        results = replay(log.histories, ["default", Strategy(MyPredictor(), name="mine")], protocol)

    Args:
        histories: from `viprl.runs.engine_logs.read_log` or `read_history`.
        strategies: names from `viprl.STRATEGIES`, or `viprl.Strategy` objects, which are copied.
        protocol: budget, bounds, visits and seeds.
        features: as for `viprl.VIP`. Strategies whose predictor reads no features get none.
        store: computes and caches the features. Default: the cache in `viprl.features.cache.default_folder`.
        tick: called after each visit of each strategy and seed.

    Returns: the phases of each strategy by its name.

    Raises InputError (a ValueError) for unknown names, too few prompts and cost="tokens" without lengths in the log,
    MissingPackageError (an ImportError) if
    features need a package that is not installed.
    """
    asked = named_strategies(strategies)
    pool = Pool.of(histories, protocol)
    if protocol.cost == "tokens" and pool.lengths is None:
        raise InputError("cost is 'tokens', but the log has no lengths of rollouts; leave out cost (--cost)")
    store = Features(default_folder()) if store is None else store
    results = {}
    for strategy in asked.values():
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
        raise InputError(
            f"strategy {strategy.name!r} predicts from prompt features, but features is {features!r}; set "
            "features='length' (--features length) or 'minilm', or leave the strategy out"
        )
    return choice


def play(strategy: Strategy, pool: Pool, vectors: FloatArray | None, protocol: Protocol, seed: int) -> Iterator[Step]:
    """Replay one strategy with one seed, batch by batch. `vectors` [N, d] are the features of the prompts."""
    order, chance = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    hard, size, scale = protocol.budget(), protocol.batch_size, RewardScale()
    spending = Spending(protocol.spending)
    for visit in range(pool.truth.shape[1]):
        shuffled = order.permutation(len(pool.keys))
        for start in range(0, len(shuffled) - size + 1, size):
            at = shuffled[start : start + size]
            batch = Batch(tuple(pool.keys[i] for i in at), None if vectors is None else vectors[at])
            strategy.predictor.tell(dict(zip(batch.keys, pool.truth[at, visit].tolist(), strict=True)))
            if pool.rewards is not None:
                strategy.predictor.tell_variance(dict(zip(batch.keys, pool.variance[at, visit].tolist(), strict=True)))
            tie, draws = int(chance.integers(2**63)), chance.random((size, int(hard.max_rollouts.max())))
            began = time.perf_counter()
            budget = hard if spending.settings.spends_all else _limits(spending, strategy, batch, hard)
            proposal = strategy.propose(batch, np.arange(size), budget, tie)
            seconds = time.perf_counter() - began
            counts, guess = proposal.allocation.counts, proposal.prediction.success_probability
            rate = pool.successes[at, visit] / pool.rollouts[at, visit]
            scores = variance_scores(strategy, proposal, pool.variance[at, visit], hard)
            scores |= predictive_scores(guess, rate, binary=pool.rewards is None)
            began = time.perf_counter()
            logged = (at, visit, scale)
            outcomes = pool.drawn(*logged, draws, counts) if protocol.closed else pool.logged(*logged)
            strategy.review(proposal, outcomes)
            if not spending.settings.spends_all:
                lengths = pool.shown_lengths(at, visit, draws if protocol.closed else None, counts)
                _learn_spending(spending, proposal, outcomes, budget, batch, lengths)
            strategy.observe(batch, outcomes, proposal.believed)
            scores["milliseconds"] = 1e3 * (seconds + time.perf_counter() - began)
            scores[ZERO_ADVANTAGE] = float(counts[outcomes.constant].sum() / counts.sum())
            if not spending.settings.spends_all:
                length = None if pool.lengths is None else pool.lengths.mean[at, visit]
                scores |= spending_scores(counts, pool.variance[at, visit], length, budget)
            bins = binned(guess, rate) if pool.rewards is None else np.zeros((3, BINS))
            yield Step(visit, counts, outcomes.rollouts, scores, bins)


def _limits(spending: Spending, strategy: Strategy, batch: Batch, hard: Budget) -> Budget:
    """What a batch may spend."""
    costs = spending.costs(batch, strategy.predict(batch)) if spending.counts_tokens else None
    return spending.budget(hard, costs)


def _learn_spending(
    spending: Spending,
    proposal: Proposal,
    outcomes: GroupOutcomes,
    budget: Budget,
    batch: Batch,
    lengths: Shown | None,
) -> None:
    """Learn from a batch what the next ones may spend, as in a run."""
    measured = np.nan_to_num(measured_weight(outcomes, None))
    own = float(measured @ proposal.model.factor(proposal.allocation.counts))
    variance = own, budget.uniform_variance(measured)
    spending.observe(budget, variance, proposal.allocation.variance_ratio)
    if spending.counts_tokens and lengths is not None:
        spending.lengths.observe(batch, *lengths)


def variance_scores(strategy: Strategy, proposal: Proposal, a: FloatArray, budget: Budget) -> dict[str, float]:
    """Capture and variance ratio of an allocation, with true reward variances a [Q]; NaN where they are undefined."""
    model = budget.model
    weights = strategy.variance_weights(proposal.prediction)
    counts = proposal.allocation.counts if weights is None else continuous_counts(weights, budget)
    value = float(a @ model.factor(counts))
    even, best = float(a @ model.factor(even_counts(budget))), float(a @ model.factor(continuous_counts(a, budget)))
    improvable = even - best > 0.01 * even
    return {
        "capture": (even - value) / (even - best) if improvable else math.nan,
        "variance_ratio": value / even if even > 0 else math.nan,
    }


def predictive_scores(guess: FloatArray, rate: FloatArray, *, binary: bool = True) -> dict[str, float]:
    """Scores of predictions [Q] for logged rates [Q]; Spearman's is NaN if either is constant, all others if the rates
    are means of more than two values."""
    safe = np.clip(guess, 1e-4, 1 - 1e-4)
    ranks = rankdata(guess), rankdata(rate)
    varied = all(rank.std() > 0 for rank in ranks)
    spearman = float(np.corrcoef(*ranks)[0, 1]) if varied else math.nan
    if not binary:
        return {"log_loss": math.nan, "brier": math.nan, "mae": math.nan, "spearman": spearman}
    return {
        "log_loss": float(np.mean(-rate * np.log(safe) - (1 - rate) * np.log1p(-safe))),
        "brier": float(np.mean(rate * (1 - guess) ** 2 + (1 - rate) * guess**2)),
        "mae": float(np.mean(np.abs(guess - rate))),
        "spearman": spearman,
    }


def binned(guess: FloatArray, rate: FloatArray) -> FloatArray:
    """[3, BINS] prompts, sum of predictions and sum of rates, by bin of the prediction."""
    tenth = np.clip((BINS * guess).astype(int), 0, BINS - 1)
    return np.array([np.bincount(tenth, of, BINS) for of in (np.ones_like(guess), guess, rate)])


def summarise(seeds: Sequence[Sequence[Step]]) -> list[Phase]:
    """The phases of one strategy: scores are averaged over the batches of each seed, then over seeds."""
    phases = []
    for label, first, end in PHASES:
        inside = [[s for s in steps if s.visit >= first and (end is None or s.visit < end)] for steps in seeds]
        if not any(inside):
            continue
        shown = [name for name in SCORES | SPENDING_SCORES if all(name in s.scores for steps in inside for s in steps)]
        scores = {name: Estimate.of([_mean([s.scores[name] for s in steps]) for steps in inside]) for name in shown}
        bins = np.sum([s.bins for steps in inside for s in steps], axis=0)
        curve = [{"predicted": float(p / n), "observed": float(k / n), "count": int(n)} for n, p, k in bins.T if n]
        phases.append(Phase(label, scores, curve))
    return phases


def as_json(results: Mapping[str, Sequence[Phase]]) -> dict[str, Any]:
    """The results as `{"strategies": {name: {"phases": [{"visits": "1", "capture": .., "capture_sd": .., ...}]}}}`.

    NAME is the mean of a score over seeds and NAME_sd the standard deviation, null if undefined. `calibration` is the
    list of `Phase.calibration`.
    """
    return {"strategies": {name: {"phases": [_plain(phase) for phase in phases]} for name, phases in results.items()}}


def _plain(phase: Phase) -> dict[str, Any]:
    row: dict[str, Any] = {"visits": phase.visits}
    for name, estimate in phase.scores.items():
        row |= {name: estimate and estimate.mean, f"{name}_sd": estimate and estimate.sd}
    return row | {"calibration": [dict(tenth) for tenth in phase.calibration]}


def _mean(values: ArrayLike) -> float:
    known = finite(values)
    return float(known.mean()) if known.size else math.nan
