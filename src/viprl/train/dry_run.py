"""`viprl train --dry-run`: check a run without weights and describe it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from viprl.data.gym import is_gym
from viprl.errors import ConfigError
from viprl.runs.resume import RunFolder
from viprl.train.config import RunConfig
from viprl.train.data_cache import DataCache
from viprl.train.prepare import Prepared, prepare
from viprl.train.record import continuation_notes, run_folder
from viprl.train.trainer_options import ON_THE_CPU, has_accelerator, read_options

Facts = list[tuple[str, str]]
"""(name, text) lines."""


def dry_run(config: RunConfig, *, processes: int | None = None, cache: DataCache | None = None) -> Facts:
    """Check a run and describe it. Loads no weights, needs no accelerator, writes nothing.

    `processes` and `cache` are as for `prepare`. Raises what `prepare` raises, and ConfigError if the run folder has
    another run.
    """
    run = prepare_for_folder(config, dry_run=True, processes=processes, cache=cache)
    folder = run_folder(config, processes, known=processes is not None)
    state = ("folder", f"{config.output_dir}{folder_state(folder, run.args)}")
    notes = (*run.notes, *_one_prompt(run.args), *_no_accelerator(config), *continuation_notes(folder, run.args))
    return [*_facts(config, run), state, *(("note", note) for note in notes)]


def _one_prompt(args: Any) -> list[str]:
    """A note if a batch has one prompt."""
    if args.vip_offered > 1 or args.vip_strategy == "uniform":
        return []
    return ["a batch has one prompt, which gets all rollouts; raise per_device_train_batch_size to have more prompts"]


def _no_accelerator(config: RunConfig) -> list[str]:
    """A note if this machine could only train on the CPU, and the configuration does not ask for that."""
    if has_accelerator() or read_options(config).get("use_cpu"):
        return []
    return [f"PyTorch finds no accelerator on this machine; {ON_THE_CPU}"]


def prepare_for_folder(config: RunConfig, **options: Any) -> Prepared:
    """`prepare`, and the check that the run folder has no other run.

    That check is fast and comes before the data is read. If it fails, a mistake in the new settings themselves is the
    more useful error. Raises what `prepare` raises, and ConfigError if the folder has another run.
    """
    processes, real = options.get("processes"), not options.get("dry_run")
    try:
        run_folder(config, processes, known=real or processes is not None).resume_point()
    except ConfigError:
        prepare(config, **options)
        raise
    return prepare(config, **options)


def folder_state(folder: RunFolder, args: Any) -> str:
    """How far the run in the folder is, in words; `args` is the trainer's config. Raises ConfigError for other runs."""
    checkpoint = folder.resume_point()
    if folder.finished():
        return ", finished: nothing is left to train (raise max_steps to train further)"
    if checkpoint is None:
        return ", started before, but without a checkpoint: starts again" if folder.has_run() else ""
    done = training_complete(folder, checkpoint, args)
    return f", trained to the end at {checkpoint.name}" if done else f", resumes from {checkpoint.name}"


def training_complete(folder: RunFolder, checkpoint: Path, args: Any) -> bool:
    """Whether no step is left after the checkpoint. Raises ConfigError if it was reached with other settings."""
    return folder.at_end(checkpoint, max_steps=args.max_steps, num_train_epochs=args.num_train_epochs)


def _facts(config: RunConfig, run: Prepared) -> Facts:
    args = run.args
    context = f"context of {run.context:,} tokens" if run.context else "unknown context"
    rows = "endless" if is_gym(config.dataset) else f"{len(run.dataset):,} rows"
    form = "plain text" if isinstance(run.dataset[0]["prompt"], str) else "chat"
    chosen = f" chosen from {args.vip_offered:,}" if args.vip_candidates > 1 else ""
    prompts = f"{args.vip_prompts:,} prompts{chosen}"
    given = ((name, "None" if value is None else f"{value:g}") for name, value in run.reward_check)
    rewards = ", ".join(f"{name} (gives {value} to the solution of the first row)" for name, value in given)
    shadow = f"; in shadow: {', '.join(args.vip_shadow)}" if args.vip_shadow else ""
    loss = args.loss_type if config.algorithm == "grpo" else "RLOO"
    weights = f"baseline: {args.vip_baseline}, prompt weighting: {args.vip_prompt_weighting}"
    weights += ", selection not corrected" if args.vip_candidates > 1 and not args.vip_unbiased else ""
    bounds = f"{args.vip_min_rollouts} to {args.vip_max_rollouts} rollouts per prompt"
    rollouts = f"{args.generation_batch_size:,} rollouts ({args.num_generations} per prompt)"
    rollouts += " in up to two waves" if args.vip_waves > 1 else ""
    return [
        ("model", f"{config.model}, {context}, completions up to {args.max_completion_length:,} tokens"),
        ("data", f"{config.dataset}: {rows}, {form}, longest prompt {run.longest_prompt:,} tokens"),
        ("reward", rewards),
        ("batch", f"{prompts}, {rollouts}"),
        ("steps", _steps(config, args, run.dataset)),
        ("allocation", f"strategy: {args.vip_strategy}, {bounds}{shadow}"),
        ("gradient", f"estimator: {args.vip_estimator}, {weights}, loss: {loss}"),
    ]


def _steps(config: RunConfig, args: Any, dataset: Any) -> str:
    """Optimizer steps, generation batches and epochs."""
    processes = args.world_size
    rollouts = args.per_device_train_batch_size * args.gradient_accumulation_steps * processes
    per_batch = max(1, args.generation_batch_size * args.num_iterations // rollouts)
    if args.max_steps > 0:
        batches, steps = -(-args.max_steps // per_batch), args.max_steps
        epochs = batches * args.vip_offered / len(dataset)
    else:
        epochs = args.num_train_epochs
        batches = int(len(dataset) // args.vip_offered * epochs)
        steps = batches * per_batch
    text = (
        f"{steps:,} optimizer steps of {rollouts:,} rollouts on {processes} process{'es' if processes > 1 else ''}, "
        f"{per_batch} for each of {batches:,} batches"
    )
    return text if is_gym(config.dataset) else f"{text}; {epochs:.3g} epochs"
