"""Strategies: a predictor and a rule, with learned weights and a guard where wanted. `STRATEGIES` has those with names.

To add one: write a `Predictor` (`viprl.predictors.base`) or a `Rule` (`viprl.allocation.rules`) in a file of its own,
and add a line to `STRATEGIES` if it shall have a name. `VIP(strategy=...)` and `viprl.analysis.replay` also take a
`Strategy` object, so that a predictor outside this package needs no line.
"""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from viprl.allocation.budget import Budget
from viprl.allocation.exact import counts_of_new_and_known
from viprl.allocation.guard import Guard
from viprl.allocation.optimum import Allocation
from viprl.allocation.rules import MinimumVariance, Published, Rule, Uniform, check_counts
from viprl.allocation.variance_models import ShrunkRLOO, VarianceModel
from viprl.baselines.beta_counts import BetaCounts
from viprl.baselines.bots import ImplicitEvidence
from viprl.baselines.duet import CostedDeviation, DeviationMean
from viprl.baselines.dynamo import CountPriority
from viprl.baselines.greso import SkipAndRedistribute, ZeroVarianceRuns
from viprl.baselines.gvm import InverseRootSuccess
from viprl.baselines.knapsack import Knapsack
from viprl.baselines.learned_beta import LearnedBeta
from viprl.baselines.moving_average import MovingAverage
from viprl.baselines.proportional import (
    InverseAccuracy,
    InverseVariance,
    ProportionalToDeviation,
    ProportionalToVariance,
    Random,
)
from viprl.baselines.ridge import RidgeRegression
from viprl.errors import InputError, PredictionError, StateError
from viprl.predictors.base import Batch, Belief, Prediction, Predictor, check_belief, check_prediction, named_errors
from viprl.predictors.constant import SuccessRate
from viprl.predictors.gaussian_process import GaussianProcess
from viprl.predictors.oracle import Oracle
from viprl.predictors.reward_filter import RewardFilter
from viprl.reward_groups import GroupOutcomes
from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.sequences import listed, short
from viprl.utils.state_checks import mapping_entry
from viprl.utils.state_file import State
from viprl.utils.words import did_you_mean
from viprl.weights.learned_weights import LearnedWeights
from viprl.weights.surprisal import Surprisal, measured_weight

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Proposal:
    """What a strategy would do with a batch, and what it needs later to learn from the outcomes."""

    allocation: Allocation
    prediction: Prediction
    """For each prompt of the batch."""
    believed: Prediction | None
    """For each distinct prompt; None if its numbers are bad, so that counts are uniform."""
    candidates: list[IntArray]
    """The counts of every mixture of the guard; without a guard only those of the allocation."""
    model: VarianceModel
    """Of the allocation."""

    @property
    def usable(self) -> bool:
        """Whether the predictor of the strategy could be used."""
        return self.believed is not None


