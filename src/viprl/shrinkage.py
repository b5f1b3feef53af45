"""The baseline of an advantage, shrunk towards the reward that is expected of the prompt.

    symbol  meaning                                                                           shape
    r       rewards of the n rollouts of a group                                              [n]
    mu      reward that is expected of the prompt before sampling                             [Q]
    kappa   rollouts that the expectation is worth: E[Var(r | prompt)] / Var(E[r | prompt])   [Q]
    b_i     baseline of rollout i: (kappa mu + sum_(j != i) r_j) / (kappa + n - 1)

b_i does not depend on rollout i, so r_i - b_i gives an unbiased gradient for any mu and kappa >= 0; kappa = 0 is the
leave-one-out mean (RLOO). Among the linear baselines b_i has the smallest expected squared distance from the prompt's
mean reward (Buhlmann's credibility), so that

    Var(n) = a (1/n) (1 + 1/(kappa + n - 1))    in place of    a/(n-1) = a (1/n) (1 + 1/(n-1)),

which matters most in small groups. A belief that is wrong but certain would do harm. `Shrinkage` therefore compares
sum_i (r_i - b_i)^2, the realised variance up to the size of the scores, for several shares of kappa.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from viprl.advantages import RewardPrior, group_advantages
from viprl.predictors.base import Prediction
from viprl.reward_groups import RewardScale
from viprl.utils.arrays import FloatArray
from viprl.utils.running_comparison import RunningComparison
from viprl.utils.state_file import State
from viprl.weights.surprisal import Surprisal

SHARES = np.array([1.0, 0.5, 0.25, 0.1, 0.0])
"""Of kappa, in each alternative."""


class Shrinkage:
    """Decides from the outcomes how far baselines are shrunk."""

    def __init__(self) -> None:
        self._comparison = RunningComparison(len(SHARES))

    @property
    def share(self) -> float:
        """Share of kappa that is used: 1 if the expectations are trusted, 0 for leave-one-out baselines."""
        return float(SHARES[self._comparison.choice])

    def observe(self, prior: RewardPrior, rewards: Sequence[FloatArray], factors: FloatArray, unit: float) -> None:
        """Learn from a batch.

        Args:
            prior: what was expected of the Q prompts, with the whole of kappa.
            rewards: [Q] groups; NaN where unscorable. Groups of fewer than two scorable rewards say nothing.
            factors: [Q] by which the variance of a prompt counts.
            unit: variance that counts as 1.
        """
        flat, counts = np.concatenate(rewards), np.array([len(group) for group in rewards])
        group = np.repeat(np.arange(len(counts)), counts)
        scorable = np.bincount(group, ~np.isnan(flat), minlength=len(counts))
        weight = np.where(scorable > 1, factors / np.maximum(scorable, 1) ** 2, 0.0) / unit
        losses = np.array(
            [weight[group] @ group_advantages(flat, counts, prior=prior.shrunk(share)) ** 2 for share in SHARES]
        )
        self._comparison.add(losses - losses[0])

    def state_dict(self) -> State:
        return self._comparison.state_dict()

    def load_state_dict(self, state: State) -> None:
        self._comparison.load_state_dict(state)


def realised_variance(
    prior: RewardPrior, values: Sequence[FloatArray], halves: Sequence[FloatArray], surprisal: Surprisal | None
) -> FloatArray:
    """[Q] what each group showed of its own variance, up to the size of the scores: sum_i (r_i - b_i)^2 s_i / n^2, with
    the expectation a f(n) of `viprl.allocation.variance_models.ShrunkRLOO` if the belief is right, and otherwise with
    that of the variance as it is. 0 for groups of fewer than two scorable rewards, as where no prior is.

    Args:
        prior: what baselines were shrunk towards.
        values: rewards [Q][n]; NaN where unscorable.
        halves: of the rewards, shaped like them (`viprl.reward_groups.RewardScale.half`).
        surprisal: of the groups, in units; None for s = 1.
    """
    flat, upper = np.concatenate(values), np.nan_to_num(np.concatenate(halves))
    counts = np.array([len(group) for group in values])
    group = np.repeat(np.arange(len(counts)), counts)
    scorable = np.bincount(group, ~np.isnan(flat), minlength=len(counts))
    squares = group_advantages(flat, counts, prior=prior) ** 2
    if surprisal is not None:
        squares = squares * np.where(upper == 1, surprisal.right[group], surprisal.wrong[group])
    total = np.bincount(group, squares, minlength=len(counts))
    return np.where(scorable > 1, total / np.maximum(scorable, 1) ** 2, 0.0)


def reward_prior(prediction: Prediction, scale: RewardScale) -> RewardPrior | None:
    """What a prediction for Q prompts says about their rewards; None if it does not say how certain it is, and before
    any reward was seen."""
    if prediction.pseudocounts is None or not scale.seen:
        return None
    low, high = scale.range
    return RewardPrior(low + (high - low) * prediction.success_probability, prediction.pseudocounts)
