"""Rewards from which tinker-cookbook computes the advantages that VIP needs.

tinker-cookbook's advantage is a reward minus the mean of its group, and Tinker's losses sum over tokens, so that a
prompt would have the weight n_q. The rewards of a group are therefore returned such that centring them yields
`group_advantages` times v_q (C/Q)/n_q: every prompt has the same weight, exactly, however a step is split. v_q is 1, or
the weight of a selected prompt, with which every candidate has the same expected weight. The mean reward of a group
does not change.

C/Q is the average group that the budget pays for. Where options of VIP save rollouts the groups are smaller on
average, and the sum over them is still that of C rollouts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from viprl.advantages import group_advantages
from viprl.allocation.waves.estimator import FirstLook, wave_advantages
from viprl.utils.arrays import FloatArray


def shaped_totals(rewards: FloatArray, average: float, estimator: str, weight: float = 1.0) -> FloatArray:
    """[m] totals of one group whose centring yields its weighted advantages.

    Args:
        rewards: [m] of the group, NaN where unscorable.
        average: C/Q, the budget of the batch for each of its prompts.
        estimator: "rloo" (leave-one-out, times 1 - Q/C so that groups of the average size have tinker-cookbook's own
            advantages) or "dr_grpo" (reward minus the mean of the group).
        weight: v of the prompt.
    """
    size = len(rewards)
    if estimator == "rloo":
        advantages = group_advantages(rewards, [size]) * (1 - 1 / average)
    else:
        advantages = group_advantages(rewards, [size], "mean")
    return _centre(rewards) + weight * advantages * average / size


def pooled_totals(
    rewards: FloatArray, planned: int, look: FirstLook, threshold: float, average: float, weight: float = 1.0
) -> FloatArray:
    """`shaped_totals` of one group that was sampled in two waves.

    The advantages of `viprl.pooled_advantages` sum to 0 in a group with baselines of the group, so that centring them
    changes nothing.

    Args:
        rewards: [m] of both waves, NaN where unscorable.
        planned: n >= m, the rollouts of both waves. Those that failed count as unscorable.
        look: what the first wave showed.
        threshold: of the reward, above which a rollout is marked.
    """
    whole = np.append(rewards, np.full(planned - len(rewards), np.nan))
    advantages = wave_advantages(whole, look, whole > threshold)[: len(rewards)] * (1 - 1 / average)
    return _centre(rewards) + weight * advantages * average / planned


def _centre(rewards: FloatArray) -> float:
    scorable = rewards[~np.isnan(rewards)]
    return float(scorable.mean()) if len(scorable) else 0.0


def trajectory_length(trajectory: Any) -> float:
    """Tokens that the policy sampled in a trajectory, whether or not it was cut off."""
    return float(sum(len(step.ac.tokens) for step in trajectory.transitions))


def trajectory_logprob(trajectory: Any) -> float | None:
    """Log probability of what the policy sampled in a trajectory; None if the sampler did not return it."""
    logprobs = [step.ac.maybe_logprobs for step in trajectory.transitions]
    return None if any(one is None for one in logprobs) else float(sum(map(sum, logprobs)))
