"""What a run will do, in few lines, for `viprl train --dry-run`."""

from __future__ import annotations

from typing import Any

from viprl.data.gym import is_gym
from viprl.train.config import RunConfig
from viprl.train.prepare import Prepared


def summary(config: RunConfig, run: Prepared) -> list[tuple[str, str]]:
    """(name, words) of the model, the data, the rewards, the steps and the allocation."""
    args, devices = run.args, run.args.world_size
    prompts = args.generation_batch_size // args.num_generations
    update = args.per_device_train_batch_size * args.gradient_accumulation_steps * devices
    context = f"context {run.context:,} tokens" if run.context else "context unknown"
    rows = "endless" if is_gym(config.dataset) else f"{len(run.dataset):,} rows"
    kind = "text" if isinstance(run.dataset[0]["prompt"], str) else "chat"
    facts = [
        ("model", f"{config.model}, {context}, completions up to {args.max_completion_length:,}"),
        ("data", f"{config.dataset}: {rows}, {kind}, longest prompt {run.longest_prompt:,} tokens"),
        ("reward", ", ".join(f"{name} (a right answer gets {_num(value)})" for name, value in run.probe)),
        ("steps", _steps(config, args, run.dataset, prompts, devices)),
        (
            "step",
            f"{prompts:,} prompts, {args.generation_batch_size:,} rollouts (mean of a prompt: {args.num_generations})",
        ),
        ("update", f"{update:,} rollouts on {devices} process{'es' if devices > 1 else ''}"),
        (
            "allocation",
            f"{args.vip_strategy}, {args.vip_min_rollouts} to {args.vip_max_rollouts} rollouts a prompt{_shadow(args)}",
        ),
        ("estimator", f"{args.vip_estimator}; prompt weighting: {args.vip_prompt_weighting}; {_loss(config, args)}"),
    ]
    return facts + [("note", note) for note in run.notes]


def _steps(config: RunConfig, args: Any, dataset: Any, prompts: int, devices: int) -> str:
    """Generation batches ("steps" of the method) and the optimiser steps that the trainer counts."""
    rollouts = args.per_device_train_batch_size * args.gradient_accumulation_steps * devices
    updates = max(1, args.generation_batch_size * args.num_iterations // rollouts)
    if args.max_steps > 0:
        batches = -(-args.max_steps // updates)
        steps, passes = args.max_steps, batches * prompts / len(dataset)
    else:
        passes = args.num_train_epochs
        batches = int(len(dataset) // prompts * passes)
        steps = batches * updates
    words = f"{batches:,} generation batches, {steps:,} optimiser steps ({updates} a batch)"
    return words if is_gym(config.dataset) else f"{words}, {passes:.3g} passes over the data"


def _shadow(args: Any) -> str:
    return f"; in shadow: {', '.join(args.vip_shadow)}" if args.vip_shadow else ""


def _loss(config: RunConfig, args: Any) -> str:
    return f"loss {args.loss_type}" if config.algorithm == "grpo" else "loss of TRL's RLOO"


def _num(value: float | None) -> str:
    return "not scored" if value is None else f"{value:g}"
