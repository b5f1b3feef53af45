"""What the rest of verl's configuration must say for VIP: contradictions are refused, loose ends set and told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from viprl.engines.verl.options import ESTIMATORS, MODE, NAMESPACE, Options

ACTOR = "actor_rollout_ref.actor"
EVEN_LOSSES = ("seq-mean-token-sum-norm", "seq-mean-token-sum", "seq-mean-token-mean", "token-sum")
"""Loss aggregations whose denominator is the same for every rollout of a step, so that prompt weights are exact."""


def refuse(config: Any) -> None:
    """Raise ValueError for settings under which a budget per step cannot be kept. `config`: verl's, an OmegaConf."""
    filters = config.algorithm.get("filter_groups") or {}
    sampler = config.trainer.v1.get("sampler") or {}
    skip = config.get("skip") or {}
    if not config.trainer.get("use_v1", True):
        raise ValueError(f"trainer.use_v1=False asks for verl's v0 trainer; trainer_mode={MODE} needs v1")
    if filters.get("enable", False):
        raise ValueError(
            "algorithm.filter_groups.enable=True (dynamic sampling) draws new prompts until a batch is full, so no "
            f"budget holds; set it to False: {MODE} spends the rollouts on prompts where they tell something"
        )
    if sampler.get("sync_refill_failed_groups", False):
        raise ValueError(
            "trainer.v1.sampler.sync_refill_failed_groups=True replaces failed prompts by new ones beside the planned "
            "budget; set it to False"
        )
    for part in ("rollout", "rollout_tq"):
        if (skip.get(part) or {}).get("enable", False):
            raise ValueError(f"skip.{part}.enable=True replays rollouts of other counts; set it to False")


def settle(config: Any, options: Options) -> list[str]:
    """Set what must be consistent, in place; returns a line for each thing that was set or deserves attention.

    Loss aggregation: the weights (C/Q)/n_q make every prompt weigh the same where the loss of a mini-batch divides by a
    number that is the same for all rollouts. verl's default "token-mean" does not; it becomes the mean over sequences
    of token sums over a constant.
    """
    lines = []
    actor, algorithm = config.actor_rollout_ref.actor, config.algorithm
    if algorithm.get("norm_adv_by_std_in_grpo", False):
        algorithm.norm_adv_by_std_in_grpo = False
        lines.append("algorithm.norm_adv_by_std_in_grpo=False (was True): advantages are not divided by a std")
    if options.prompt_weighting == "rollout":
        lines.append(f"{NAMESPACE}.prompt_weighting=rollout: prompts weigh n_q/C and the variance law does not hold")
        return lines
    if actor.loss_agg_mode not in EVEN_LOSSES:
        lines.append(f"{ACTOR}.loss_agg_mode={EVEN_LOSSES[0]} (was {actor.loss_agg_mode}): equal prompt weights")
        actor.loss_agg_mode = EVEN_LOSSES[0]
    if actor.loss_agg_mode == EVEN_LOSSES[0] and actor.get("loss_scale_factor") is None:
        actor.loss_scale_factor = int(config.data.max_response_length)
        lines.append(
            f"{ACTOR}.loss_scale_factor={actor.loss_scale_factor} (data.max_response_length; verl would take the "
            "longest response of each micro-batch)"
        )
    if (mode := (actor.get("policy_loss") or {}).get("loss_mode", "vanilla")) == "geo_mean":
        lines.append(f"{ACTOR}.policy_loss.loss_mode={mode} averages over micro-batches: prompt weights approximate")
    if actor.get("use_kl_loss", False) or actor.get("entropy_coeff", 0):
        lines.append(f"{ACTOR}: KL loss and entropy bonus keep verl's weights, n_q/C a prompt")
    return lines


