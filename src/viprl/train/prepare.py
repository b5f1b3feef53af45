"""Everything that can be checked before the model is loaded: options, data, rewards, prompt lengths, budget."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from viprl.data.gym import is_gym
from viprl.data.lengths import context_of, load_model_config, load_tokenizer, rendered
from viprl.data.loading import LEAVE_OUT, Loaded, bad_rows
from viprl.engines.success import SuccessCriterion
from viprl.engines.trl import vip_from_config
from viprl.errors import ConfigError, ViprlError
from viprl.rewards.calling import RESERVED
from viprl.train.config import RunConfig
from viprl.train.data_cache import DataCache
from viprl.train.lora import check_lora
from viprl.train.reports import check_reports
from viprl.train.reward_check import RewardCheck, check_rewards
from viprl.train.trainer_options import trainer_config
from viprl.vip import VIP


@dataclass(frozen=True)
class Prepared:
    """A run that can start."""

    args: Any
    """The trainer's config."""
    dataset: Any
    held_out: Any
    """Evaluation data, or None."""
    tokenizer: Any
    context: int | None
    """Longest sequence of the model in tokens; None if its configuration does not give one."""
    longest_prompt: int
    """Tokens of the longest prompt (in a sample, if the data is endless)."""
    reward_check: RewardCheck
    notes: tuple[str, ...]
    """Remarks on the data and the options."""


def prepare(
    config: RunConfig, *, dry_run: bool = False, processes: int | None = None, cache: DataCache | None = None
) -> Prepared:
    """Check a run and read its data; `dry_run` and `processes` are as for `trainer_config`.

    Raises a `viprl.errors.ViprlError` for every mistake that can be found without the weights of the model. Exceptions
    of the reward functions are passed on.
    """
    cache = cache or DataCache()
    args = trainer_config(config, dry_run=dry_run, processes=processes)
    _check_folder(Path(config.output_dir))
    trust = trusts_code(args)
    model_config = load_model_config(config.model, trust_remote_code=trust)
    tokenizer = load_tokenizer(config.tokenizer or config.model, trust_remote_code=trust)
    if (lora := config.lora()) is not None:
        check_lora(lora, model_config, config.model, trust_remote_code=trust)
    functions = config.rewards()
    criterion = SuccessCriterion(args.vip_success, functions)
    vip_from_config(args, criterion)
    _check_warm_start(args, criterion)
    loaded, held_out = cache.load(config.data()), _held_out(config, cache)
    context = _context(args, model_config)
    limit, fix = _prompt_limit(config, args, context)
    lengths = partial(cache.lengths, tokenizer, config.tokenizer or config.model, args.chat_template_kwargs)
    dataset, longest, notes = _fitting(loaded, lengths(loaded), limit, fix)
    evaluated = None
    if held_out is not None:
        evaluated, _, more = _fitting(held_out, lengths(held_out), limit, fix)
        notes += [f"evaluation: {note}" for note in more]
    dataset, evaluated, more = _without_reserved(dataset, evaluated)
    number = 1 if loaded.rows is None else int(loaded.rows[0]) + 1
    given = check_rewards(functions, dataset[0], args, criterion, layout=loaded.layout, number=number)
    notes += more + _check_scorable(given, number)
    check_reports(args.report_to)
    if args.save_only_model:
        notes += ["save_only_model is true: an interrupted run cannot resume from such checkpoints"]
    _check_batches(config, args, dataset)
    notes += _check_evaluation(args, held_out) + _check_vllm(args, dry_run)
    seen = rendered(dataset[0]["prompt"], tokenizer, args.chat_template_kwargs)
    if "math" in config.reward and "\\boxed" not in seen:
        notes += ["the reward math reads \\boxed{}, but the first prompt does not ask for it; set instruction: boxed"]
    return Prepared(args, dataset, evaluated, tokenizer, context, longest, given, tuple(notes))


def trusts_code(args: Any) -> bool:
    """Whether code that comes with the model may run."""
    return bool(getattr(args, "trust_remote_code", False))  # not every supported version of TRL has the option