class Strategy:
    """A predictor and a rule.

    Example:
        vip = VIP(strategy=Strategy(MyPredictor(), guard=Guard(), name="mine"), min_rollouts=2, max_rollouts=32)

    Args:
        predictor: beliefs about each prompt, see `viprl.Predictor`.
        rule: from beliefs to counts, see `viprl.Rule`. Default: the exact minimum of the predicted variance.
        weights: learns the variance weights from outcomes and log probabilities
            (`viprl.weights.learned_weights.LearnedWeights`); None for E[p(1-p)].
        guard: falls back towards uniform if the predictions do harm (`viprl.Guard`); None for no guard.
        name: in metrics and saved states. Default: the name of the predictor's class.
        summary: one line for tables.

    Raises InputError if `predictor` is not a `Predictor` object or `rule` is not a `Rule` object.
    """

    def __init__(
        self,
        predictor: Predictor,
        rule: Rule | None = None,
        *,
        weights: LearnedWeights | None = None,
        guard: Guard | None = None,
        name: str = "",
        summary: str = "",
    ) -> None:
        for role, part, kind in (("predictor", predictor, Predictor), ("rule", rule or MinimumVariance(), Rule)):
            if not isinstance(part, kind):
                hint = f"; call it: {part.__name__}()" if isinstance(part, type) else ""
                raise InputError(f"{role} is {part!r}; expected an object of a subclass of viprl.{kind.__name__}{hint}")
        self.predictor, self.rule, self.weights, self.guard = predictor, rule or MinimumVariance(), weights, guard
        self.name, self.summary = name or type(predictor).__name__, summary
        parts = {"predictor": predictor, "rule": self.rule, "weights": weights, "guard": guard}
        self.parts = {role: described(part) for role, part in parts.items()}
        """Each part with its options as text, for comparison with a saved state."""

    def __repr__(self) -> str:
        parts = ", ".join(f"{role}={text}" for role, text in self.parts.items() if text != "none")
        return f"Strategy({self.name!r}, {parts})"

    def fresh(self) -> Strategy:
        """A copy whose state is independent of this one."""
        return copy.deepcopy(self)

    def predict(self, batch: Batch) -> Prediction:
        """Beliefs about distinct prompts, with the learned weights. Changes nothing.

        Raises PredictionError for numbers that no counts can be based on, InputError for arrays of another shape, and
        TypeError for anything but a `Prediction`.
        """
        believed = self._believed(batch)
        if self.weights is not None:
            with named_errors(self.weights, "weigh", self.name):
                believed = replace(believed, learned_weight=self.weights.weigh(batch.keys, believed))
        return check_prediction(self.predictor, believed, batch, self.name)

    def success_belief(self, batch: Batch) -> Belief | None:
        """`Predictor.success_belief`. Raises PredictionError if it holds NaN or infinity."""
        with named_errors(self.predictor, "success_belief", self.name):
            belief = self.predictor.success_belief(batch)
        return check_belief(self.predictor, belief, self.name)

    def gradient_sizes(self, batch: Batch) -> FloatArray:
        """[Q] the expected size of each prompt's gradient, up to a factor, which decides who is sampled
        (`viprl.allocation.selection`); equal for a rule that minimises no variance. Changes nothing."""
        prediction = self.predict(batch)
        weighted = self.rule.variance_weights(prediction) is not None
        return prediction.rms_weight if weighted else np.ones(len(batch))

    def propose(
        self,
        batch: Batch,
        rows: IntArray,
        budget: Budget,
        seed: int,
        factors: FloatArray | None = None,
        *,
        shrinkage: float | None = None,
    ) -> Proposal:
        """Counts for the prompts `batch[rows]`; `rows` repeats prompts that occur more than once. Changes nothing.

        All candidates break ties by the same `seed`, so that only their weights differ. In a budget that is not hard
        the counts are the exact ones for the weights of the rule; a rule without weights spends all C rollouts.

        Args:
            factors: [Q] squared weights of the prompts in the batch gradient; None for equal weights.
            shrinkage: share of what the belief suggests by which baselines are shrunk; None if they are not.
        """
        believed = self.predict(batch)
        prediction = believed.at(rows)
        if shrinkage is not None and prediction.pseudocounts is not None and self.rule.any_model:
            budget = replace(budget, model=ShrunkRLOO(shrinkage * prediction.pseudocounts))
        hard = budget.hard

        def weighted(prediction: Prediction) -> Prediction:
            return prediction if factors is None else prediction.weighted(factors)

        def allocate(prediction: Prediction) -> IntArray:
            counts = self.rule(weighted(prediction), hard, np.random.default_rng(seed))
            check_counts(self.rule, counts, hard, self.name)
            return counts

        candidates = [allocate(prediction)] if self.guard is None else self.guard.candidates(prediction, allocate)
        counts = candidates[self.guard.choice if self.guard else 0]
        weights, own = weighted(prediction).weight, self.variance_weights(weighted(prediction))
        if own is not None and not budget.is_hard:
            weights, new = own, ~self.predictor.knows(batch)[rows]
            counts = counts_of_new_and_known(weights, new, budget, np.random.default_rng(seed))
        allocation = Allocation.of(counts, weights, budget, prediction.success_probability)
        return Proposal(allocation, prediction, believed, candidates, budget.model)

    @property
    def can_save(self) -> bool:
        """Whether the rule minimises a variance, which may be had for less."""
        return self.rule.variance_weights(Prediction.of_points(np.array([0.5]))) is not None

    def variance_weights(self, prediction: Prediction) -> FloatArray | None:
        """[Q] the weights a whose sum a_q f(n_q) the counts minimise; None if the rule minimises something else."""
        return self.rule.variance_weights(prediction if self.guard is None else self.guard.mixed(prediction))

    def review(
        self,
        proposal: Proposal,
        outcomes: GroupOutcomes,
        surprisal: Surprisal | None = None,
        factors: FloatArray | None = None,
    ) -> None:
        """Let the guard learn what the proposal would have achieved, from the outcomes of the Q groups of the batch;
        `factors` as for `propose`."""
        if self.guard is not None:
            measured = measured_weight(outcomes, surprisal)
            self.guard.observe(proposal.candidates, measured if factors is None else measured * factors, proposal.model)

    def observe(
        self,
        batch: Batch,
        outcomes: GroupOutcomes,
        believed: Prediction | None = None,
        surprisal: Surprisal | None = None,
    ) -> None:
        """Learn from the outcomes of Q distinct prompts; `believed` is what was predicted of them, if known.

        Raises PredictionError if the arithmetic failed. What the strategy believes is then unknown.
        """
        if not (outcomes.rollouts > 0).any():
            return
        if self.weights is not None and (believed := believed or self._usable_prediction(batch)) is not None:
            with named_errors(self.weights, "observe", self.name):
                self.weights.observe(batch.keys, believed, outcomes, surprisal)
        with named_errors(self.predictor, "observe", self.name):
            self.predictor.observe_outcomes(batch, outcomes)

    def pass_over(self, batch: Batch) -> None:
        """Let time pass for prompts that could have been sampled, and were not."""
        with named_errors(self.predictor, "pass_over", self.name):
            self.predictor.pass_over(batch)

    def _believed(self, batch: Batch) -> Prediction:
        """`predict` without the learned weights."""
        with named_errors(self.predictor, "predict", self.name):
            believed = self.predictor.predict(batch)
        return check_prediction(self.predictor, believed, batch, self.name)

    def _usable_prediction(self, batch: Batch) -> Prediction | None:
        """None if no weights can be learned with the numbers of the predictor, which may learn all the same."""
        try:
            return self._believed(batch)
        except PredictionError:
            return None

    def state_dict(self) -> State:
        parts = {"predictor": self.predictor, "weights": self.weights, "guard": self.guard}
        state: State = {name: None if part is None else part.state_dict() for name, part in parts.items()}
        return {"model": type(self.predictor).__name__, "parts": dict(self.parts), **state}

    def load_state_dict(self, state: State, *, guard: bool = True) -> None:
        """Continue from `state_dict`; parts that have other options now cause a warning.

        Args:
            guard: False to start the guard without evidence.

        Raises StateError for the state of another predictor, and for one that is damaged.
        """
        model = type(self.predictor).__name__
        if not isinstance(state, Mapping) or state.get("model") != model:
            found = state.get("model") if isinstance(state, Mapping) else None
            raise StateError(
                f"the saved state of strategy {self.name!r} belongs to the predictor {found}, but this strategy has "
                f"{model}; delete the state to start without history"
            )
        self._warn_of_other_parts(mapping_entry(state, "parts", optional=True))
        parts = {"predictor": self.predictor, "weights": self.weights, "guard": self.guard if guard else None}
        for name, part in parts.items():
            if part is not None and (name == "predictor" or state.get(name) is not None):
                self._load_part(name, part, state.get(name))

    def _load_part(self, name: str, part: Any, state: Any) -> None:
        where = f"the saved state of strategy {self.name!r} cannot be used: its {name} ({type(part).__name__})"
        try:
            part.load_state_dict(state)
        except StateError as error:
            raise StateError(f"{where}: {error}; use an earlier checkpoint, or start without history") from error
        except Exception as error:  # a predictor from outside that does not check its state
            raise StateError(
                f"{where} failed with {type(error).__name__}: {error}; use an earlier checkpoint, or start without "
                "history"
            ) from error

    def _warn_of_other_parts(self, saved: Mapping[str, str]) -> None:
        other = [role for role in self.parts if role in saved and saved[role] != self.parts[role]]
        if other:
            logger.warning(
                "strategy %r was saved with %s, but now has %s; it goes on with the saved history",
                self.name,
                ", ".join(f"{role} {saved[role]}" for role in other),
                ", ".join(f"{role} {self.parts[role]}" for role in other),
            )


