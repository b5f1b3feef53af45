"""What of verl this engine is built on. It is looked at when a trainer starts, so that a version of verl that moved one
of these things is named then, and not by a strange error ten steps later."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

VERL = "0.9.1"
"""The version of verl that the tests run with."""

EXTENDED = {
    "__init__": ("config",),
    "_next_train_batch": ("num_prompts",),
    "_compute_advantage": ("batch", "metrics"),
    "_save_checkpoint": (),
    "_load_checkpoint": (),
}
"""Methods of verl's PPOTrainerSync that the trainer extends with `super()`, and their arguments."""

USED: dict[str, dict[str, tuple[str, ...]]] = {
    "verl.utils.tensordict_utils": {"assign_non_tensor_stack": ("tensor_dict", "key", "val")},
    "transfer_queue": {"kv_batch_get": ("keys", "partition_id", "select_fields")},
    "verl.trainer.ppo.core_algos": {"register_adv_est": ("name_or_enum",)},
    "verl.trainer.ppo.v1.trainer_base": {"register_trainer": ("name",)},
}
"""Functions of verl and of its queue that are called, by module."""


def installed() -> str:
    """Version of verl, "unknown" where its metadata is missing."""
    try:
        return version("verl")
    except PackageNotFoundError:
        return "unknown"


def check(trainer: type, modules: Mapping[str, Any] | None = None) -> None:
    """Raise ImportError that names what `trainer` (verl's class) or `modules` (default: the installed ones) lack."""
    modules = {name: importlib.import_module(name) for name in USED} if modules is None else modules
    moved = [
        *_moved(trainer, trainer.__name__, EXTENDED.items()),
        *(line for name, functions in USED.items() for line in _moved(modules[name], name, functions.items())),
    ]
    if moved:
        raise ImportError(
            f"verl {installed()} is not what viprl's trainer is built on (verl {VERL}): {'; '.join(moved)}. "
            f'Install verl=={VERL} with pip install "viprl[verl]"'
        )


def _moved(owner: Any, label: str, expected: Iterable[tuple[str, tuple[str, ...]]]) -> list[str]:
    lines = []
    for name, arguments in expected:
        function = getattr(owner, name, None)
        if function is None:
            lines.append(f"{label}.{name} is gone")
            continue
        taken = inspect.signature(function).parameters
        lost = [argument for argument in arguments if argument not in taken]
        if lost:
            lines.append(f"{label}.{name} no longer takes {', '.join(lost)} (it takes {', '.join(taken)})")
    return lines
