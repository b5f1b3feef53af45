"""The state of a run folder: which run it has, how far that run is, and whether it is finished."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from viprl.errors import ConfigError
from viprl.runs.files import FINISHED_FILE, SETTINGS_FILE

Settings = Mapping[str, Any]
"""The settings of a run by name, those of the trainer under "trainer"; what SETTINGS_FILE contains."""

WITHOUT_EFFECT = ("logging_steps", "save_steps", "disable_tqdm", "output_dir")
"""Trainer options that do not change what a run learns."""
MAY_CHANGE = ("max_steps", "num_train_epochs", "vip_strategy")
"""Options that may differ between a run and its continuation."""

TRAINER_STATE_FILE = "trainer_state.json"
TRAINING_STATE = (
    TRAINER_STATE_FILE, "optimizer*", "scheduler.pt", "scaler.pt", "rng_state*", "global_step*", "latest",
    "vip_state.safetensors",
)  # fmt: skip
"""Files and folders of a checkpoint that are not part of the model."""


def changes(folder: Path, settings: Settings) -> list[str]:
    """Names of the settings that differ from those of the run in the folder; empty if the folder has no run."""
    file = folder / SETTINGS_FILE
    if not file.exists():
        return []
    earlier: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    before, now = ({**all_settings, **all_settings["trainer"]} for all_settings in (earlier, settings))
    names = dict.fromkeys([*before, *now])
    return [name for name in names if name not in ("trainer", *WITHOUT_EFFECT) and before.get(name) != now.get(name)]


def finished(folder: Path, settings: Settings) -> bool:
    """Whether the folder has a finished run with these settings."""
    exists = (folder / FINISHED_FILE).is_file() and (folder / SETTINGS_FILE).is_file()
    return exists and not changes(folder, settings)


def resume_point(folder: Path, settings: Settings) -> Path | None:
    """The newest checkpoint of the run in the folder; None if it has none yet.

    Raises ConfigError if the folder has a run with other settings.
    """
    other = [name for name in changes(folder, settings) if name not in MAY_CHANGE]
    if other:
        raise ConfigError(
            f"{folder} has a run with other settings ({', '.join(other)}); choose another output_dir, or delete the "
            "folder to start again"
        )
    return last_checkpoint(folder) if (folder / SETTINGS_FILE).exists() else None


def at_end(folder: Path, settings: Settings, checkpoint: Path, *, max_steps: int, num_train_epochs: float) -> bool:
    """Whether the training is complete at the checkpoint.

    Args:
        folder: the run folder.
        settings: the settings of the run.
        checkpoint: one of its checkpoints.
        max_steps: steps of the training; at most 0 if epochs decide.
        num_train_epochs: epochs of the training.

    Raises ConfigError if it is complete, but was trained with other settings.
    """
    state = state_of(checkpoint)
    step = state["global_step"]
    done, end = (step, max_steps) if max_steps > 0 else (state["epoch"], num_train_epochs)
    if done < end:
        return False
    if changed := changes(folder, settings):
        raise ConfigError(
            f"the run in {folder} was trained to step {step} with other settings ({', '.join(changed)}), and no step "
            "is left; raise max_steps to train further, choose another output_dir, or delete the folder"
        )
    return True


def copy_model(checkpoint: Path, target: Path) -> None:
    """Copy the model of a checkpoint, without the state of the training."""
    shutil.copytree(checkpoint, target, ignore=shutil.ignore_patterns(*TRAINING_STATE), dirs_exist_ok=True)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint. A checkpoint is complete if the trainer's state can be read: it is saved last."""
    found = [path for path in folder.glob("checkpoint-*") if _complete(path)]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def state_of(checkpoint: Path) -> dict[str, Any]:
    """The trainer's state in a checkpoint."""
    return json.loads((checkpoint / TRAINER_STATE_FILE).read_text(encoding="utf-8"))


def _complete(checkpoint: Path) -> bool:
    try:
        state_of(checkpoint)
    except (OSError, ValueError):
        return False
    return True
