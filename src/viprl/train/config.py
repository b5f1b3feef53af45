"""The configuration of `viprl train`: one YAML file, checked before anything heavy is loaded.

model: path/or/hub-name          # any causal language model
dataset: train.jsonl             # a named set such as gsm8k, a file, a folder, a Hub name, or reasoning-gym:TASK
reward: exact_match              # or "module:function", or a list of those
algorithm: rloo                  # or grpo
output_dir: runs/mine
vip_strategy: default            # any option of VIPRLOOConfig or VIPGRPOConfig
num_generations: 8
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from viprl.data.gym import canonical
from viprl.data.loading import DataOptions, DataSource
from viprl.errors import ConfigError, MissingPackageError, ViprlError
from viprl.rewards import resolve_rewards
from viprl.runs.resume import flat
from viprl.train.lora import lora_config
from viprl.train.other_keys import advice
from viprl.train.trainer_options import option_names
from viprl.train.yaml_files import read_yaml, with_overrides


@dataclass(frozen=True, kw_only=True)
class RunConfig(DataOptions):
    """The keys of `viprl train` that are not options of the trainer. `DataOptions` has those that read the data.

    Example:
        config = parse_config({"model": "my-model", "dataset": "gsm8k", "output_dir": "runs/mine", "max_steps": 100})
    """

    model: str
    """Folder or Hub name of a causal language model."""
    dataset: str
    """A named set, `reasoning-gym:TASK`, a file, a folder or a Hub name; see `viprl.data`."""
    output_dir: str
    """Run folder: checkpoints, metrics.jsonl, outcomes.jsonl. A run with the same settings in it is resumed."""
    algorithm: str = "rloo"
    """"rloo" or "grpo"."""
    reward: list[str] = field(default_factory=lambda: ["exact_match"])
    """Names of built-in rewards or "module:function" paths."""
    max_prompt_length: int | None = None
    """Longest prompt in tokens. Default: the context of the model minus `max_completion_length`."""
    update_batch_size: int | None = None
    """Rollouts of one optimizer step over all processes; sets gradient_accumulation_steps."""
    eval_dataset: str | None = None
    """Data for the evaluations of the trainer (see its `eval_strategy`)."""
    eval_split: str | None = None
    """Split of `eval_dataset`."""
    tokenizer: str | None = None
    """Folder or Hub name. Default: that of the model."""
    peft: Mapping[str, Any] | None = None
    """Train a LoRA adapter: options of `peft.LoraConfig`, such as {r: 16, target_modules: all-linear}."""
    trainer: Mapping[str, Any] = field(default_factory=dict)
    """Options of the trainer's config class."""

    def rewards(self) -> list[Callable[..., list[float | None]]]:
        """The reward functions."""
        return resolve_rewards(self.reward)

    def lora(self) -> Any:
        """The `peft.LoraConfig`, or None."""
        return None if self.peft is None else lora_config(self.peft)

    def data(self) -> DataSource:
        """The training data."""
        return DataSource(self.dataset, **{f.name: getattr(self, f.name) for f in fields(DataOptions)})

    def eval_data(self) -> DataSource | None:
        """The evaluation data: prompts in the form of the training data, with all duplicates."""
        if self.eval_dataset is None:
            return None
        return replace(self.data(), name=self.eval_dataset, split=self.eval_split, subset=None, duplicates="keep")


OWN_KEYS = tuple(f.name for f in fields(RunConfig) if f.name != "trainer")
REQUIRED = {
    "model": "folder or Hub name of a causal language model",
    "dataset": "a named set such as gsm8k, a file, a folder, a Hub name, or reasoning-gym:TASK",
    "output_dir": "the run folder",
}


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read and check a YAML file; `overrides` are `key=value` texts that replace its keys.

    Raises ConfigError for every mistake that can be found without the model and the data.
    """
    return parse_config(with_overrides(read_yaml(path), overrides), str(path))


def parse_config(raw: Mapping[str, Any], where: str = "configuration") -> RunConfig:
    """Check a mapping whose keys are those of `RunConfig` and options of the trainer; `where` names it in errors.

    The record in a run folder (config.yaml) is such a mapping too. Raises ConfigError, see `load_config`.
    """
    raw = flat(raw)
    if "arms" in raw:
        raise ConfigError(f"{where} has the key `arms`, so it is a sweep: viprl sweep --config {where}")
    for key, meaning in REQUIRED.items():
        if not raw.get(key):
            raise ConfigError(f"{where}: `{key}` is missing; add `{key}: ...` ({meaning})")
    algorithm = raw.get("algorithm", "rloo")
    if algorithm not in ("rloo", "grpo"):
        raise ConfigError(f"{where}: algorithm is {algorithm!r}; expected rloo or grpo")
    own = {key: raw[key] for key in OWN_KEYS if key in raw}
    trainer = {key: value for key, value in raw.items() if key not in OWN_KEYS}
    known = {*option_names(algorithm), *OWN_KEYS}
    for key in trainer:
        if key not in known or key == "resume_from_checkpoint":
            (other,) = {"rloo", "grpo"} - {algorithm}
            raise ConfigError(f"{where}: unknown key `{key}`; {advice(key, known, other, option_names(other))}")
    rewards = own.get("reward", "exact_match")
    own["reward"] = [rewards] if isinstance(rewards, str) else rewards
    try:
        for key in ("dataset", "eval_dataset"):
            own[key] = canonical(own.get(key))
        _check_values(own, trainer)
        config = RunConfig(**own, trainer=trainer)
        config.rewards()
        config.lora()
    except MissingPackageError:
        raise
    except (ViprlError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error
    return config


def _check_values(own: Mapping[str, Any], trainer: Mapping[str, Any]) -> None:
    """Raise ConfigError for values of the wrong type and for keys that contradict each other."""
    for key in OWN_KEYS:
        _check_type(key, own.get(key))
    rewards = own["reward"]
    if not isinstance(rewards, list) or not all(isinstance(name, str) for name in rewards):
        raise ConfigError(f"reward is {rewards!r}; expected a name such as exact_match, or a list of names")
    if own.get("update_batch_size") and "gradient_accumulation_steps" in trainer:
        raise ConfigError("update_batch_size sets gradient_accumulation_steps; give only one of the two")
    if own.get("eval_split") and not own.get("eval_dataset"):
        raise ConfigError(f"eval_split is {own['eval_split']!r}, but eval_dataset is missing; add it")


def _check_type(key: str, value: Any) -> None:
    """Raise ConfigError if YAML read another type than the key takes: `chat: "yes"` is a text, not a boolean."""
    kind = next(str(f.type) for f in fields(RunConfig) if f.name == key).removesuffix(" | None")
    types = {"str": (str, "a text"), "bool": (bool, "true or false"), "int": (int, "a number of at least 1")}
    if value is None or kind not in types:
        return
    expected, words = types[kind]
    words = "keep or drop" if key == "duplicates" else words
    if expected is str and isinstance(value, bool | int | float):
        words += ", in quotes if YAML reads it as something else"
    if type(value) is not expected or (isinstance(value, int) and expected is int and value < 1):
        raise ConfigError(f"{key} is {value!r}; expected {words}")
