"""Advantages of groups of different sizes, as TRL's trainers define them. The prompt weights come afterwards."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from viprl.advantages import group_advantages, group_index, group_std
from viprl.engines.planned_batch import PlannedBatch
from viprl.outcomes import scorable
from viprl.utils.arrays import FloatArray

EPSILON = 1e-4
"""TRL adds it to the standard deviations that it divides by."""


def weighted_total(rewards: FloatArray, weights: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """[N] total reward of each rollout, NaN where it cannot be scored, and [N] whether it cannot be read.

    A reward of NaN (its function has no opinion) or inf (it cannot be trained on) is left out of the total. A rollout
    without any other reward, or with a total that cannot be trained on, is unscorable. It is unreadable unless all its
    rewards are NaN.

    Args:
        rewards: [N, F].
        weights: [F].
    """
    known = scorable(rewards)
    total = np.where(known, rewards, 0.0) @ weights
    lost = ~known.any(axis=1) | ~scorable(total)
    return np.where(lost, np.nan, total), lost & ~np.isnan(rewards).all(axis=1)


def grpo_advantages(
    rewards: FloatArray, plan: PlannedBatch, average: float, *, leave_one_out: bool, scale: str
) -> FloatArray:
    """[N] advantages of GRPO.

    Args:
        rewards: [N], NaN where unscorable.
        plan: of the batch.
        average: C/Q, the average group of a budget that is spent.
        leave_one_out: reward minus the mean of the others, times 1 - Q/C so that groups of the average size have
            Dr.GRPO's advantages, also where rollouts are saved; otherwise reward minus the mean of the group.
        scale: TRL's `scale_rewards`, what to divide by: "none", "group" or "batch" (standard deviation of either).
    """
    if leave_one_out:
        advantages = plan.advantages(rewards) * (1 - 1 / average)
    else:
        advantages = group_advantages(rewards, plan.counts, "mean")
    if scale == "group":
        return advantages / (group_std(rewards, plan.counts)[group_index(plan.counts)] + EPSILON)
    if scale == "batch":
        return advantages / (_std(rewards[~np.isnan(rewards)]) + EPSILON)
    return advantages


def rloo_advantages(rewards: FloatArray, plan: PlannedBatch, *, normalize: bool) -> FloatArray:
    """[N] advantages of RLOO: reward minus the mean of the others, shaped as above.

    Args:
        normalize: standardise those that have a baseline (a scorable sibling or a prior) over the batch, TRL's
            `normalize_advantages`.
    """
    advantages = plan.advantages(rewards)
    if normalize:
        group = group_index(plan.counts)
        size = np.bincount(group, ~np.isnan(rewards), minlength=len(plan.counts))[group]
        known = size - 1 if plan.prior is None else size - 1 + plan.prior.rollouts[group]
        used = ~np.isnan(rewards) & (known > 0)
        if used.any():
            advantages[used] = (advantages[used] - advantages[used].mean()) / (_std(advantages[used]) + EPSILON)
    return advantages


def rewards_of_one_group(advantages: FloatArray, rewards: FloatArray) -> FloatArray:
    """[N] rewards, up to a shift, from TRL's leave-one-out advantages over the batch as one group.

    TRL subtracts a KL penalty, which only each process knows, from the rewards of RLOO. Its advantage over a group of m
    rewards is m/(m-1) (r - mean), so that undoing the factor gives r with its penalty.

    Args:
        advantages: [N] of all processes.
        rewards: [N] without the penalty, NaN where unscorable.
    """
    m = int((~np.isnan(rewards)).sum())
    return np.where(np.isnan(rewards), np.nan, advantages * (m - 1) / max(m, 1))


def _std(values: FloatArray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0
