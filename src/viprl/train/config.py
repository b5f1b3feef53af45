"""The configuration of `viprl train`: one YAML file, read and checked before anything heavy is loaded.

model: path/or/hub-name          any causal language model
dataset: train.jsonl             a named set such as gsm8k, a file, a folder, a hub name, or reasoning-gym:TASK
reward: exact_match              or "module:function", or a list of those
algorithm: rloo                  or grpo
output_dir: runs/mine
vip_strategy: default            every option of VIPRLOOConfig or VIPGRPOConfig goes in beside these
num_generations: 8
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from viprl.data.gym import canonical
from viprl.data.loading import DataSource
from viprl.rewards import resolve_rewards
from viprl.train.config_file import ConfigError, read_config, with_overrides

__all__ = ["ConfigError", "RunConfig", "load_config", "parse_config", "trainer_config"]


@dataclass(frozen=True)
class RunConfig:
    """What `viprl train` needs besides the trainer's own options."""

    model: str
    """Folder or hub name of a causal language model."""
    dataset: str
    """A named set, `reasoning-gym:TASK`, a file, a folder or a hub name; see `viprl.data`."""
    output_dir: str
    """Run folder: checkpoints, metrics.jsonl, outcomes.jsonl. A run found there with the same settings is resumed."""
    algorithm: str = "rloo"
    """"rloo" or "grpo"."""
    reward: list[str] = field(default_factory=lambda: ["exact_match"])
    """Names of built-in rewards or "module:function" paths."""
    split: str | None = None
    """Split of a hub or saved data set. Default: the named set's own, else train."""
    subset: str | None = None
    """Configuration name of a hub data set."""
    prompt_column: str | None = None
    """Column of the prompt, with dots into structs. Default: found by the known layouts."""
    solution_column: str | None = None
    answer_after: str | None = None
    """The answer is what follows this mark in its column, such as "####"."""
    instruction: str | None = None
    """Answer instruction: boxed, answer_line, answer_tags, none, or a text (with {question}: a template)."""
    system: str | None = None
    """System message."""
    chat: bool | None = None
    """True: through the model's chat template; false: plain text. Default: as the data has it."""
    duplicates: str | None = None
    """"keep" or "drop" rows that repeat a prompt."""
    skip_bad_rows: bool = False
    """Leave bad and overlong rows out, and say which; otherwise they are an error."""
    max_prompt_length: int | None = None
    """Longest prompt in tokens. Default: what the context leaves beside the completion."""
    update_batch_size: int | None = None
    """Rollouts of one optimiser step over all processes; sets gradient_accumulation_steps."""
    eval_dataset: str | None = None
    """Evaluated by the trainer itself (see `eval_strategy`)."""
    eval_split: str | None = None
    tokenizer: str | None = None
    """Folder or hub name; default: the model's."""
    trainer: Mapping[str, Any] = field(default_factory=dict)
    """Options of the trainer's config class."""

    def rewards(self) -> list[Callable[..., list[float | None]]]:
        """The reward functions."""
        return resolve_rewards(self.reward)

    def data(self) -> DataSource:
        """What to train on."""
        return DataSource(
            self.dataset, **{f.name: getattr(self, f.name) for f in fields(DataSource) if f.name != "name"}
        )

    def eval_data(self) -> DataSource | None:
        """What the trainer evaluates on: prompts in the same form, every row of them."""
        if self.eval_dataset is None:
            return None
        return replace(self.data(), name=self.eval_dataset, split=self.eval_split, subset=None, duplicates="keep")


OWN_KEYS = tuple(f.name for f in fields(RunConfig) if f.name != "trainer")


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read and check a YAML file with `key=value` overrides on top.

    Raises `ConfigError` for everything that can be known without model and data.
    """
    return parse_config(with_overrides(read_config(path), overrides), str(path))


def parse_config(raw: Mapping[str, Any], where: str = "the configuration") -> RunConfig:
    """A checked `RunConfig` from a flat mapping; keys that are not ours must be options of the trainer's config."""
    if "arms" in raw:
        raise ConfigError(f"{where} has arms, so it is a sweep; run it with `viprl sweep --config FILE.yaml`")
    for key in ("model", "dataset", "output_dir"):
        if not raw.get(key):
            raise ConfigError(f"{where}: `{key}` is missing; add `{key}: ...` ({_meaning(key)})")
    algorithm = raw.get("algorithm", "rloo")
    if algorithm not in ("rloo", "grpo"):
        raise ConfigError(f"{where}: algorithm is {algorithm!r}; expected rloo or grpo")
    options = set(trainer_options(algorithm))
    own = {key: raw[key] for key in OWN_KEYS if key in raw}
    rest = {key: value for key, value in raw.items() if key not in OWN_KEYS}
    for key in rest:
        if key not in options:
            raise ConfigError(f"{where}: unknown key `{key}`{_closest(key, options | set(OWN_KEYS))}")
    if own.get("update_batch_size") and "gradient_accumulation_steps" in rest:
        raise ConfigError(f"{where}: update_batch_size sets gradient_accumulation_steps; leave one of the two out")
    rewards = own.get("reward", "exact_match")
    own["reward"] = [rewards] if isinstance(rewards, str) else rewards
    if not isinstance(own["reward"], list) or not all(isinstance(name, str) for name in own["reward"]):
        raise ConfigError(f"{where}: reward is {rewards!r}; expected a name such as exact_match, or a list of names")
    if own.get("eval_split") and not own.get("eval_dataset"):
        raise ConfigError(f"{where}: eval_split is {own['eval_split']!r}, but there is no eval_dataset; add it")
    try:
        for key in ("dataset", "eval_dataset"):
            own[key] = canonical(own.get(key))
        for key in OWN_KEYS:
            _check_kind(key, own.get(key))
        config = RunConfig(**own, trainer=rest)
        config.rewards()
        config.data()
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    return config


