"""A strategy is a predictor plus a rule; the table of named presets is `STRATEGIES`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from viprl.allocation import Allocation, Budget, IntArray, describe
from viprl.guard import Guard
from viprl.predictors.beta import BetaCounts
from viprl.predictors.beta_mixture import BetaMixture
from viprl.predictors.bots import ImplicitEvidence
from viprl.predictors.constant import SuccessRate
from viprl.predictors.dynamo import CountPriority
from viprl.predictors.ema import MovingAverage
from viprl.predictors.greso import ZeroVarianceRuns
from viprl.predictors.learned_beta import LearnedBeta
from viprl.predictors.oracle import Oracle
from viprl.predictors.paper import PaperGP
from viprl.predictors.protocol import Batch, Prediction, Predictor, State
from viprl.predictors.ridge import RidgeRegression
from viprl.predictors.state_space import StateSpace
from viprl.rules.gvm import gradient_norm
from viprl.rules.knapsack import knapsack
from viprl.rules.neyman import neyman
from viprl.rules.paper import published
from viprl.rules.proportional import inverse_accuracy, inverse_variance, proportional_to_variance, random
from viprl.rules.protocol import Rule
from viprl.rules.selective import skip_and_redistribute
from viprl.rules.uniform import uniform
from viprl.rules.variance import minimum_variance
from viprl.surprise import Surprise, measured_weight
from viprl.variance import Estimator, FloatArray
from viprl.weights import LearnedWeights


@dataclass(frozen=True)
class Preset:
    """How to build a strategy: its parts and what it is."""

    predictor: Callable[[bool], Predictor]
    """From "are there features?" to a fresh predictor."""
    rule: Rule
    features: str | None
    """What the predictor reads of a prompt, unless the user says otherwise (see `viprl.features.parts`)."""
    guarded: bool
    summary: str
    learned_weights: bool = False
    """Whether the weights of the allocation are learned (`viprl.weights`) or E[p(1-p)]."""


STRATEGIES: dict[str, Preset] = {
    "default": Preset(
        lambda features: StateSpace(text=features), minimum_variance, "minilm+length", True,
        "a Bayesian filter for each prompt; drift, prior, text and weights learned; exact minimum, guarded", True,
    ),
    "paper": Preset(lambda _: PaperGP(), published, "minilm", False, "VIP as published: GP, floor and greedy"),
    "uniform": Preset(lambda _: SuccessRate(), uniform, None, False, "C/Q rollouts each, as a stock trainer does"),
    "random": Preset(lambda _: SuccessRate(), random, None, False, "a random split of the budget: the control"),
    "oracle": Preset(lambda _: Oracle(), minimum_variance, None, False, "the true probabilities, weights p(1-p)"),
    "inverse_accuracy": Preset(lambda _: PaperGP(), inverse_accuracy, "minilm", False, "ablation: n ~ 1/p"),
    "inverse_variance": Preset(lambda _: PaperGP(), inverse_variance, "minilm", False, "ablation: n ~ 1/(p(1-p))"),
    "ridge": Preset(lambda _: RidgeRegression(), published, "minilm", False, "ablation: ridge regression for the GP"),
    "ema": Preset(lambda _: MovingAverage(), published, None, False, "ablation: moving average .3 of each prompt"),
    "beta": Preset(lambda _: BetaCounts(), minimum_variance, None, False, "MoPPS: Beta counts of each prompt"),
    "learned_beta": Preset(
        lambda _: LearnedBeta(), minimum_variance, None, False, "Beta counts discounted by .9, prior learned"
    ),
    "beta_mixture": Preset(
        lambda features: BetaMixture(text=features), minimum_variance, "minilm+length", True,
        "the first default: discounted Beta counts, prior and text weighted by how well they predict",
    ),
    "bots": Preset(
        lambda _: ImplicitEvidence(), minimum_variance, None, False, "BOTS: Beta counts with implicit evidence"
    ),
    "greso": Preset(
        lambda _: ZeroVarianceRuns(), skip_and_redistribute, None, False, "GRESO: skip after zero-variance visits"
    ),
    "dynamo": Preset(
        lambda _: CountPriority(), proportional_to_variance, None, False, "DynaMO: n ~ 4p(1-p) with a floor"
    ),
    "knapsack": Preset(
        lambda _: LearnedBeta(), knapsack, None, False, "Knapsack RL: most mixed groups, weighted by p(1-p)^2"
    ),
    "gvm": Preset(lambda _: LearnedBeta(), gradient_norm, None, False, "GVM: n ~ 1/sqrt(p + alpha/p)"),
    "neyman": Preset(lambda _: LearnedBeta(), neyman, None, False, "n ~ sqrt(p(1-p))"),
}  # fmt: skip


def preset(name: str) -> Preset:
    """The preset called `name`; ValueError with the table otherwise."""
    if name not in STRATEGIES:
        raise ValueError(f"strategy is {name!r}; expected one of {', '.join(STRATEGIES)}")
    return STRATEGIES[name]


def training_preset(name: str) -> Preset:
    """The preset called `name`, for a training run; ValueError for "oracle", which has no truth to be told there."""
    if name == "oracle":
        raise ValueError(
            "strategy 'oracle' has to be told the true success probabilities, which no training run knows; it is for "
            "`viprl replay` and for experiments with viprl.VIP.tell_oracle"
        )
    return preset(name)


@dataclass(frozen=True)
class Proposal:
    """What a strategy would do with a batch, and what it needs later to learn from the outcome."""

    allocation: Allocation
    prediction: Prediction
    """For each prompt of the batch."""
    believed: Prediction
    """For each distinct prompt."""
    candidates: list[IntArray]


class Strategy:
    """A preset at work. `propose` changes nothing; what is learned is in the predictor, the weights and
    the guard."""

    def __init__(self, name: str, *, features: bool = True) -> None:
        parts = preset(name)
        self.name, self.rule = name, parts.rule
        self.predictor = parts.predictor(features)
        if self.predictor.uses_features and not features:
            raise ValueError(f"strategy {name!r} predicts from prompt features; give it features='minilm' or 'length'")
        self.weights = LearnedWeights() if parts.learned_weights else None
        self.guard = Guard() if parts.guarded else None

    @property
    def reads_pool(self) -> bool:
        """Whether the predictor makes anything of prompts that are known in advance."""
        return type(self.predictor).register is not Predictor.register

    def propose(self, batch: Batch, rows: IntArray, spec: Budget, seed: int) -> Proposal:
        """Counts for the prompts `batch[rows]` (`rows` repeats those that stand in the batch more than once).

        All candidates break ties by the same `seed`, so that they differ by their weights alone.
        """
        believed = self.predictor.predict(batch)
        if self.weights is not None:
            believed = replace(believed, learned_weight=self.weights.weigh(batch.keys, believed))
        prediction = believed.at(rows)

        def allocate(prediction: Prediction) -> IntArray:
            return self.rule(prediction, spec, np.random.default_rng(seed))

        candidates = [allocate(prediction)] if self.guard is None else self.guard.candidates(prediction, allocate)
        counts = candidates[self.guard.mixture if self.guard else 0]
        allocation = describe(counts, prediction.weight, spec, prediction.success_probability)
        return Proposal(allocation, prediction, believed, candidates)

    def review(
        self,
        proposal: Proposal,
        successes: FloatArray,
        rollouts: FloatArray,
        estimator: Estimator,
        surprise: Surprise | None = None,
    ) -> None:
        """Tell the guard what the proposal would have bought, given the outcomes of the batch."""
        if self.guard is not None:
            self.guard.observe(proposal.candidates, measured_weight(successes, rollouts, surprise), estimator)

    def observe(
        self,
        batch: Batch,
        successes: FloatArray,
        rollouts: FloatArray,
        believed: Prediction | None = None,
        surprise: Surprise | None = None,
    ) -> None:
        """Learn from the outcomes of distinct prompts; `believed` is what was predicted of them, where it is known."""
        if not (rollouts > 0).any():
            return
        if self.weights is not None:
            believed = self.predictor.predict(batch) if believed is None else believed
            self.weights.observe(batch.keys, believed, successes, rollouts, surprise)
        self.predictor.observe(batch, successes, rollouts)

    def state_dict(self) -> State:
        return {
            "model": type(self.predictor).__name__,
            "predictor": self.predictor.state_dict(),
            "weights": self.weights.state_dict() if self.weights is not None else None,
            "guard": self.guard.state_dict() if self.guard is not None else None,
        }

    def load_state_dict(self, state: State) -> None:
        model = type(self.predictor).__name__
        if state.get("model") != model:
            raise ValueError(
                f"the saved state of strategy {self.name!r} belongs to the predictor {state.get('model')}, this "
                f"version has {model}; delete the state to start prediction afresh"
            )
        self.predictor.load_state_dict(state["predictor"])
        if self.weights is not None and state["weights"] is not None:
            self.weights.load_state_dict(state["weights"])
        if self.guard is not None and state["guard"] is not None:
            self.guard.load_state_dict(state["guard"])
