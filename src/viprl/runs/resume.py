"""A run's folder: which run it holds, how far that has come, and whether it has come to its end."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from viprl.train.config import ConfigError, RunConfig

SETTINGS_FILE = "config.yaml"
FINISHED_FILE = "finished.json"
"""The run has come to its end, at the step that stands in it."""

WITHOUT_EFFECT = ("logging_steps", "save_steps", "disable_tqdm", "output_dir")
"""Trainer options on which nothing depends that a run learns."""
CONTINUED = ("max_steps", "num_train_epochs", "vip_strategy")
"""Those that may differ between a run and its continuation."""

TRAINING_STATE = (
    "trainer_state.json", "optimizer*", "scheduler.pt", "scaler.pt", "rng_state*", "global_step*", "latest",
    "vip_state.safetensors",
)  # fmt: skip
"""Files and folders of a checkpoint that are no part of the model."""


def changes(folder: Path, config: RunConfig) -> list[str]:
    """Settings of effect in which `config` differs from the run in the folder; none where there is no run yet."""
    file = folder / SETTINGS_FILE
    if not file.exists():
        return []
    earlier: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    flat = [{**settings, **settings["trainer"]} for settings in (earlier, asdict(config))]
    keys = dict.fromkeys([*flat[0], *flat[1]])
    return [k for k in keys if k not in ("trainer", *WITHOUT_EFFECT) and flat[0].get(k) != flat[1].get(k)]


def finished(folder: Path, config: RunConfig) -> bool:
    """Whether the folder holds the run that `config` describes, trained to its end."""
    there = (folder / FINISHED_FILE).is_file() and (folder / SETTINGS_FILE).is_file()
    return there and not changes(folder, config)


def resume_point(folder: Path, config: RunConfig) -> Path | None:
    """The newest checkpoint of the same run in its folder, None for a run that has none yet.

    Raises `ConfigError` where the folder holds another run.
    """
    other = [key for key in changes(folder, config) if key not in CONTINUED]
    if other:
        raise ConfigError(
            f"{folder} holds a run with other settings ({', '.join(other)}); choose another output_dir, or delete "
            "that folder to start again"
        )
    return last_checkpoint(folder) if (folder / SETTINGS_FILE).exists() else None


def at_end(folder: Path, config: RunConfig, checkpoint: Path, args: Any) -> bool:
    """Whether the checkpoint leaves nothing to train; `args` is the trainer's config.

    Raises `ConfigError` where it was reached with other settings: it is the end of another run than `config` describes.
    """
    state = state_of(checkpoint)
    step = state["global_step"]
    done, end = (step, args.max_steps) if args.max_steps > 0 else (state["epoch"], args.num_train_epochs)
    if done < end:
        return False
    if changed := changes(folder, config):
        raise ConfigError(
            f"{folder} has come to step {step} with other settings ({', '.join(changed)}), and nothing "
            "is left to train; raise max_steps to go on, choose another output_dir, or delete that folder"
        )
    return True


def copy_model(checkpoint: Path, place: Path) -> None:
    """What the trainer saves of a model, which stands in a checkpoint beside its own state."""
    shutil.copytree(checkpoint, place, ignore=shutil.ignore_patterns(*TRAINING_STATE), dirs_exist_ok=True)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end: the trainer's state is the last file of one."""
    found = [path for path in folder.glob("checkpoint-*") if _complete(path)]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def state_of(checkpoint: Path) -> dict[str, Any]:
    """The trainer's state."""
    return json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))


def _complete(checkpoint: Path) -> bool:
    try:
        state_of(checkpoint)
    except (OSError, ValueError):
        return False
    return True