def _check_kind(key: str, value: Any) -> None:
    """What YAML made of a value must be what the key takes: `chat: "yes"` is a text, not a truth value."""
    kind = next(str(f.type) for f in fields(RunConfig) if f.name == key).removesuffix(" | None")
    known: dict[str, tuple[type, str]] = {
        "str": (str, "a text"),
        "bool": (bool, "true or false"),
        "int": (int, "a number"),
    }
    if value is None or kind not in known:
        return
    expected, words = known[kind]
    if type(value) is not expected or (isinstance(value, int) and expected is int and value < 1):
        raise ValueError(f"{key} is {value!r}; expected {words}{' of at least 1' if expected is int else ''}")


def trainer_options(algorithm: str) -> list[str]:
    """Names of all options of the algorithm's config class but the output folder, which is ours."""
    return [f.name for f in fields(config_class(algorithm)) if f.init and f.name != "output_dir"]


def config_class(algorithm: str) -> Any:
    """`VIPRLOOConfig` or `VIPGRPOConfig`."""
    from viprl.engines.trl import VIPGRPOConfig, VIPRLOOConfig

    return {"rloo": VIPRLOOConfig, "grpo": VIPGRPOConfig}[algorithm]


def trainer_config(config: RunConfig, *, dry_run: bool = False, processes: int | None = None) -> Any:
    """The trainer's config object. Budgets that cannot be met are refused here, with the config's own words.

    A dry run may be made on a machine without the accelerator that the options are for, and by one process for a run
    of several (`processes`; by default as many as there are). It then leaves the accelerator to the run itself.
    """
    defaults = {"report_to": [], "logging_steps": 1, "save_only_model": False}
    options = {**defaults, **{key: _number(config, key, value) for key, value in config.trainer.items()}}
    if config.update_batch_size is not None:
        options["gradient_accumulation_steps"] = _accumulation(config, options, processes)
    if dry_run and (processes is not None or not _has_accelerator()):
        options["use_cpu"] = True
    kind = config_class(config.algorithm)
    if processes is not None:
        kind = type(kind.__name__, (kind,), {"world_size": processes})
    try:
        return kind(output_dir=config.output_dir, **options)
    except (ValueError, TypeError) as error:
        unset = "generation_batch_size" in str(error) and "generation_batch_size" not in options
        hint = " (per_device_train_batch_size x processes x steps_per_generation, unless it is set)" if unset else ""
        raise ConfigError(f"the trainer options cannot be used: {str(error).rstrip('.')}{hint}") from error


def _accumulation(config: RunConfig, options: Mapping[str, Any], processes: int | None = None) -> int:
    """gradient_accumulation_steps that make an optimiser step of update_batch_size rollouts on these processes."""
    device, processes = int(options.get("per_device_train_batch_size", 8)), processes or world_size()
    size = config.update_batch_size or 1
    if size % (device * processes):
        raise ConfigError(
            f"update_batch_size is {size}, no multiple of per_device_train_batch_size x processes = {device} x "
            f"{processes}; change one of them"
        )
    return size // (device * processes)


def world_size() -> int:
    """Processes of this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _has_accelerator() -> bool:
    import torch

    return torch.cuda.is_available() or bool(getattr(torch, "xpu", None) and torch.xpu.is_available())


def _number(config: RunConfig, key: str, value: Any) -> Any:
    """YAML reads 1e-6 as a text; where the option is a number, so is the value, and it is not null."""
    option = next(f for f in fields(config_class(config.algorithm)) if f.name == key)
    kind = str(option.type)
    if value is None and option.default is not None and not any(word in kind for word in ("None", "Optional", "Any")):
        raise ConfigError(f"{key} has no value; leave it out for its default, {option.default}")
    if isinstance(value, float) and "int" in kind and "float" not in kind:
        if not value.is_integer():
            raise ConfigError(f"{key} is {value!r}; expected a whole number")
        return int(value)
    for name, convert in (("int", int), ("float", float)):
        if isinstance(value, str) and name in kind and "str" not in kind and not (name == "int" and "float" in kind):
            try:
                return convert(value)
            except ValueError:
                raise ConfigError(f"{key} is {value!r}; expected a {'whole ' * (name == 'int')}number") from None
    return value


def _meaning(key: str) -> str:
    return {
        "model": "folder or hub name of a causal language model",
        "dataset": "a named set such as gsm8k, a file, a folder, a hub name, or reasoning-gym:TASK",
        "output_dir": "where the run is written",
    }[key]


def _closest(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, sorted(known), n=2)
    hint = f"; did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else ""
    return hint or "; the keys are those of docs/train.md and all options of VIPRLOOConfig or VIPGRPOConfig"
