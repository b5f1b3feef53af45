"""Which batches are sampled in two waves, and whether this has helped.

A batch is sampled in two waves if the belief says that it pays (`viprl.allocation.waves.rule`), as long as the guards
agree. That of the strategy must trust the prediction at least by half. A guard of its own compares, in every batch of
two waves, what the groups showed of their variance with what they showed of one wave with the counts that it would have
had. Both are unbiased, whatever was predicted. If two waves have been worse by more than the noise of the comparison,
the rest of the run is sampled in one wave: without second waves there is no further evidence. What the groups show is
the variance at rho = 0. A rho that is larger than assumed is not noticed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from viprl import metrics as names
from viprl.allocation.budget import Budget
from viprl.allocation.waves.beliefs import Beliefs
from viprl.allocation.waves.pooled import Waves
from viprl.allocation.waves.rule import plan_looks
from viprl.allocation.waves.second_wave import LARGEST_GROUP
from viprl.errors import InputError
from viprl.plans import Plan
from viprl.predictors.base import Batch
from viprl.prompts import PromptBatch
from viprl.reward_groups import RewardScale
from viprl.strategies import Proposal, Strategy
from viprl.utils.arrays import FloatArray
from viprl.utils.running_comparison import RunningComparison
from viprl.utils.state_file import State

logger = logging.getLogger(__name__)

LEAST_TRUST = 0.5
"""Of the guard of the strategy."""
CAUTION = 2.5
"""Standard errors by which one wave must have been better. Larger than for other guards: the choice is final."""


class FirstLooks:
    """Plans two waves, and learns from them.

    Args:
        signal: rho (`viprl.allocation.waves.variance`).
    """

    def __init__(self, signal: float = 1.0) -> None:
        self.signal = signal
        self._comparison = RunningComparison(2, caution=CAUTION)
        self._warned: set[str] = set()

    @property
    def trusted(self) -> bool:
        """Whether two waves have not done harm."""
        return self._comparison.choice == 0

    def check(self, budget: Budget, average: float | None) -> None:
        """Raise InputError for what two waves cannot be combined with."""
        if budget.model.name != "rloo":
            raise InputError(f"waves is 2, which needs the estimator 'rloo', but estimator is {budget.model.name!r}")
        if average is not None:
            raise InputError("average and waves=2 contradict each other; give a budget, or leave out waves")

    def plan(
        self,
        strategy: Strategy,
        batch: Batch,
        prompts: PromptBatch,
        proposal: Proposal,
        budget: Budget,
        rng: np.random.Generator,
        *,
        factors: FloatArray | None,
        scale: RewardScale,
        shrinkage: float,
    ) -> Waves | None:
        """The two waves of a batch; None where one wave is better, and where no rule for two is known, with a warning.

        Args:
            strategy: that acts.
            batch: what it sees of the distinct prompts.
            prompts: Q.
            proposal: of the strategy, in one wave.
            rng: used before anything is sampled.
            factors: [Q] squared weights of the prompts in the batch gradient; None for equal weights.
            scale: of the rewards.
            shrinkage: share of what the belief suggests by which baselines are shrunk; 0 for baselines of the group.
        """
        belief, weights = strategy.success_belief(batch), strategy.variance_weights(proposal.prediction)
        obstacle = _obstacle(prompts, budget)
        if belief is None:
            obstacle = f"the strategy {strategy.name} keeps no belief over success, for rewards like these"
        elif weights is None:
            obstacle = f"the rule of the strategy {strategy.name} minimises no variance"
        if obstacle is not None:
            self._warn(obstacle)
        guarded = strategy.guard is not None and strategy.guard.trust < LEAST_TRUST
        if belief is None or weights is None or obstacle is not None or guarded or not self.trusted:
            return None
        p, chance = belief
        chance = chance[prompts.rows]
        size = (weights if factors is None else weights * factors) / np.maximum(chance @ (p * (1 - p)), 1e-12)
        size = np.maximum(size / max(size.max(), 1e-300), 1e-9)
        new = ~strategy.predictor.knows(batch)[prompts.rows]
        beliefs = Beliefs(p, chance, size, shrinkage, self.signal, new)
        looks = plan_looks(beliefs, budget, np.random.default_rng(rng.integers(2**63)))
        if not looks.looks.any():
            return None
        low, high = scale.range
        mean, seed = low + (high - low) * beliefs.mean, int(rng.integers(2**63))
        return Waves(looks, budget, (low + high) / 2, mean, seed, proposal.allocation.counts)

    def observe(self, plan: Plan, measured: FloatArray, own: FloatArray) -> None:
        """Learn from a batch of two waves.

        Args:
            plan: of the batch.
            measured: [Q] the variance weight that each group showed, NaN if none.
            own: [Q] what each group showed of its own variance.
        """
        if plan.waves is None or plan.budget.match is not None:  # there both have the same variance
            return
        factors = np.ones(len(own)) if plan.factors is None else plan.factors
        model, before = next(iter(plan.proposals.values())).model, self.trusted
        alone = np.nan_to_num(measured) * model.factor(plan.waves.alone)
        self._comparison.add(np.array([0.0, float(factors @ (alone - own))]))
        if before and not self.trusted:
            logger.warning(
                "two waves had a larger variance than one in this run; from now on every batch is sampled in one wave"
            )

    def metrics(self, plan: Plan) -> dict[str, float]:
        """Of a batch for which two waves were asked."""
        if plan.waves is None:
            return {names.LOOKS: 0.0, names.SECOND_WAVE: 0.0, names.WAVES_TRUST: float(self.trusted)}
        second = 1 - float(plan.waves.plan.first.sum() / plan.counts.sum())
        looks = float(plan.waves.plan.looks.mean())
        return {names.LOOKS: looks, names.SECOND_WAVE: second, names.WAVES_TRUST: float(self.trusted)}

    def _warn(self, reason: str) -> None:
        """Say once why two waves have no effect."""
        if reason not in self._warned:
            self._warned.add(reason)
            logger.warning("waves=2 has no effect, because %s; batches are sampled in one wave", reason)

    def state_dict(self) -> State:
        return self._comparison.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._comparison.load_state_dict(dict(state))


def _obstacle(prompts: PromptBatch, budget: Budget) -> str | None:
    """Why a batch cannot have two waves, whatever is believed of its prompts; None if it can."""
    least, most = budget.min_rollouts, budget.max_rollouts
    if len(prompts.distinct) < len(prompts.keys):
        return "prompts repeat within a batch"
    if (least != least[0]).any() or (most != most[0]).any():
        return "the bounds differ between prompts"
    if budget.total > len(prompts.keys) * LARGEST_GROUP / 2:
        return f"the average group has more than {LARGEST_GROUP // 2} rollouts"
    return None