def _check_folder(folder: Path) -> None:
    """Raise ConfigError if the run folder cannot be created or written."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        why = "cannot be written" if place.is_dir() else "is a file"
        raise ConfigError(f"output_dir is {str(folder)!r}, but {place} {why}; choose another folder")


def _check_warm_start(args: Any, criterion: SuccessCriterion) -> None:
    """Read the log as the trainer will. The strategy uniform learns nothing, so it needs no features."""
    if not args.vip_warm_start:
        return
    vip = VIP(estimator=args.vip_estimator, strategy="uniform", features=None, success=criterion.rule)
    match = "id" if args.vip_id_column else "prompt"
    try:
        vip.learn_from_log(args.vip_warm_start, match=match, reward=criterion.column)
    except ViprlError as error:
        raise ConfigError(f"vip_warm_start: {error}") from error


def _held_out(config: RunConfig, cache: DataCache) -> Loaded | None:
    source = config.eval_data()
    if source is None:
        return None
    if is_gym(source.name):
        raise ConfigError("eval_dataset is endless; write some of its rows to a file (see docs/data.md)")
    return cache.load(source)


def _without_reserved(dataset: Any, held_out: Any) -> tuple[Any, Any, list[str]]:
    """The data sets without columns that have the name of an argument of rewards, and a note on them."""
    found = [name for name in getattr(dataset, "column_names", None) or () if name in RESERVED - {"prompt"}]
    if not found:
        return dataset, held_out, []
    if held_out is not None:
        held_out = held_out.remove_columns([name for name in held_out.column_names if name in found])
    names, words = ", ".join(found), "a column" if len(found) == 1 else "columns"
    note = (
        f"rewards have an argument called {names}, so {words} of that name is not passed to them; rename it to use it"
    )
    return dataset.remove_columns(found), held_out, [note]


def _check_scorable(given: RewardCheck, number: int) -> list[str]:
    if any(value is not None for _, value in given):
        return []
    names = ", ".join(name for name, _ in given)
    return [f"{names} returned None for the solution of row {number}: a row that no reward can score teaches nothing"]


def _check_batches(config: RunConfig, args: Any, dataset: Any) -> None:
    if len(dataset) < args.vip_offered:
        have = "1 prompt" if len(dataset) == 1 else f"{len(dataset)} prompts"
        size = "generation_batch_size"
        if config.trainer.get(size) is None:  # it follows from the parts that the user set
            parts = ("steps_per_generation", "gradient_accumulation_steps")
            many = [name for name in parts if int(config.trainer.get(name) or 1) > 1]
            size = " or ".join(["per_device_train_batch_size", *many])
        times = ""
        if args.vip_candidates > 1:
            times, size = f" * vip_candidates {args.vip_candidates}", f"vip_candidates or {size}"
        raise ConfigError(
            f"{config.dataset} has {have}, but a generation batch takes {args.vip_offered} (generation_batch_size "
            f"{args.generation_batch_size} / num_generations {args.num_generations}{times}); lower {size}, or add data"
        )
    if args.vip_id_column is not None and args.vip_id_column not in dataset[0]:
        raise ConfigError(
            f"vip_id_column is {args.vip_id_column!r}, but {config.dataset} has the columns "
            f"{', '.join(dataset.column_names)}"
        )
    if is_gym(config.dataset):
        if args.vip_register_pool:
            raise ConfigError(
                "vip_register_pool computes the features of all prompts, but the data set is endless; set it to false"
            )
        if args.max_steps <= 0:
            raise ConfigError("the data set is endless, so the run would never end; set max_steps")


def _check_evaluation(args: Any, held_out: Loaded | None) -> list[str]:
    """Refuse evaluations without data, which the trainer would refuse after loading the weights."""
    requested = getattr(args.eval_strategy, "value", args.eval_strategy) != "no"
    if requested and held_out is None:
        raise ConfigError("eval_strategy is set, but eval_dataset is missing; add it, or remove eval_strategy")
    if held_out is not None and not requested:
        return ["eval_dataset is never used; set eval_strategy: steps and eval_steps"]
    return []


def _check_vllm(args: Any, dry_run: bool) -> list[str]:
    """A dry run may be made on another machine than the run, so that a missing vLLM is only noted."""
    if not args.use_vllm or find_spec("vllm") is not None:
        return []
    missing = 'use_vllm is true, but vLLM is not installed here: pip install "trl[vllm]"'
    if not dry_run:
        raise ConfigError(f"{missing}, or set use_vllm: false")
    return [missing]


# --- lengths ----------------------------------------------------------------------------------------------------------


def _context(args: Any, model_config: Any) -> int | None:
    """Longest sequence in tokens for the model and, if it is used, for vLLM."""
    limits = [context_of(model_config, args.model_init_kwargs)]
    if args.use_vllm:
        limits.append(args.vllm_max_model_length)
    return min((limit for limit in limits if limit), default=None)


def _prompt_limit(config: RunConfig, args: Any, context: int | None) -> tuple[int | None, str]:
    """Longest prompt in tokens that leaves room for a whole completion, and what to do about longer ones."""
    completion = args.max_completion_length or 0
    if context is not None and completion >= context:
        raise ConfigError(
            f"max_completion_length is {completion:,}, but the context of {config.model} is {context:,} tokens; lower "
            "max_completion_length, or raise max_position_embeddings in model_init_kwargs (and vllm_max_model_length)"
        )
    room = None if context is None else context - completion
    if config.max_prompt_length is not None and room is not None and config.max_prompt_length > room:
        raise ConfigError(
            f"max_prompt_length {config.max_prompt_length:,} and max_completion_length {completion:,} exceed the "
            f"context of {context:,} tokens; lower one of them"
        )
    if config.max_prompt_length is None or config.max_prompt_length == room:
        return room, "Lower max_completion_length"
    return config.max_prompt_length, "Raise max_prompt_length"


def _fitting(loaded: Loaded, lengths: np.ndarray, limit: int | None, fix: str) -> tuple[Any, int, list[str]]:
    """The data without overlong prompts, the length of its longest prompt in tokens, and notes on what was left out."""
    notes = list(loaded.notes)
    if limit is None or lengths.max() <= limit:
        return loaded.dataset, int(lengths.max()), notes
    rows = np.arange(len(lengths)) if loaded.rows is None else loaded.rows
    fits = lengths <= limit
    reasons = {int(row): f"{length:,} tokens" for row, length in zip(rows[~fits], lengths[~fits], strict=True)}
    endless = loaded.rows is None
    if endless or not loaded.source.skip_bad_rows or not fits.any():
        which = bad_rows(reasons, f"longer than {limit:,} tokens, the limit for a prompt")
        raise ConfigError(f"{loaded.source.name}: {which}. {fix}{'' if endless else f', or {LEAVE_OUT}'}")
    notes += [bad_rows(reasons, "too long and left out")]
    return loaded.dataset.select(np.flatnonzero(fits).tolist()), int(lengths[fits].max()), notes
