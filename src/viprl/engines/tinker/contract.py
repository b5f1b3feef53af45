"""What of tinker-cookbook its engine is built on, looked at when a run is set up, so that a version that moved one of
these things is named then."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from functools import reduce
from typing import Any

VERSION = "0.6.1"
"""The version of tinker-cookbook that the tests run with."""

USED: dict[str, dict[str, tuple[str, ...]]] = {
    "tinker_cookbook.rl.types": {
        "EnvGroupBuilder": ("make_envs", "compute_group_rewards", "cleanup", "logging_tags"),
        "EnvGroupBuilder.compute_group_rewards": ("trajectory_group", "env_group"),
        "RLDataset.get_batch": ("index",),
        "RLDatasetBuilder": ("__call__",),
        "PromptHistory": ("transitions",),
        "Transition": ("ac", "reward", "metrics"),
    },
    "tinker_cookbook.completers": {"TokensWithLogprobs": ("maybe_logprobs",)},
    "tinker_cookbook.rl.rollouts": {"get_rollout_executor": ()},
    "tinker_cookbook.rl.rollout_limits": {"TerminationRewardPolicy": ("zero_reward_on_limit",)},
    "tinker_cookbook.checkpoint_utils": {
        "get_last_checkpoint": ("log_dir",),
        "load_checkpoints_file": ("log_dir",),
        "CheckpointRecord": ("batch",),
    },
    "tinker_cookbook.rl.train": {
        "Config": ("dataset_builder", "log_path", "async_config", "stream_minibatch_config", "effective_termination")
    },
}
"""Classes with their methods and fields, and functions with their arguments, by module."""


def check(modules: Mapping[str, Any] | None = None) -> None:
    """Raise ImportError that names what `modules` (default: the installed ones) lack."""
    modules = {name: importlib.import_module(name) for name in USED} if modules is None else modules
    moved = [
        line
        for name, things in USED.items()
        for path, expected in things.items()
        for line in _moved(modules[name], f"{name}.{path}", path, expected)
    ]
    if moved:
        raise ImportError(
            f"this tinker-cookbook is not what viprl's engine is built on ({VERSION}): {'; '.join(moved)}. "
            f'Install tinker-cookbook=={VERSION} with pip install "viprl[tinker]"'
        )


def _moved(module: Any, label: str, path: str, expected: tuple[str, ...]) -> list[str]:
    thing = reduce(lambda owner, name: getattr(owner, name, None), path.split("."), module)
    if thing is None:
        return [f"{label} is gone"]
    has = _members(thing) if inspect.isclass(thing) else set(inspect.signature(thing).parameters)
    return [f"{label} has no {name}" for name in expected if name not in has]


def _members(owner: type) -> set[str]:
    """Methods, and fields with or without a default."""
    return set(dir(owner)).union(*(getattr(base, "__annotations__", {}) for base in owner.__mro__))