def data_parallel(config: Any) -> int | None:
    """Number of data-parallel ranks of the actor as far as the configuration tells; None for engines not known here."""
    actor, world = config.actor_rollout_ref.actor, config.trainer.n_gpus_per_node * config.trainer.nnodes
    if actor.strategy in ("fsdp", "fsdp2"):
        sequence = max(
            actor.get("ulysses_sequence_parallel_size") or 1,
            (actor.get("fsdp_config") or {}).get("ulysses_sequence_parallel_size") or 1,
        )
        return world // sequence
    if actor.strategy == "megatron":
        sizes = ("tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size")
        return world // math.prod(int(actor.megatron.get(size) or 1) for size in sizes)
    return None


def padding(config: Any) -> list[str]:
    """A line if verl will add masked rows to every step, none if the sizes fit.

    Raises ValueError where a mini-batch cannot be split over the ranks, which verl finds out only when workers run.
    """
    n, prompts = config.actor_rollout_ref.rollout.n, config.data.train_batch_size
    mini, ranks = config.actor_rollout_ref.actor.ppo_mini_batch_size * n, data_parallel(config)
    if ranks and mini % ranks:
        raise ValueError(
            f"a mini-batch has {mini} rollouts ({ACTOR}.ppo_mini_batch_size * rollout.n), which {ranks} data-parallel "
            "ranks cannot share evenly; choose sizes whose product is a multiple of the ranks"
        )
    multiple = math.lcm(ranks or 1, mini)
    extra = -(prompts * n) % multiple
    if not extra:
        return []
    return [
        f"{prompts * n} rollouts a step (data.train_batch_size * rollout.n) are no multiple of {multiple}: verl adds "
        f"{extra} masked rows to every step (metric vip/padding_rows). They cost time and change no weight; a "
        "train_batch_size that is a multiple of ppo_mini_batch_size avoids them"
    ]


def contradictions(arguments: Sequence[str]) -> list[str]:
    """What a command line that asks for this mode says against it in so many words.

    Only here can an explicit value be told from verl's own default; values from files are treated as defaults.
    """
    given = {}
    for argument in arguments:
        key, equals, value = argument.lstrip("+").partition("=")
        if equals:
            given[key] = value.strip("'\"")
    mode = given.get("trainer.v1.trainer_mode")
    if mode != MODE:
        from_file = mode is None and any(argument.startswith(("--config", "-cn", "-cd")) for argument in arguments)
        if given.get("algorithm.adv_estimator") in ESTIMATORS and not from_file:
            asked, found = given["algorithm.adv_estimator"], mode or "not given"
            return [f"algorithm.adv_estimator={asked} needs trainer.v1.trainer_mode={MODE}; it is {found}"]
        return []
    weighting = given.get(f"{NAMESPACE}.prompt_weighting", "prompt")
    loss = given.get(f"{ACTOR}.loss_agg_mode")
    lines = []
    if loss is not None and loss not in EVEN_LOSSES and weighting == "prompt":
        lines.append(
            f"{ACTOR}.loss_agg_mode={loss} divides by the tokens of a mini-batch, so prompts would not weigh the same: "
            f"leave it out, take one of {', '.join(EVEN_LOSSES)}, or ask for {NAMESPACE}.prompt_weighting=rollout"
        )
    if given.get("algorithm.norm_adv_by_std_in_grpo", "").lower() == "true":
        lines.append("algorithm.norm_adv_by_std_in_grpo=True divides by a std, for which no variance law holds")
    if given.get("algorithm.filter_groups.enable", "").lower() == "true":
        lines.append("algorithm.filter_groups.enable=True (dynamic sampling) keeps no budget")
    if given.get("trainer.use_v1", "").lower() == "false":
        lines.append("trainer.use_v1=False asks for verl's v0 trainer, which cannot vary rollout counts")
    estimator = given.get("algorithm.adv_estimator")
    if estimator is not None and estimator not in ESTIMATORS:
        lines.append(f"algorithm.adv_estimator={estimator}; expected {' or '.join(ESTIMATORS)}")
    return lines
