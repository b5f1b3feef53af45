"""`viprl train --dry-run`: check a run without weights and describe it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from viprl.data.gym import is_gym
from viprl.runs.resume import at_end, finished, resume_point
from viprl.train.config import RunConfig
from viprl.train.data_cache import DataCache
from viprl.train.prepare import Prepared, prepare

Facts = list[tuple[str, str]]
"""(name, text) lines."""


def dry_run(config: RunConfig, *, processes: int | None = None, cache: DataCache | None = None) -> Facts:
    """Check a run and describe it. Loads no weights, needs no accelerator, writes nothing.

    `processes` and `cache` are as for `prepare`. Raises what `prepare` raises, and ConfigError if the run folder has
    another run.
    """
    resume_point(Path(config.output_dir), asdict(config))  # fails before the data is read
    run = prepare(config, dry_run=True, processes=processes, cache=cache)
    folder = ("folder", f"{config.output_dir}{folder_state(config, run.args)}")
    return [*_facts(config, run), folder, *(("note", note) for note in run.notes)]


def folder_state(config: RunConfig, args: Any) -> str:
    """How far the run in the folder is, in words; `args` is the trainer's config. Raises ConfigError for other runs."""
    folder, settings = Path(config.output_dir), asdict(config)
    checkpoint = resume_point(folder, settings)
    if finished(folder, settings):
        return ", finished: nothing is left to train (raise max_steps to train further)"
    if checkpoint is None:
        return ""
    done = training_complete(config, checkpoint, args)
    return f", trained to the end at {checkpoint.name}" if done else f", resumes from {checkpoint.name}"


def training_complete(config: RunConfig, checkpoint: Path, args: Any) -> bool:
    """Whether no step is left after the checkpoint. Raises ConfigError if it was reached with other settings."""
    length = {"max_steps": args.max_steps, "num_train_epochs": args.num_train_epochs}
    return at_end(Path(config.output_dir), asdict(config), checkpoint, **length)


def _facts(config: RunConfig, run: Prepared) -> Facts:
    args = run.args
    context = f"context of {run.context:,} tokens" if run.context else "unknown context"
    rows = "endless" if is_gym(config.dataset) else f"{len(run.dataset):,} rows"
    form = "plain text" if isinstance(run.dataset[0]["prompt"], str) else "chat"
    prompts = args.generation_batch_size // args.num_generations
    given = ((name, "None" if value is None else f"{value:g}") for name, value in run.reward_check)
    rewards = ", ".join(f"{name} (gives {value} to the solution of the first row)" for name, value in given)
    shadow = f"; in shadow: {', '.join(args.vip_shadow)}" if args.vip_shadow else ""
    loss = args.loss_type if config.algorithm == "grpo" else "RLOO"
    bounds = f"{args.vip_min_rollouts} to {args.vip_max_rollouts} rollouts per prompt"
    return [
        ("model", f"{config.model}, {context}, completions up to {args.max_completion_length:,} tokens"),
        ("data", f"{config.dataset}: {rows}, {form}, longest prompt {run.longest_prompt:,} tokens"),
        ("reward", rewards),
        ("batch", f"{prompts:,} prompts, {args.generation_batch_size:,} rollouts ({args.num_generations} per prompt)"),
        ("steps", _steps(config, args, run.dataset, prompts)),
        ("allocation", f"strategy: {args.vip_strategy}, {bounds}{shadow}"),
        ("gradient", f"estimator: {args.vip_estimator}, prompt weighting: {args.vip_prompt_weighting}, loss: {loss}"),
    ]


def _steps(config: RunConfig, args: Any, dataset: Any, prompts: int) -> str:
    """Optimizer steps, generation batches and epochs."""
    processes = args.world_size
    rollouts = args.per_device_train_batch_size * args.gradient_accumulation_steps * processes
    per_batch = max(1, args.generation_batch_size * args.num_iterations // rollouts)
    if args.max_steps > 0:
        batches, steps = -(-args.max_steps // per_batch), args.max_steps
        epochs = batches * prompts / len(dataset)
    else:
        epochs = args.num_train_epochs
        batches = int(len(dataset) // prompts * epochs)
        steps = batches * per_batch
    text = (
        f"{steps:,} optimizer steps of {rollouts:,} rollouts on {processes} process{'es' if processes > 1 else ''}, "
        f"{per_batch} for each of {batches:,} batches"
    )
    return text if is_gym(config.dataset) else f"{text}; {epochs:.3g} epochs"