def described(part: Any) -> str:
    """`Class(option=value, ...)` with the constructor's options that `part` keeps under their names; or "none"."""
    if part is None:
        return "none"
    try:
        options = list(inspect.signature(type(part)).parameters)
    except (TypeError, ValueError):  # a class in C
        options = []
    values = {option: getattr(part, option) for option in options if hasattr(part, option)}
    return f"{type(part).__name__}({', '.join(f'{name}={_plain(value)}' for name, value in values.items())})"


def _plain(value: Any) -> str:
    """The same text in every process: no addresses."""
    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_plain, value))})"
    return repr(value) if isinstance(value, str | int | float | None) else type(value).__name__


def _default() -> Strategy:
    return Strategy(RewardFilter(), weights=LearnedWeights(), guard=Guard())


class NamedStrategies(dict[str, tuple[str, Callable[[], Strategy]]]):
    """Strategies by name: (one line about it, function that builds it)."""

    def __repr__(self) -> str:
        width = max(map(len, self), default=0)
        return "\n".join(f"{name:{width}}  {summary}" for name, (summary, _) in self.items())


_NAMED: dict[str, tuple[str, Callable[[], Strategy]]] = {
    # the product
    "default": ("a Bayesian filter for each prompt; drift, prior, text and weights are learned; guarded", _default),
    "paper": ("VIP as published: Gaussian process, floor and greedy", lambda: Strategy(GaussianProcess(), Published())),
    "uniform": ("C/Q rollouts for every prompt, as a stock trainer does", lambda: Strategy(SuccessRate(), Uniform())),
    # references
    "oracle": ("the true success probabilities, in experiments that know them", lambda: Strategy(Oracle())),
    "random": ("a random split of the budget", lambda: Strategy(SuccessRate(), Random())),
    # ablations of the paper
    "inverse_accuracy": ("n ~ 1/p", lambda: Strategy(GaussianProcess(), InverseAccuracy())),
    "inverse_variance": ("n ~ 1/(p(1-p))", lambda: Strategy(GaussianProcess(), InverseVariance())),
    "ridge": ("ridge regression in place of the Gaussian process", lambda: Strategy(RidgeRegression(), Published())),
    "ema": ("moving average of each prompt's success rate", lambda: Strategy(MovingAverage(), Published())),
    # other published methods
    "beta": ("MoPPS: Beta counts of each prompt", lambda: Strategy(BetaCounts())),
    "learned_beta": ("Beta counts discounted by .9, prior learned", lambda: Strategy(LearnedBeta())),
    "bots": ("BOTS: Beta counts with implicit evidence", lambda: Strategy(ImplicitEvidence())),
    "greso": ("GRESO: skip after zero-variance visits", lambda: Strategy(ZeroVarianceRuns(), SkipAndRedistribute())),
    "dynamo": ("DynaMO: n ~ 4p(1-p) with a floor", lambda: Strategy(CountPriority(), ProportionalToVariance())),
    "duet": ("DUET: n ~ running mean of the deviation", lambda: Strategy(DeviationMean(), CostedDeviation())),
    "knapsack": ("Knapsack RL: most mixed groups, weighted by p(1-p)^2", lambda: Strategy(LearnedBeta(), Knapsack())),
    "gvm": ("GVM: n ~ 1/sqrt(p + alpha/p)", lambda: Strategy(LearnedBeta(), InverseRootSuccess())),
    "neyman": ("n ~ sqrt(p(1-p))", lambda: Strategy(LearnedBeta(), ProportionalToDeviation())),
}
STRATEGIES = NamedStrategies(_NAMED)
"""Name -> (one line about it, function that builds it)."""

