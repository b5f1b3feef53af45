"""Everything that can be known of a run before its model is loaded: options, data, rewards, lengths, budget."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from viprl.data.gym import is_gym
from viprl.data.lengths import context_of, load_model_config, load_tokenizer, rendered
from viprl.data.loading import LEAVE_OUT, DataSource, Loaded, bad_rows
from viprl.engines.success import SuccessCriterion
from viprl.engines.trl import vip_from_config
from viprl.train.config import ConfigError, RunConfig, trainer_config
from viprl.train.probe import Probe, probe
from viprl.train.reader import Reader
from viprl.vip import VIP


@dataclass(frozen=True)
class Prepared:
    """A run that can start."""

    args: Any
    """The trainer's config."""
    dataset: Any
    held_out: Any
    """Evaluation data or None."""
    tokenizer: Any
    context: int | None
    """Longest sequence of the model in tokens, None where its configuration names none."""
    longest_prompt: int
    """Tokens of the longest prompt (of a sample, where the source is endless)."""
    probe: Probe
    notes: tuple[str, ...]
    """What the reader should know of the data."""


def prepare(
    config: RunConfig, *, dry_run: bool = False, processes: int | None = None, reader: Reader | None = None
) -> Prepared:
    """Check the run and read its data. Raises `ConfigError` for whatever can be known without the model's weights.

    `processes`: see `trainer_config`. `reader`: keeps the data for the next run that is checked.
    """
    reader = reader or Reader()
    args = trainer_config(config, dry_run=dry_run, processes=processes)
    with _as_config_error():
        trust = trusted(args)
        model_config = load_model_config(config.model, trust_remote_code=trust)
        tokenizer = load_tokenizer(config.tokenizer or config.model, trust_remote_code=trust)
        functions = config.rewards()
        source = SuccessCriterion(args.vip_success, functions)
        vip_from_config(args, source)
        _check_warm_start(args, source)
        loaded, held_out = reader.load(config.data()), _held_out(config, reader)
        context = _context(args, model_config)
        limit = _prompt_limit(config, args, context)
        dataset, longest, notes = _fitting(config, args, loaded, tokenizer, limit, context, reader)
        evaluated = None
        if held_out is not None:
            evaluated, _, more = _fitting(config, args, held_out, tokenizer, limit, context, reader)
            notes += [f"evaluation: {note}" for note in more]
        given = probe(functions, dataset[0], args, source)
    _check_batches(config, args, dataset)
    notes += _check_evaluation(args, held_out) + _check_vllm(args, dry_run)
    seen = rendered(dataset[0]["prompt"], tokenizer, args.chat_template_kwargs)
    if "math" in config.reward and "\\boxed" not in seen:
        notes += ["the reward math reads \\boxed{}, but the first prompt does not ask for it; set instruction: boxed"]
    return Prepared(args, dataset, evaluated, tokenizer, context, longest, given, tuple(notes))


def trusted(args: Any) -> bool:
    """Whether code that comes with the model may run."""
    return bool(getattr(args, "trust_remote_code", False))  # no option of every TRL that works


@contextmanager
def _as_config_error() -> Iterator[None]:
    try:
        yield
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error)) from error


def _check_warm_start(args: Any, source: SuccessCriterion) -> None:
    """Read the log as the trainer will, after the weights; a strategy that learns nothing needs no features."""
    if not args.vip_warm_start:
        return
    reader = VIP(estimator=args.vip_estimator, strategy="uniform", features=None, success=source.rule)
    match = "id" if args.vip_id_column else "prompt"
    try:
        reader.learn_from_log(args.vip_warm_start, match=match, reward=source.column)
    except (OSError, ValueError) as error:
        raise ConfigError(f"vip_warm_start: {error}") from error


def _held_out(config: RunConfig, reader: Reader) -> Loaded | None:
    spec: DataSource | None = config.eval_data()
    if spec is not None and is_gym(spec.name):
        raise ValueError("eval_dataset is endless; write some of its rows to a file (see docs/data.md)")
    return reader.load(spec) if spec else None


