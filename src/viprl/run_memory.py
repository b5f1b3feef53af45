"""What VIP has learned in a run, and how it learns from a batch."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from viprl import metrics as names
from viprl.allocation.budget import Budget
from viprl.allocation.optimum import Allocation
from viprl.allocation.sampling_record import SamplingRecord
from viprl.allocation.selection_guard import SelectionGuard
from viprl.bad_predictions import BadPredictions
from viprl.batch_review import observed, review
from viprl.errors import PredictionError
from viprl.first_looks import FirstLooks
from viprl.outcomes import Observation
from viprl.plans import Choice, Plan
from viprl.predictors.base import Batch
from viprl.prompts import PromptBatch
from viprl.reward_groups import GroupOutcomes, RewardGroups, RewardScale
from viprl.runs.visits import Visit, ordered_outcomes
from viprl.saved_strategies import load_strategies
from viprl.settings import Settings, check_waves
from viprl.shrinkage import Shrinkage, realised_variance, reward_prior
from viprl.spending import Spending
from viprl.strategies import Proposal, Strategy
from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.state_checks import array_entry, check_entries, mapping_entry
from viprl.utils.state_file import State
from viprl.weights.surprisal import SurprisalUnit, measured_weight

logger = logging.getLogger(__name__)

ENTRIES = ("strategies", "realised", "scale", "unit", "sampled", "selection", "shrinkage", "spending", "looks")


class RunMemory:
    """Everything that later plans depend on, generator and options excepted.

    Args:
        strategies: without history, by name, the active one first.
        settings: the options of VIP.
    """

    def __init__(self, strategies: Mapping[str, Strategy], settings: Settings) -> None:
        self._blank = strategies
        self.strategies = {name: strategy.fresh() for name, strategy in strategies.items()}
        self.realised: dict[str, FloatArray] = {name: np.zeros(2) for name in strategies}
        """Sums of the variance of each strategy and of uniform counts."""
        self.scale = RewardScale()
        self.unit = SurprisalUnit()
        self.sampled = SamplingRecord()
        self.selection = SelectionGuard()
        self.shrinkage = Shrinkage()
        self._warned = False  # of lengths that are all unknown
        self.expects = settings.baseline == "expected"
        """Whether baselines are shrunk towards expected rewards."""
        self.spending = Spending(settings)
        self.looks = FirstLooks(settings.score_signal)
        self._bad = BadPredictions(settings)

    @property
    def active(self) -> Strategy:
        """The strategy that acts."""
        return next(iter(self.strategies.values()))

    def budget(
        self,
        acting: Strategy,
        batch: Batch,
        rows: IntArray,
        hard: Budget,
        *,
        average: float | None = None,
        multiple: int = 1,
    ) -> Budget:
        """What the options of VIP make of the budget of the prompts `batch[rows]`.

        Args:
            acting: the strategy that acts.
            batch: what it sees of the distinct prompts.
            average: rollouts of a prompt, met on average, in place of the budget.
            multiple: as for `VIP.allocate`.
        """
        spending = self.spending
        spending.check(hard, multiple, average)
        if average is None and self.spending.settings.spends_all:
            return spending.budget(hard, None, multiple)
        prediction = acting.predict(batch)
        costs = spending.costs(batch, prediction)
        costs = None if costs is None else costs[rows]
        if average is None:
            return spending.budget(hard, costs, multiple)
        return spending.priced(hard, costs, prediction.weight[rows], average)

    def choose(
        self, offered: PromptBatch, batch: Batch, size: int, rng: np.random.Generator, *, unbiased: bool
    ) -> Choice:
        """Which of the candidates are sampled, and their weights; `batch` is what the active strategy sees of the
        distinct ones."""
        try:
            sizes, bad = self.active.gradient_sizes(batch), None
        except PredictionError as error:
            sizes, bad = self._bad.stand_in(self.active, error).gradient_sizes(batch), error
        draw = self.selection.draw(sizes[offered.rows], size, rng)
        pi = draw.inclusion
        return Choice(offered.keys, draw, pi.mean() / pi[draw.positions] if unbiased else np.ones(size), bad)

    def plan(
        self,
        batches: Mapping[str, Batch],
        batch: PromptBatch,
        hard: Budget,
        rng: np.random.Generator,
        choice: Choice | None = None,
        *,
        waves: int = 1,
        **spent: Any,
    ) -> tuple[Plan, Allocation]:
        """The plan of a batch, chosen by `choice`, and what the engine gets of it; `spent` is for `budget`.

        A batch for which the active strategy has bad predictions has a plan without them, if `on_bad_prediction` says
        so. Otherwise raises PredictionError.
        """
        given: dict[str, Any] = {"choice": choice, "waves": waves, **spent}
        try:
            if choice is not None and choice.error is not None:
                raise choice.error
            return self._plan(self.active, batches, batch, hard, rng, **given)
        except PredictionError as error:
            return self._plan(self._bad.stand_in(self.active, error), batches, batch, hard, rng, **given)

    def _plan(
        self,
        acting: Strategy,
        batches: Mapping[str, Batch],
        batch: PromptBatch,
        hard: Budget,
        rng: np.random.Generator,
        *,
        choice: Choice | None,
        waves: int,
        **spent: Any,
    ) -> tuple[Plan, Allocation]:
        """The plan if `acting` acts."""
        check_waves(waves)
        if waves == 2:
            self.looks.check(hard, spent.get("average"))
        active, factors = next(iter(batches)), None
        if choice is not None:
            hard, factors = replace(hard, reference_factors=choice.reference), choice.weights**2
        limits = self.budget(acting, batches[active], batch.rows, hard, **spent)
        proposals = self._proposals(acting, batches, batch, limits, rng, factors)
        proposal = proposals[active]
        prior = reward_prior(proposal.prediction, self.scale) if self.expects else None
        allocation, share, looks = proposal.allocation, self.shrinkage.share, None
        if waves == 2 and proposal.usable:
            trust = share if self.expects and self.scale.seen else 0.0
            of_batch = self.active, batches[active], batch, proposal, limits
            looks = self.looks.plan(*of_batch, rng, factors=factors, scale=self.scale, shrinkage=trust)
        if looks is not None:
            variance = allocation.expected_variance * looks.plan.variance_ratio
            cost = allocation.cost * (1.0 if limits.is_hard else looks.plan.cost_ratio)
            counts = looks.plan.first
            allocation = replace(allocation, counts=counts, expected_variance=variance, cost=cost, waves=looks)
            proposals[active] = replace(proposal, allocation=allocation)
        plan = Plan(limits, proposals, dict(batches), allocation.counts, prior, choice, looks, share, asked=waves)
        self.spending.planned(limits, allocation.counts, spent.get("average"))
        return plan, replace(allocation, prior=None if prior is None else prior.shrunk(share))

    def _proposals(
        self,
        acting: Strategy,
        batches: Mapping[str, Batch],
        batch: PromptBatch,
        budget: Budget,
        rng: np.random.Generator,
        factors: FloatArray | None = None,
    ) -> dict[str, Proposal]:
        """What each strategy would do, shadows with bad predictions excepted; `factors` as for `Strategy.propose`."""
        share = self.shrinkage.share if self.expects and self.scale.seen else None
        seed = int(rng.integers(2**63))  # the same for all, so that a shadow does not change the active strategy's ties
        proposals: dict[str, Proposal] = {}
        for name, strategy in {**self.strategies, acting.name: acting}.items():
            try:
                proposals[name] = strategy.propose(batches[name], batch.rows, budget, seed, factors, shrinkage=share)
            except PredictionError as error:
                if strategy is acting:
                    raise
                self._bad.leave_out(name, error)
        if acting is not self.active:
            proposals[acting.name] = replace(proposals[acting.name], believed=None)
        return proposals

    def learn(
        self,
        batch: PromptBatch,
        batches: Mapping[str, Batch],
        values: Sequence[FloatArray],
        *,
        plan: Plan | None = None,
        nats: Sequence[FloatArray] | None = None,
        judged: Sequence[FloatArray] | None = None,
        lengths: Sequence[FloatArray] | None = None,
    ) -> tuple[Observation, dict[str, float]]:
        """Learn from a batch. Returns how the rewards were read, and of a planned batch its metrics.

        Args:
            batch: Q prompts.
            batches: what each strategy sees of the distinct ones.
            values: rewards [Q][n]; NaN is unscorable.
            plan: of the batch; None if it was not planned.
            nats: log probabilities, shaped like `values`.
            judged: as for `viprl.batch_review.observed`.
            lengths: in tokens, shaped like `values`; NaN where unknown.
        """
        groups = RewardGroups.of_rewards(values)
        self.scale.observe(groups)
        outcomes = GroupOutcomes.of(groups, self.scale)
        merged = GroupOutcomes.of(groups.merged(batch.rows, len(batch.distinct)), self.scale)
        waves = None if plan is None or plan.waves is None or plan.waves.labels is None else plan.waves
        if waves is not None:  # the size of these groups says something about their rewards
            factors = waves.variance_factors(values)
            outcomes, merged = outcomes.reweighed(factors), merged.reweighed(factors)
        surprisal, of_prompts = None, None
        halves = self.scale.halves(values)
        if nats is not None:
            surprisal, of_prompts = self.unit.measure(halves, nats, batch.merged, merged)
        observation = observed(batch.keys, values, groups, judged, names_success=self.scale.names_success)
        metrics: dict[str, float] = {}
        if plan is not None:
            own = None
            if waves is not None:
                own = waves.realised_variance(values, halves, surprisal) / self.scale.unit_variance
            elif plan.prior is not None:
                own = realised_variance(plan.prior.shrunk(plan.share), values, halves, surprisal)
                factor = next(iter(plan.proposals.values())).model.factor
                # of lost rollouts the plan is not to blame: as with all that were planned
                own *= factor(plan.counts) / factor(np.maximum(groups.rollouts, 2)) / self.scale.unit_variance
            shown, rates = observation, None
            if waves is not None:  # the means of these groups are biased
                rates = waves.means(halves, values)
                successes = (rates if judged is None else waves.means(judged, values)) * observation.judged
                variances = observation.reward_variance * factors
                shown = replace(
                    observation,
                    successes=np.where(observation.judged > 0, successes, np.nan),
                    reward_mean=waves.means(values, values),
                    reward_variance=variances,
                )
            metrics, variance = review(plan, self.strategies, self.realised, outcomes, shown, surprisal, own, rates)
            measured = measured_weight(outcomes, surprisal)
            metrics |= self._review_weights(plan, values, measured)
            if waves is not None and own is not None:
                self.looks.observe(plan, measured, own)
            if plan.asked == 2:
                metrics |= self.looks.metrics(plan)
            metrics |= self.spending.metrics(plan, lengths)
            if plan.usable:
                predicted = next(iter(plan.proposals.values())).allocation.variance_ratio
                self.spending.observe(plan.budget, variance, predicted)
            observation = replace(observation, variance=variance)
        if lengths is not None:
            self._learn_lengths(batch, batches, lengths, halves)
            pairs = zip(lengths, values, strict=True)
            observation = replace(observation, lengths=tuple(length[~np.isnan(group)] for length, group in pairs))
        for name, strategy in self.strategies.items():
            believed = plan.proposals[name].believed if plan is not None and name in plan.proposals else None
            with self._restarting(name):
                strategy.observe(batches[name], merged, believed, of_prompts)
        return observation, metrics

    def learn_counts(self, batches: Mapping[str, Batch], successes: FloatArray, rollouts: FloatArray) -> None:
        """Learn from successes among rollouts of distinct prompts."""
        for name, strategy in self.strategies.items():
            with self._restarting(name):
                strategy.observe(batches[name], GroupOutcomes.of_counts(successes, rollouts))

    def learn_visits(self, batch: PromptBatch, batches: Mapping[str, Batch], shown: Sequence[Visit]) -> None:
        """Learn from what Q prompts showed in an earlier run, all with rewards or all without."""
        rewards = [visit.rewards for visit in shown if visit.rewards is not None]
        known = any(visit.lengths is not None for visit in shown)
        # counts of rollouts may be huge: without lengths they are not unrolled
        sizes = [len(group) for group in rewards] or [0] * len(shown)
        pairs = zip(shown, sizes, strict=True)
        lengths = [np.full(n, np.nan) if visit.lengths is None else visit.lengths for visit, n in pairs]
        if rewards:
            self.learn(batch, batches, rewards, lengths=lengths if known else None)
            return
        k, n = np.array([(visit.successes, visit.rollouts) for visit in shown]).T
        self.learn_counts(batches, batch.summed(k), batch.summed(n))
        if known:
            halves = [ordered_outcomes(len(length), won) for length, won in zip(lengths, k, strict=True)]
            self._learn_lengths(batch, batches, lengths, halves)

    def _learn_lengths(
        self,
        batch: PromptBatch,
        batches: Mapping[str, Batch],
        lengths: Sequence[FloatArray],
        halves: Sequence[FloatArray],
    ) -> None:
        """Learn from lengths [Q][n] and the half of each reward, where tokens count."""
        if self.spending.counts_tokens:
            active = next(iter(batches.values()))
            self.spending.lengths.observe(active, batch.merged(lengths), batch.merged(halves))
            if not self.spending.lengths.ready and not self._warned:
                self._warned = True
                logger.warning("no rollout has a length, so that all rollouts cost the same; give lengths in tokens")

    def pass_over(self, offered: PromptBatch, batches: Mapping[str, Batch], sampled: PromptBatch) -> None:
        """Take note of a selection: time passes for the candidates that were not sampled."""
        passed = ~np.isin(offered.distinct, sampled.distinct)
        for name, strategy in self.strategies.items():
            with self._restarting(name):
                strategy.pass_over(batches[name].select(passed))
        if self.spending.counts_tokens:
            self.spending.lengths.pass_over(next(iter(batches.values())).select(passed))
        self.sampled.add(offered.distinct, sampled.distinct)

    @contextmanager
    def _restarting(self, name: str) -> Iterator[None]:
        """What a strategy does when it learns, which may make it start again without history."""
        try:
            yield
        except PredictionError as error:
            acts = name == next(iter(self.strategies))
            self.strategies[name] = self._bad.restart(self._blank[name], error, acts=acts)

    def _review_weights(self, plan: Plan, values: Sequence[FloatArray], measured: FloatArray) -> dict[str, float]:
        """Metrics of selection and shrinkage; their guards learn. `measured` [Q] as for `SelectionGuard.observe`."""
        metrics: dict[str, float] = {}
        if plan.choice is not None:
            weights = plan.choice.weights
            metrics = {
                names.EFFECTIVE_PROMPTS: float(weights.sum() ** 2 / (weights**2).sum()),
                names.SQUARED_WEIGHTS: float((weights**2).mean()),
                names.NEGLECTED: self.sampled.neglected,
                names.SELECTION_TRUST: self.selection.trust,
            }
            if plan.choice.error is None:
                self.selection.observe(plan.choice.draw, measured)
        if plan.prior is not None:
            metrics[names.SHRINKAGE] = self.shrinkage.share
            factors = np.ones(len(values)) if plan.factors is None else plan.factors
            if plan.waves is not None:  # groups of two waves do not show what baselines of one wave would have done
                factors = factors * ~plan.waves.plan.looks
            self.shrinkage.observe(plan.prior, values, factors, self.scale.unit_variance)
        return metrics

    def state_dict(self) -> State:
        return {
            "strategies": {name: strategy.state_dict() for name, strategy in self.strategies.items()},
            "realised": {name: sums.copy() for name, sums in self.realised.items()},
            "scale": self.scale.state_dict(),
            "unit": self.unit.state_dict(),
            "sampled": self.sampled.state_dict(),
            "selection": self.selection.state_dict(),
            "shrinkage": self.shrinkage.state_dict(),
            "spending": self.spending.state_dict(),
            "looks": self.looks.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any], features: Mapping[str, str], *, same_estimator: bool) -> None:
        """Take over a state; this memory is without history. If it fails, this memory is of no use.

        Args:
            features: of each strategy, in words.
            same_estimator: whether the state was saved with the estimator of this run; otherwise the guards of the
                counts and running ratios start afresh.

        Raises StateError if a strategy was saved with other features or another predictor, and for a damaged state.
        """
        check_entries("viprl.VIP", state, ENTRIES)
        load_strategies(self.strategies, dict(features), dict(state), guards=same_estimator)
        for name in self.realised.keys() & state["strategies"].keys() if same_estimator else ():
            self.realised[name] = array_entry(state["realised"], name, 2, least=0)
        self.unit.load_state_dict(state["unit"])
        for name in ("scale", "sampled", "selection", "shrinkage", "spending", "looks"):
            getattr(self, name).load_state_dict(dict(mapping_entry(state, name)))