PRODUCTS = ("default", "paper", "uniform")
"""Strategies for training; the others are references, ablations and published methods to compare with."""


def build_strategy(strategy: str | Strategy, option: str = "strategy") -> Strategy:
    """A new strategy from a name in `STRATEGIES`, or a copy of a `Strategy`.

    Raises InputError for anything else; `option` is how the caller spells the option.
    """
    if isinstance(strategy, Strategy):
        return strategy.fresh()
    if isinstance(strategy, Predictor):
        raise InputError(f"{option} is a predictor; give {option}=Strategy({type(strategy).__name__}(...))")
    if not isinstance(strategy, str) or strategy not in STRATEGIES:
        hint = did_you_mean(strategy.lower(), STRATEGIES) if isinstance(strategy, str) else ""
        baselines = ", ".join(name for name in STRATEGIES if name not in PRODUCTS)
        raise InputError(
            f"{option} is {short(strategy)}; {f'{hint} ' if hint else ''}expected {', '.join(PRODUCTS)}, a "
            f"viprl.Strategy, or a baseline to compare with: {baselines}"
        )
    summary, build = STRATEGIES[strategy]
    built = build()
    built.name, built.summary = strategy, summary
    return built


def named_strategies(
    strategies: Sequence[str | Strategy], shadows: Sequence[str | Strategy] = ()
) -> dict[str, Strategy]:
    """Strategies and shadow strategies by name. Raises InputError for different ones of the same name."""
    asked = [("strategy", strategy) for strategy in listed("strategies", strategies, "of strategies")]
    asked += [("shadow", strategy) for strategy in shadows]
    built: dict[str, Strategy] = {}
    given: dict[str, str | Strategy] = {}
    for option, strategy in asked:
        new = build_strategy(strategy, option)
        if given.setdefault(new.name, strategy) != strategy:
            raise InputError(f"two strategies have the name {new.name!r}; set Strategy(..., name=...)")
        built.setdefault(new.name, new)
    return built
