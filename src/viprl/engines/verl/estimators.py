"""The advantage estimators `vip_rloo` and `vip_dr_grpo` for groups of different sizes.

verl's loss for a mini-batch of ppo_mini_batch_size = m is the sum over its rows divided by m * rollout.n, whatever rows
it holds (`agg_loss` with global_batch_size; padding rows are masked, and their number is that which makes the step as
large as with all C rollouts, see `viprl.engines.verl.mini_batches`). With the factor rollout.n / n_q a rollout has the
weight 1/(m n_q), so the mean over the mini-batches of a step is (1/Q) sum_q (1/n_q) sum_i A_i Z_i: every prompt has the
same weight, however the rows of a group are split over mini-batches and ranks. Prompts that were selected from several
candidates are weighted by the inverse of the probability of their selection as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from verl.trainer.ppo.core_algos import register_adv_est

from viprl.advantages import Baseline, RewardPrior, group_advantages
from viprl.engines.verl.namespace import MODE
from viprl.engines.verl.rollouts import PlannedStep, prompt_of
from viprl.errors import InputError
from viprl.outcomes import scorable
from viprl.utils.arrays import FloatArray, IntArray

SETTINGS = "vip"
"""Key of verl's algorithm configuration in which the trainer puts what the estimators need in every step."""

_PLAN: ContextVar[PlannedStep | None] = ContextVar("plan", default=None)

Tensors = tuple[torch.Tensor, torch.Tensor]


@contextmanager
def planned(plan: PlannedStep) -> Iterator[None]:
    """The estimators use the weights and expectations of a plan. verl passes them the name of each row's prompt, but
    nothing else that changes from step to step."""
    token = _PLAN.set(plan)
    try:
        yield
    finally:
        _PLAN.reset(token)


@register_adv_est("vip_rloo")
def vip_rloo(
    token_level_rewards: torch.Tensor, response_mask: torch.Tensor, index: Any, config: Any = None, **_: Any
) -> Tensors:
    """Reward minus the mean of the prompt's other rollouts, scaled so that all prompts have the same weight.

    With `baseline=expected` that mean is shrunk towards the reward that VIP expects of the prompt. Groups of two waves
    have the advantages of `viprl.pooled_advantages`.

    Args:
        token_level_rewards: [rows, T]; a row's reward is its sum; NaN and inf mark an unscorable rollout (advantage 0).
        response_mask: [rows, T].
        index: [rows] the prompt of each row.
        config: verl's algorithm configuration.

    Returns: advantages and returns [rows, T], the same tensor. Raises InputError outside the trainer of this mode.
    """
    return _estimate(token_level_rewards, response_mask, index, config, "leave_one_out")


@register_adv_est("vip_dr_grpo")
def vip_dr_grpo(
    token_level_rewards: torch.Tensor, response_mask: torch.Tensor, index: Any, config: Any = None, **_: Any
) -> Tensors:
    """Reward minus the mean of all of the prompt's rollouts, scaled so that all prompts have the same weight.

    There is no division by the standard deviation. The expectation is (n_q - 1)/n_q of the gradient, so groups of
    different sizes bias it towards prompts with large groups; `vip_rloo` has no such bias.

    Args, returned tensors and errors: see `vip_rloo`.
    """
    return _estimate(token_level_rewards, response_mask, index, config, "mean")


def _estimate(rewards: torch.Tensor, mask: torch.Tensor, index: Any, config: Any, baseline: Baseline) -> Tensors:
    settings = None if config is None else config.get(SETTINGS)
    if settings is None:
        name = "vip_rloo" if baseline == "leave_one_out" else "vip_dr_grpo"
        raise InputError(f"{name} was called by a trainer without planned groups; set trainer.v1.trainer_mode={MODE}")
    with torch.no_grad():
        scores = rewards.sum(-1).double().cpu().numpy()
        scores = np.where(scorable(scores), scores, np.nan)
        prompts = [prompt_of(str(uid)) for uid in index]
        uids, group, counts = np.unique(prompts, return_inverse=True, return_counts=True)
        plan = _PLAN.get()
        weights, prior = (np.ones(len(uids)), None) if plan is None else plan.of_groups(uids.tolist())
        if settings["prompt_weighting"] == "prompt":
            weights = weights * (settings["rollout_n"] / counts)
        elif plan is not None and settings["by_rows"]:
            weights = weights * (settings["rollout_n"] / plan.counts.mean())
        if plan is not None and plan.waves is not None:
            values = weights[group] * plan.of_rows(scores, prompts)
        else:
            values = weights[group] * row_advantages(scores, group, counts, baseline, prior)
        advantages = torch.as_tensor(values, dtype=torch.float32, device=rewards.device).unsqueeze(-1) * mask
    return advantages, advantages


def row_advantages(
    rewards: FloatArray, group: IntArray, counts: IntArray, baseline: Baseline, prior: RewardPrior | None = None
) -> FloatArray:
    """[rows] reward minus the baseline of its group; the rows of a group need not be next to each other.

    Args:
        rewards: [rows].
        group: [rows] index of the group of each row.
        counts: [groups] rows of each group.
        baseline, prior: as for `viprl.advantages.group_advantages`.
    """
    order = np.argsort(group, kind="stable")
    advantages = np.empty(len(rewards))
    advantages[order] = group_advantages(rewards[order], counts, baseline, prior=prior)
    return advantages
