"""What a batch showed: how its rewards were read, and of a planned batch the metrics and what guards learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from viprl import metrics as names
from viprl.metrics import ratio
from viprl.outcomes import Observation, tally
from viprl.plans import Plan
from viprl.reward_groups import GroupOutcomes, RewardGroups
from viprl.strategies import Proposal, Strategy
from viprl.utils.arrays import FloatArray
from viprl.weights.surprisal import Surprisal, measured_weight


def observed(
    keys: tuple[str, ...],
    values: Sequence[FloatArray],
    groups: RewardGroups,
    judged: Sequence[FloatArray] | None,
    *,
    names_success: bool,
) -> Observation:
    """How rewards [Q][n] were read.

    Args:
        groups: the scorable ones of the rewards.
        judged: shaped like the rewards: 1 success, 0 failure, NaN undecided; None where `success` is not set.
        names_success: whether a reward of 1 is a success if nothing was judged.
    """
    if judged is not None:
        successes, known = tally(judged)
    else:
        successes, known = groups.above(0.0), groups.rollouts * names_success
    successes = np.where(known > 0, successes, np.nan)
    rewards = tuple(group[~np.isnan(group)] for group in values)
    return Observation(keys, groups.rollouts, successes, known, groups.mean, groups.variance, rewards=rewards)


def review(
    plan: Plan,
    strategies: Mapping[str, Strategy],
    realised: Mapping[str, FloatArray],
    outcomes: GroupOutcomes,
    observation: Observation,
    surprisal: Surprisal | None,
    shrunk: FloatArray | None = None,
    rates: FloatArray | None = None,
) -> tuple[dict[str, float], tuple[float, float]]:
    """Metrics by the names in `viprl.metrics`, and the realised variance of the batch and of uniform counts.

    Guards learn from the batch. Call it before predictors do.

    Args:
        plan: of the batch.
        strategies: the active one first.
        realised: sums over the run of the variance of each strategy and of uniform counts, which are updated.
        outcomes, observation: what the Q groups showed.
        surprisal: of the groups, in units.
        shrunk: [Q] the variance of each group as realised, if its baselines were shrunk.
        rates: [Q] share of binary rewards that are the larger one; None for that of all rollouts of a group.
    """
    measured = np.nan_to_num(measured_weight(outcomes, surprisal))
    measured = measured if plan.factors is None else measured * plan.factors
    even = plan.budget.uniform_variance(measured)
    metrics: dict[str, float] = {}
    variance = 0.0, even
    for position, (name, strategy) in enumerate(strategies.items()):
        proposal = plan.proposals.get(name)
        if proposal is None:  # a shadow with bad predictions
            continue
        own = float(measured @ proposal.model.factor(proposal.allocation.counts))
        if position == 0 and shrunk is not None:
            own = float(shrunk @ (np.ones(len(shrunk)) if plan.factors is None else plan.factors))
        realised[name][:] += own, even
        now, running = ratio(own, even), ratio(*realised[name])
        if position == 0:
            variance = own, even
            weights = None if plan.choice is None else plan.choice.weights
            shown = outcomes if rates is None else replace(outcomes, successes=rates * outcomes.rollouts)
            metrics |= _batch_metrics(proposal, shown, observation, weights)
            metrics |= {names.REALISED_RATIO: now, names.RUNNING_RATIO: running}
            if strategy.guard is not None:
                metrics[names.TRUST] = strategy.guard.trust
        else:
            metrics |= {names.shadow_ratio(name): now, names.shadow_ratio(name, running=True): running}
        if proposal.usable:
            strategy.review(proposal, outcomes, surprisal, plan.factors)
    return metrics, variance


def _batch_metrics(
    proposal: Proposal, outcomes: GroupOutcomes, observation: Observation, weights: FloatArray | None
) -> dict[str, float]:
    """The metrics of the allocation that was made; NaN where undefined. With the weights [Q] of selected prompts the
    success rate and the mean reward are estimates for all candidates."""
    counts, seen, judged = proposal.allocation.counts, outcomes.rollouts > 0, observation.judged > 0
    equal_rewards = ratio(float(counts[outcomes.constant].sum()), float(counts[seen].sum()))
    predicted = seen & outcomes.binary & proposal.usable
    guess = proposal.prediction.success_probability[predicted]
    rate = outcomes.successes[predicted] / outcomes.rollouts[predicted]
    safe = np.clip(guess, 1e-4, 1 - 1e-4)
    return {
        names.COUNTS_MIN: float(counts.min()),
        names.COUNTS_MEAN: float(counts.mean()),
        names.COUNTS_MAX: float(counts.max()),
        names.PREDICTED_RATIO: proposal.allocation.variance_ratio,
        names.SUCCESS_RATE: _mean(observation.successes[judged] / observation.judged[judged], weights, judged),
        names.PROMPT_REWARD: _mean(observation.reward_mean[seen], weights, seen),
        names.REWARD_VARIANCE: _mean(observation.reward_variance[outcomes.rollouts > 1]),
        names.ZERO_ADVANTAGE: equal_rewards,
        names.UNINFORMATIVE: equal_rewards,
        names.BAD_PREDICTIONS: float(not proposal.usable),
        names.UNSCORABLE: float(1 - outcomes.rollouts.sum() / counts.sum()),
        names.BRIER: _mean(rate * (1 - guess) ** 2 + (1 - rate) * guess**2),
        names.LOG_LOSS: _mean(-rate * np.log(safe) - (1 - rate) * np.log1p(-safe)),
    }


def _mean(values: FloatArray, weights: FloatArray | None = None, known: np.ndarray | None = None) -> float:
    """The mean of `values`, which are those of the prompts where `known` [Q]; NaN for none."""
    if not len(values):
        return float("nan")
    return float(np.average(values, weights=None if weights is None else weights[known]))
