"""The configuration of `viprl train`: one YAML file, read and checked before anything heavy is loaded.

model: path/or/hub-name          any causal language model
dataset: train.jsonl             JSONL, parquet, a folder saved by `datasets`, or a hub name
reward: exact_match              or "module:function", or a list of those
algorithm: rloo                  or grpo
output_dir: runs/mine
vip_strategy: default            every option of VIPRLOOConfig or VIPGRPOConfig goes in beside these
num_generations: 8
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from viprl.train.rewards import resolve_rewards


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names the key and the mend."""


@dataclass(frozen=True)
class RunConfig:
    """What `viprl train` needs besides the trainer's own options."""

    model: str
    """Folder or hub name of a causal language model."""
    dataset: str
    """JSONL or parquet file, folder of a saved dataset, or hub name, with a `prompt` and a `solution`."""
    output_dir: str
    """Run folder: checkpoints, metrics.jsonl, outcomes.jsonl. A run found there with the same settings is resumed."""
    algorithm: str = "rloo"
    """"rloo" or "grpo"."""
    reward: list[str] = field(default_factory=lambda: ["exact_match"])
    """Names of built-in rewards or "module:function" paths."""
    split: str = "train"
    """Split of a hub dataset."""
    subset: str | None = None
    """Configuration name of a hub dataset."""
    prompt_column: str = "prompt"
    solution_column: str = "solution"
    eval_dataset: str | None = None
    """Evaluated by the trainer itself (see `eval_strategy`); same columns."""
    tokenizer: str | None = None
    """Folder or hub name; default: the model's."""
    trainer: Mapping[str, Any] = field(default_factory=dict)
    """Options of the trainer's config class."""

    def rewards(self) -> list[Callable[..., list[float | None]]]:
        """The reward functions."""
        return resolve_rewards(self.reward)


OWN_KEYS = tuple(f.name for f in fields(RunConfig) if f.name != "trainer")


def load_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Read and check a YAML file. Raises `ConfigError` for everything that can be known without model and data."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; `viprl train --config FILE.yaml` reads a YAML file")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark is not None else ""
        raise ConfigError(f"{path} is not valid YAML: {line}{getattr(error, 'problem', error)}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} holds {type(raw).__name__}; expected `key: value` lines such as `model: my-model`")
    return parse_config({**raw, **(overrides or {})}, str(path))


def parse_config(raw: Mapping[str, Any], where: str = "the configuration") -> RunConfig:
    """A checked `RunConfig` from a flat mapping; keys that are not ours must be options of the trainer's config."""
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
    rewards = own.get("reward", ["exact_match"])
    own["reward"] = [rewards] if isinstance(rewards, str) else list(rewards)
    config = RunConfig(**own, trainer=rest)
    try:
        config.rewards()
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    return config


def trainer_options(algorithm: str) -> list[str]:
    """Names of all options of the algorithm's config class but the output folder, which is ours."""
    return [f.name for f in fields(config_class(algorithm)) if f.init and f.name != "output_dir"]


def config_class(algorithm: str) -> Any:
    """`VIPRLOOConfig` or `VIPGRPOConfig`."""
    from viprl.engines.trl import VIPGRPOConfig, VIPRLOOConfig

    return {"rloo": VIPRLOOConfig, "grpo": VIPGRPOConfig}[algorithm]


def trainer_config(config: RunConfig) -> Any:
    """The trainer's config object. Budgets that cannot be met are refused here, with the config's own words."""
    defaults = {"report_to": [], "logging_steps": 1, "save_only_model": False}
    options = {**defaults, **{key: _number(config, key, value) for key, value in config.trainer.items()}}
    try:
        return config_class(config.algorithm)(output_dir=config.output_dir, **options)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"the trainer options cannot be used: {error}") from error


def _number(config: RunConfig, key: str, value: Any) -> Any:
    """YAML reads 1e-6 as a text; where the option is a number, so is the value."""
    kind = next(str(f.type) for f in fields(config_class(config.algorithm)) if f.name == key)
    for name, convert in (("int", int), ("float", float)):
        if isinstance(value, str) and name in kind and "str" not in kind and not (name == "int" and "float" in kind):
            try:
                return convert(value)
            except ValueError:
                raise ConfigError(f"{key} is {value!r}; expected a number") from None
    return value


def _meaning(key: str) -> str:
    return {
        "model": "folder or hub name of a causal language model",
        "dataset": "JSONL, parquet, folder or hub name",
        "output_dir": "where the run is written",
    }[key]


def _closest(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, sorted(known), n=2)
    hint = f"; did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else ""
    return hint or "; the keys are those of docs/train.md and all options of VIPRLOOConfig or VIPGRPOConfig"
