"""Requirements on the rest of verl's configuration: contradictions are refused, defaults are set and reported."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from viprl.engines.verl.mini_batches import rows_of_step
from viprl.engines.verl.namespace import ESTIMATORS, MODE, NAMESPACE, NEED_RLOO, needs_rloo
from viprl.errors import InputError
from viprl.metrics import PADDING_ROWS, PREFIX, ROLLOUTS
from viprl.settings import EngineSettings
from viprl.utils.words import count

ACTOR = "actor_rollout_ref.actor"
EVEN_LOSSES = ("seq-mean-token-sum-norm", "seq-mean-token-sum", "seq-mean-token-mean", "token-sum")
"""Loss aggregations that divide all rollouts of a step by the same number, so that prompt weights are exact."""


REFUSED = {
    "trainer.use_v1": (False, "selects verl's v0 trainer, which has no variable rollout counts"),
    "algorithm.filter_groups.enable": (
        True,
        "(dynamic sampling) draws new prompts until a batch is full, so that a step has no fixed budget",
    ),
    "trainer.v1.sampler.sync_refill_failed_groups": (True, "replaces failed prompts by new ones without a plan"),
    "skip.rollout.enable": (True, "replays rollouts with other counts"),
    "skip.rollout_tq.enable": (True, "replays rollouts with other counts"),
}
"""Setting -> the value that makes a fixed budget for each step impossible, and the reason."""


def refuse(config: Any) -> None:
    """Raise InputError for settings of verl that make a fixed budget for each step impossible."""
    for key, (value, reason) in REFUSED.items():
        if OmegaConf.select(config, key) == value:
            raise InputError(f"{key}={value} {reason}; trainer_mode={MODE} needs {not value}")


def check_baseline(config: Any, baseline: str) -> None:
    """Raise InputError if baselines are shrunk towards other rewards than advantages are computed from."""
    if baseline == "expected" and config.algorithm.get("use_kl_in_reward", False):
        raise InputError(
            f"{NAMESPACE}.baseline=expected compares rewards with what VIP expects, but with "
            "algorithm.use_kl_in_reward=True a penalty is subtracted from them before advantages are computed; set "
            "use_kl_in_reward=False, or baseline=group"
        )


def check_waves(config: Any, settings: EngineSettings) -> None:
    """Raise InputError if the rewards of a first wave are not known in time or are not those of the advantages, or if
    the weight of a prompt depends on them."""
    if settings.waves == 1:
        return
    two = f"{NAMESPACE}.waves=2"
    if config.algorithm.get("use_kl_in_reward", False):
        raise InputError(
            f"{two} plans by the rewards, but with algorithm.use_kl_in_reward=True a penalty is subtracted from them "
            "before advantages are computed; set use_kl_in_reward=False, or waves=1"
        )
    model = config.reward.reward_model
    if model.enable and not model.enable_resource_pool:
        raise InputError(
            f"{two} plans by the rewards of the first wave, but a reward model that shares its GPUs with the trainer "
            "(reward.reward_model.enable_resource_pool=False) scores after all rollouts of a step; set "
            "enable_resource_pool=True, or waves=1"
        )
    if settings.prompt_weighting == "rollout":
        raise InputError(two_waves_need_prompt_weights())


def two_waves_need_prompt_weights() -> str:
    """Why waves=2 is refused with prompt_weighting=rollout."""
    return (
        f"{NAMESPACE}.waves=2 with prompt_weighting=rollout weights a prompt by its number of rollouts, which depends "
        "on its rewards, so that the gradient is biased; leave prompt_weighting out, or set waves=1"
    )


def settle(config: Any, settings: EngineSettings) -> list[str]:
    """Set what prompt weights need, in place; returns a line for each setting that was changed or limits them.

    The weights (C/Q)/n_q give every prompt the same weight if the loss of a mini-batch divides by a number that is the
    same for all rollouts. verl's default "token-mean" does not; it is replaced by the mean over sequences of the sum
    over tokens divided by a constant.
    """
    lines = []
    actor, algorithm = config.actor_rollout_ref.actor, config.algorithm
    if algorithm.get("norm_adv_by_std_in_grpo", False):
        algorithm.norm_adv_by_std_in_grpo = False
        lines.append(
            "algorithm.norm_adv_by_std_in_grpo=False (was True): advantages are not divided by the standard deviation"
        )
    if settings.prompt_weighting == "rollout":
        lines.append(
            f"{NAMESPACE}.prompt_weighting=rollout: prompts have the weight n_q/C; the variance model ignores this"
        )
        return lines
    if actor.loss_agg_mode not in EVEN_LOSSES:
        lines.append(f"{ACTOR}.loss_agg_mode={EVEN_LOSSES[0]} (was {actor.loss_agg_mode}): equal prompt weights")
        actor.loss_agg_mode = EVEN_LOSSES[0]
    if actor.loss_agg_mode == EVEN_LOSSES[0] and actor.get("loss_scale_factor") is None:
        actor.loss_scale_factor = int(config.data.max_response_length)
        lines.append(
            f"{ACTOR}.loss_scale_factor={actor.loss_scale_factor} (data.max_response_length; verl's default is the "
            "longest response of each micro-batch)"
        )
    if (mode := (actor.get("policy_loss") or {}).get("loss_mode", "vanilla")) == "geo_mean":
        lines.append(
            f"{ACTOR}.policy_loss.loss_mode={mode} averages over micro-batches: prompt weights are approximate"
        )
    if actor.get("use_kl_loss", False) or actor.get("entropy_coeff", 0):
        falls = f"; {saving(settings)} lowers their sum with the number of rollouts" if saving(settings) else ""
        lines.append(f"{ACTOR}: in the KL loss and the entropy bonus a prompt has the weight n_q/C{falls}")
    return lines


def data_parallel(config: Any) -> int | None:
    """Number of data-parallel ranks of the actor; None for engines that are not known here."""
    actor, world = config.actor_rollout_ref.actor, config.trainer.n_gpus_per_node * config.trainer.nnodes
    if actor.strategy in ("fsdp", "fsdp2"):
        parts = (actor, actor.get("fsdp_config") or {})
        return world // max(part.get("ulysses_sequence_parallel_size") or 1 for part in parts)
    if actor.strategy == "megatron":
        sizes = ("tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size")
        return world // math.prod(int(actor.megatron.get(size) or 1) for size in sizes)
    return None


def budget(config: Any) -> int:
    """C, the rollouts of a step if none are saved."""
    return int(config.data.train_batch_size * config.actor_rollout_ref.rollout.n)


def mini_batch(config: Any) -> int:
    """Rows of a mini-batch of the actor, on all ranks."""
    return int(config.actor_rollout_ref.actor.ppo_mini_batch_size * config.actor_rollout_ref.rollout.n)


def saving(settings: EngineSettings) -> str:
    """The options with which a step may have fewer rollouts than its budget; empty if none are set."""
    given = {"spend": settings.spend == "match", "cost": settings.cost == "tokens"}
    return " and ".join(f"{NAMESPACE}.{name}={getattr(settings, name)}" for name, is_set in given.items() if is_set)


def padding(config: Any, settings: EngineSettings) -> list[str]:
    """A line if verl will add masked rows to steps, none if every step has the rollouts of full mini-batches.

    Raises InputError if a mini-batch cannot be split evenly over the ranks, which verl notices only when workers run.
    """
    rollouts, mini, ranks = budget(config), mini_batch(config), data_parallel(config)
    if ranks and mini % ranks:
        raise InputError(
            f"a mini-batch has {mini} rollouts ({ACTOR}.ppo_mini_batch_size * rollout.n), which {ranks} data-parallel "
            "ranks cannot share evenly; set ppo_mini_batch_size so that the product is a multiple of the ranks"
        )
    multiple = math.lcm(ranks or 1, mini)
    rows = rows_of_step(rollouts, multiple)
    lines = []
    if rows > rollouts:
        lines.append(
            f"{rollouts} rollouts a step (data.train_batch_size * rollout.n) are not a multiple of {multiple}: verl "
            f"adds {rows - rollouts} masked rows to every step (metric {PREFIX}{PADDING_ROWS}). They cost time but "
            "change no weight; a train_batch_size that is a multiple of ppo_mini_batch_size avoids them"
        )
    if options := saving(settings):
        lines.append(
            f"{options}: a step has at most {rollouts} rollouts (metric {PREFIX}{ROLLOUTS}). Masked rows of 128 tokens "
            f"take the place of those that are saved (metric {PREFIX}{PADDING_ROWS}): every step keeps "
            f"{count(rows // mini, 'mini-batch', 'mini-batches')} of {mini} rows and the scale of its gradients"
        )
    return lines


def masks_change(config: Any) -> bool:
    """Whether verl leaves tokens out of the response masks of the queue when it computes advantages."""
    return (config.algorithm.get("rollout_correction") or {}).get("rollout_rs") is not None


def contradictions(arguments: Sequence[str]) -> list[str]:
    """Arguments of a command line that contradict this mode, one line each; none if it does not select the mode.

    Only on a command line can an explicit value be distinguished from a default of verl; values in files are treated as
    defaults.
    """
    pairs = (argument.lstrip("+").partition("=") for argument in arguments)
    given = {key: value.strip("'\"") for key, equals, value in pairs if equals}
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
            f"{ACTOR}.loss_agg_mode={loss} divides by the tokens of a mini-batch, so that prompts have different "
            f"weights; leave it out, set it to one of {', '.join(EVEN_LOSSES)}, or set "
            f"{NAMESPACE}.prompt_weighting=rollout"
        )
    if given.get("algorithm.norm_adv_by_std_in_grpo", "").lower() == "true":
        lines.append("algorithm.norm_adv_by_std_in_grpo=True is not supported; leave it out")
    lines += [
        f"{key}={value} {reason}; leave it out"
        for key, (value, reason) in REFUSED.items()
        if given.get(key, "").lower() == str(value).lower()
    ]
    estimator = given.get("algorithm.adv_estimator")
    if estimator is not None and estimator not in ESTIMATORS:
        lines.append(f"algorithm.adv_estimator={estimator}; expected {' or '.join(ESTIMATORS)}")
    if estimator == "vip_dr_grpo":
        named = [option for option, (value, _) in NEED_RLOO.items() if given.get(f"{NAMESPACE}.{option}") == value]
        lines += [needs_rloo(option, estimator) for option in named]
    if given.get(f"{NAMESPACE}.waves") == "2" and weighting == "rollout":
        lines.append(two_waves_need_prompt_weights())
    return lines