def _check_batches(config: RunConfig, args: Any, dataset: Any) -> None:
    prompts = args.generation_batch_size // args.num_generations
    if len(dataset) < prompts:
        raise ConfigError(
            f"{config.dataset} holds {len(dataset)} prompts, but a generation batch takes {prompts} "
            f"(generation_batch_size {args.generation_batch_size} / num_generations {args.num_generations}); lower "
            "generation_batch_size, or take more data"
        )
    if args.vip_id_column is not None and args.vip_id_column not in dataset[0]:
        raise ConfigError(f"vip_id_column is `{args.vip_id_column}`, but {config.dataset} has no such column")
    if is_gym(config.dataset):
        if args.vip_register_pool:
            raise ConfigError(
                "vip_register_pool computes features of all prompts, but the data set is endless; set it false"
            )
        if args.max_steps <= 0:
            raise ConfigError("the data set is endless, so the run has no end; set max_steps")


def _check_evaluation(args: Any, held_out: Loaded | None) -> list[str]:
    """Refuse an evaluation without data, as the trainer does after the weights are loaded; note the reverse."""
    asked = getattr(args.eval_strategy, "value", args.eval_strategy) != "no"
    if asked and held_out is None:
        raise ConfigError("eval_strategy asks for evaluations, but there is no eval_dataset; add it, or leave both out")
    if held_out is not None and not asked:
        return ["eval_dataset is never evaluated; set eval_strategy: steps and eval_steps"]
    return []


def _check_vllm(args: Any, dry_run: bool) -> list[str]:
    """A run that needs vLLM ends here without it; a dry run, perhaps made on another machine, says so."""
    if not args.use_vllm or find_spec("vllm") is not None:
        return []
    missing = 'use_vllm is true, but vLLM is not installed here: pip install "trl[vllm]"'
    if not dry_run:
        raise ConfigError(f"{missing}, or set use_vllm: false")
    return [missing]


# --- lengths ----------------------------------------------------------------------------------------------------------


def _context(args: Any, model_config: Any) -> int | None:
    """What both the model and, where it is used, vLLM take."""
    limits = [context_of(model_config, args.model_init_kwargs)]
    if args.use_vllm:
        limits.append(args.vllm_max_model_length)
    return min((limit for limit in limits if limit), default=None)


def _prompt_limit(config: RunConfig, args: Any, context: int | None) -> int | None:
    """Longest prompt in tokens that leaves room for a whole completion."""
    completion = args.max_completion_length or 0
    if context is not None and completion >= context:
        raise ConfigError(
            f"max_completion_length is {completion:,}, but the context of {config.model} is {context:,} tokens; lower "
            "it, or raise max_position_embeddings in model_init_kwargs (and vllm_max_model_length)"
        )
    room = None if context is None else context - completion
    if config.max_prompt_length is not None and room is not None and config.max_prompt_length > room:
        raise ConfigError(
            f"max_prompt_length {config.max_prompt_length:,} and max_completion_length {completion:,} exceed the "
            f"context of {context:,} tokens; lower one of them"
        )
    return config.max_prompt_length if config.max_prompt_length is not None else room


def _fitting(
    config: RunConfig, args: Any, loaded: Loaded, tokenizer: Any, limit: int | None, context: int | None, reader: Reader
) -> tuple[Any, int, list[str]]:
    """The data without overlong prompts, its longest prompt in tokens, and the notes on what was left out."""
    lengths = reader.lengths(loaded, tokenizer, config.tokenizer or config.model, args.chat_template_kwargs)
    over = np.flatnonzero(lengths > limit) if limit is not None else np.zeros(0, np.int64)
    notes = list(loaded.notes)
    if limit is None or not len(over):
        return loaded.dataset, int(lengths.max()), notes
    reasons = _reasons(loaded, lengths, over)
    endless = is_gym(loaded.source.name)
    if endless or not config.skip_bad_rows or len(over) == len(lengths):
        which = bad_rows(reasons, f"longer than the {limit:,} tokens that a prompt may have")
        full = context is not None and limit + (args.max_completion_length or 0) >= context
        mend = "Lower max_completion_length" if full else "Raise max_prompt_length"
        mend += "" if endless else f", or {LEAVE_OUT}"
        raise ConfigError(f"{loaded.source.name}: {which}. {mend}")
    kept = np.setdiff1d(np.arange(len(lengths)), over)
    notes += [bad_rows(reasons, "too long and left out")]
    return loaded.dataset.select(kept.tolist()), int(lengths[kept].max()), notes


def _reasons(loaded: Loaded, lengths: np.ndarray, over: np.ndarray) -> dict[int, str]:
    """Tokens of the overlong prompts by the row of the source."""
    return {int(loaded.rows[i]) if loaded.rows is not None else int(i): f"{lengths[i]:,} tokens" for i in over}
