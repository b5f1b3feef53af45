"""Group-relative advantages for groups of different sizes, and the weight of each rollout in a batch.

The variance models hold for the batch gradient (1/Q) sum_q (1/n_q) sum_i A_i Z_i: a mean over prompts of means over
their own rollouts. A trainer averages over all C rollouts instead, which gives a prompt the weight n_q/C. Multiplying
the advantages of prompt q by (C/Q)/n_q restores the mean over prompts (`prompt_weighting="prompt"`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from viprl.errors import InputError, InputTypeError
from viprl.outcomes import reward_values, scorable
from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.sequences import check_choice, numbers, short, whole_number, whole_numbers

Baseline = Literal["leave_one_out", "mean"]


def group_index(counts: ArrayLike) -> IntArray:
    """[C] index of the group of each rollout, rollouts of a prompt being contiguous and in prompt order."""
    sizes = _sizes(counts)
    return np.repeat(np.arange(len(sizes)), sizes)


@dataclass(frozen=True)
class RewardPrior:
    """What is expected of the rewards of Q prompts before sampling (`viprl.shrinkage`)."""

    mean: FloatArray
    """[Q] mu, the expected reward."""
    rollouts: FloatArray
    """[Q] kappa >= 0, how many rollouts the expectation is worth."""

    def shrunk(self, share: float) -> RewardPrior:
        """The same expectation with a share of its rollouts."""
        return RewardPrior(self.mean, share * self.rollouts)


def group_advantages(
    rewards: ArrayLike,
    counts: ArrayLike,
    baseline: Baseline = "leave_one_out",
    *,
    prior: RewardPrior | None = None,
) -> FloatArray:
    """Reward minus the baseline of its own group. Always finite, also in 32 bits.

    Args:
        rewards: [C], grouped by prompt. NaN, None, infinity, numbers beyond 1e30 and whatever is not a number mark
            unscorable rollouts (`viprl.outcomes.scorable`), which are left out of every mean.
        counts: [Q] group sizes, sum C, or an `Allocation`.
        baseline: "leave_one_out" (RLOO: the mean of the others) or "mean" (GRPO and Dr.GRPO: the group's mean).
        prior: shrinks leave-one-out baselines towards the reward that is expected of the prompt: (kappa mu + sum of the
            others)/(kappa + m - 1), with the m scorable rollouts of the group (`viprl.shrinkage`). Still unbiased.

    Returns: [C]; 0 for unscorable rollouts, and without a prior for a rollout without a scorable sibling.

    Raises InputError (a ValueError) for counts that do not sum to C, for a prior of other prompts, and for rewards that
    are not a sequence.
    """
    check_choice("baseline", baseline, ("leave_one_out", "mean"))
    if prior is not None and baseline == "mean":
        raise InputError("prior is given with baseline 'mean'; it shrinks baselines of 'leave_one_out' alone")
    r, group, prompts = _grouped(rewards, counts)
    if prior is not None:
        _check_prior(prior, prompts)
    usable = scorable(r)
    size = np.bincount(group, usable, minlength=prompts)[group]
    least = np.full(prompts, np.inf)
    np.minimum.at(least, group[usable], r[usable])
    # advantages ignore shifts; this one makes groups of equal rewards exactly 0
    above = np.zeros_like(r)
    above[usable] = r[usable] - least[group[usable]]
    total = np.bincount(group, above, minlength=prompts)[group]
    if prior is not None:
        return _shrunk_advantages(above, total, size, usable, prior.mean[group] - least[group], prior.rollouts[group])
    ok = usable & (size > 1)
    leave_one_out = size[ok] / (size[ok] - 1) if baseline == "leave_one_out" else 1.0
    advantages = np.zeros_like(r)
    advantages[ok] = (above[ok] - total[ok] / size[ok]) * leave_one_out  # r - (sum - r)/(m-1) = m/(m-1) (r - mean)
    return advantages


def _check_prior(prior: Any, prompts: int) -> None:
    if not isinstance(prior, RewardPrior):
        raise InputTypeError(f"prior is {short(prior)}; expected the `prior` of an allocation, or None")
    if len(prior.mean) != prompts or len(prior.rollouts) != prompts:
        raise InputError(
            f"prior is about {len(prior.mean)} prompts, but counts are those of {prompts}; give the prior and the "
            "counts of the same allocation"
        )


def _shrunk_advantages(
    reward: FloatArray, total: np.ndarray, size: np.ndarray, usable: np.ndarray, mu: FloatArray, kappa: FloatArray
) -> FloatArray:
    """[C] r - (kappa mu + sum of the others)/(kappa + m - 1), all of it for each rollout."""
    known = kappa + size - 1
    ok = usable & (known > 0)
    advantages = np.zeros_like(reward)
    advantages[ok] = reward[ok] - (kappa[ok] * mu[ok] + total[ok] - reward[ok]) / known[ok]
    return advantages


def group_std(rewards: ArrayLike, counts: ArrayLike) -> FloatArray:
    """[Q] standard deviation of the scorable rewards of each group (divisor m - 1; 0 where m < 2)."""
    r, group, prompts = _grouped(rewards, counts)
    deviation = group_advantages(r, np.bincount(group, minlength=prompts), "mean")
    size = np.bincount(group, scorable(r), minlength=prompts)
    return np.sqrt(np.bincount(group, deviation**2, minlength=prompts) / np.maximum(size - 1, 1))


def _grouped(rewards: ArrayLike, counts: ArrayLike) -> tuple[FloatArray, IntArray, int]:
    """[C] rewards, [C] the group of each, and Q. Raises InputError if they do not fit."""
    r = reward_values(rewards)
    sizes = _sizes(counts)
    if int(sizes.sum()) != len(r):  # before an array of that length is made
        raise InputError(
            f"{len(r)} rewards were given, but counts sum to {int(sizes.sum())}; expected one reward for each rollout"
        )
    return r, group_index(sizes), len(sizes)


def _sizes(counts: Any) -> IntArray:
    """[Q] whole numbers, also of an `Allocation`."""
    return whole_numbers("counts", getattr(counts, "counts", counts))


def rollout_weights(
    counts: ArrayLike,
    weighting: str = "prompt",
    *,
    prompt_weights: ArrayLike | None = None,
    rows: int | None = None,
) -> FloatArray:
    """The factor of each rollout's advantage under a loss that averages over all C rollouts.

    Args:
        counts: [Q] rollouts of each prompt, or an `Allocation`. Unscorable rollouts count, as they do in the mean.
        weighting: "prompt" for (C/Q)/n_q, so that every prompt has the same weight; "rollout" for 1, so that a prompt
            has the weight n_q/C.
        prompt_weights: [Q] by which the factors of each prompt are multiplied: the `weights` of a `Selection`.
        rows: by which the loss divides, if it has empty rows besides the C rollouts.

    Returns: [C], rollouts of a prompt being contiguous and in prompt order.
    """
    check_prompt_weighting(weighting)
    n = _sizes(counts)
    if (n < 1).any():
        raise InputError(
            f"counts are {short(n.tolist())}; every prompt needs at least one rollout. Of a selection give "
            "`selection.allocation`, and prompt_weights=selection.weights"
        )
    weights = n.mean() / n if weighting == "prompt" and len(n) else np.ones(len(n))
    if rows is not None:
        weights = weights * (whole_number("rows", rows, least=1) / max(int(n.sum()), 1))
    if prompt_weights is not None:
        factors = numbers("prompt_weights", prompt_weights)
        if len(factors) != len(n):
            raise InputError(f"prompt_weights has {len(factors)} numbers; expected one for each of {len(n)} prompts")
        if not scorable(factors).all():
            raise InputError(f"prompt_weights are {short(factors.tolist())}; expected numbers of at most 1e30")
        weights = weights * factors
    return weights[group_index(n)]


def check_prompt_weighting(weighting: str) -> None:
    """Raise InputError unless `weighting` is "prompt" or "rollout"."""
    check_choice("prompt_weighting", weighting, ("prompt", "rollout"))
