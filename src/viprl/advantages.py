"""Group-relative advantages for groups of different sizes, and the weight of each rollout in a batch.

The variance models hold for the batch gradient (1/Q) sum_q (1/n_q) sum_i A_i Z_i: a mean over prompts of means over
their own rollouts. A trainer averages over all C rollouts instead, which gives a prompt the weight n_q/C. Multiplying
the advantages of prompt q by (C/Q)/n_q restores the mean over prompts (`prompt_weighting="prompt"`).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from viprl.errors import InputError
from viprl.utils.arrays import FloatArray, IntArray

Baseline = Literal["leave_one_out", "mean"]


def group_index(counts: ArrayLike) -> IntArray:
    """[C] index of the group of each rollout, rollouts of a prompt being contiguous and in prompt order."""
    counts = np.asarray(counts, dtype=np.int64)
    return np.repeat(np.arange(len(counts)), counts)


def group_advantages(rewards: ArrayLike, counts: ArrayLike, baseline: Baseline = "leave_one_out") -> FloatArray:
    """Reward minus the baseline of its own group.

    Args:
        rewards: [C], grouped by prompt; NaN marks an unscorable rollout, which is left out of every mean.
        counts: [Q] group sizes, sum C.
        baseline: "leave_one_out" (RLOO: the mean of the others) or "mean" (GRPO and Dr.GRPO: the group's mean).

    Returns: [C]; 0 for unscorable rollouts and for a rollout without a scorable sibling.
    """
    if baseline not in ("leave_one_out", "mean"):
        raise InputError(f"baseline is {baseline!r}; expected 'leave_one_out' or 'mean'")
    r, group, prompts = np.asarray(rewards, dtype=float), group_index(counts), len(np.asarray(counts))
    if r.shape != group.shape:
        raise InputError(
            f"rewards have shape {r.shape}, but counts sum to {len(group)}; expected one reward for each rollout"
        )
    scorable = ~np.isnan(r)
    size = np.bincount(group, scorable, minlength=prompts)[group]
    least = np.full(prompts, np.inf)
    np.minimum.at(least, group[scorable], r[scorable])
    r = r - least[group]  # advantages ignore shifts; this one makes groups of equal rewards exactly 0
    total = np.bincount(group, np.where(scorable, r, 0.0), minlength=prompts)[group]
    advantages = np.zeros_like(r)
    ok = scorable & (size > 1)
    mean = total[ok] / size[ok]
    leave_one_out = size[ok] / (size[ok] - 1) if baseline == "leave_one_out" else 1.0
    advantages[ok] = (r[ok] - mean) * leave_one_out  # r - (sum - r)/(m - 1) = m/(m - 1) (r - mean)
    return advantages


def group_std(rewards: ArrayLike, counts: ArrayLike) -> FloatArray:
    """[Q] standard deviation of the scorable rewards of each group (divisor m - 1; 0 where m < 2)."""
    r, group, prompts = np.asarray(rewards, dtype=float), group_index(counts), len(np.asarray(counts))
    deviation = group_advantages(r, counts, "mean")
    size = np.bincount(group, ~np.isnan(r), minlength=prompts)
    return np.sqrt(np.bincount(group, deviation**2, minlength=prompts) / np.maximum(size - 1, 1))


def rollout_weights(counts: ArrayLike, weighting: str = "prompt") -> FloatArray:
    """The factor of each rollout's advantage under a loss that averages over all C rollouts.

    Args:
        counts: [Q] rollouts of each prompt, or an `Allocation`. Unscorable rollouts count, as they do in the mean.
        weighting: "prompt" for (C/Q)/n_q, so that every prompt has the same weight; "rollout" for 1, so that a prompt
            has the weight n_q/C.

    Returns: [C], rollouts of a prompt being contiguous and in prompt order.
    """
    check_prompt_weighting(weighting)
    n = np.asarray(getattr(counts, "counts", counts), dtype=float)
    if (n < 1).any():
        raise InputError(f"counts are {n.tolist()}; every prompt needs at least one rollout")
    weights = n.mean() / n if weighting == "prompt" else np.ones_like(n)
    return weights[group_index(n)]


def check_prompt_weighting(weighting: str) -> None:
    """Raise InputError unless `weighting` is "prompt" or "rollout"."""
    if weighting not in ("prompt", "rollout"):
        raise InputError(f"prompt_weighting is {weighting!r}; expected 'prompt' or 'rollout'")
