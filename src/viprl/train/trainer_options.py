"""The options of the trainer: their names, the values that YAML gives them, and the trainer's config object."""

from __future__ import annotations

import math
import os
import re
import warnings
from dataclasses import Field, fields
from typing import TYPE_CHECKING, Any

from viprl.errors import ConfigError, MissingPackageError
from viprl.train.option_values import typed
from viprl.train.ranges import check_ranges

if TYPE_CHECKING:
    from viprl.train.config import RunConfig

DEFAULTS: dict[str, Any] = {"report_to": [], "logging_steps": 1, "save_only_model": False}
"""Defaults that differ from TRL's."""

ALSO: dict[str, dict[Any, Any]] = {
    "scale_rewards": {True: "group", False: "none"},
    "vip_max_rollouts": {math.inf: math.inf, "inf": math.inf},
}
"""Option -> values of another type that it takes, and what they mean."""

ON_THE_CPU = "set use_cpu: true to train on the CPU"


def config_class(algorithm: str) -> Any:
    """`VIPRLOOConfig` or `VIPGRPOConfig`."""
    from viprl.engines.trl import VIPGRPOConfig, VIPRLOOConfig

    return {"rloo": VIPRLOOConfig, "grpo": VIPGRPOConfig}[algorithm]


def option_names(algorithm: str) -> list[str]:
    """Names of all options of the algorithm's config class except output_dir, which is a key of `RunConfig`."""
    return [f.name for f in fields(config_class(algorithm)) if f.init and f.name != "output_dir"]


def trainer_config(config: RunConfig, *, dry_run: bool = False, processes: int | None = None) -> Any:
    """The trainer's config object.

    Args:
        config: the run.
        dry_run: the run is only checked, perhaps on a machine without the accelerator that its options require.
        processes: the number of processes of the run, if it is checked by a single one. Default: the real number.

    Raises ConfigError for values that the trainer refuses, such as a budget that the bounds cannot meet.
    """
    kind = config_class(config.algorithm)
    options: dict[str, Any] = DEFAULTS | read_options(config)
    options["report_to"] = options["report_to"] or []  # TRL takes null for the name of a tracker
    if config.update_batch_size is not None:
        options["gradient_accumulation_steps"] = accumulation_steps(
            config.update_batch_size, options.get("per_device_train_batch_size", 8), processes or world_size()
        )
    if dry_run and (processes is not None or not has_accelerator()):
        options["use_cpu"] = True
    if processes is not None:
        kind = type(kind.__name__, (kind,), {"world_size": processes})
    try:
        with warnings.catch_warnings():  # of transformers, about options that TRL sets
            warnings.filterwarnings("ignore", ".*is deprecated", FutureWarning)
            return kind(output_dir=config.output_dir, **options)
    except ImportError as error:
        raise MissingPackageError(f"trainer options: {_one_line(error)}") from error
    except (ValueError, TypeError) as error:
        reason = f"trainer options: {_one_line(error)}"
        if "bf16" in reason and not has_accelerator():
            reason = f"PyTorch finds no accelerator on this machine; {ON_THE_CPU}"
        elif re.search("budget|divisible", reason) and "generation_batch_size" not in options:
            reason += ". generation_batch_size is per_device_train_batch_size x processes x steps_per_generation"
        elif "divisible" in reason:
            reason += "; change one of the two"
        raise ConfigError(reason) from error


def read_options(config: RunConfig) -> dict[str, Any]:
    """The options of the trainer that a configuration sets, with the types that they take.

    Raises ConfigError for values that cannot be converted or are out of range.
    """
    owner = config_class(config.algorithm)
    known = {f.name: f for f in fields(owner)}
    options = {key: _option(owner, known[key], value) for key, value in config.trainer.items()}
    check_ranges(options)
    return options


def _option(owner: type, option: Field, value: Any) -> Any:
    also = ALSO.get(option.name, {})
    return also[value] if isinstance(value, bool | float | str) and value in also else typed(owner, option, value)


def accumulation_steps(update_batch_size: int, per_device: int, processes: int) -> int:
    """Gradient accumulation steps that make one optimizer step of `update_batch_size` rollouts."""
    together = per_device * processes
    if update_batch_size % together:
        raise ConfigError(
            f"update_batch_size is {update_batch_size}; expected a multiple of per_device_train_batch_size x "
            f"processes = {per_device} x {processes} = {together}"
        )
    return update_batch_size // together


def world_size() -> int:
    """Number of processes of this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def has_accelerator() -> bool:
    """Whether PyTorch finds a device other than the CPU."""
    import torch

    return torch.cuda.is_available() or bool(getattr(torch, "xpu", None) and torch.xpu.is_available())


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
