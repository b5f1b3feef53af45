"""The state of a run folder: which run it has, how far that run is, and whether it is finished."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from viprl.errors import ConfigError, DataError, FileError, StateError
from viprl.runs.files import CHECKPOINT, FINISHED_FILE, SETTINGS_FILE, TRAINER_STATE_FILE, by_step
from viprl.runs.resume_options import BATCH_PARTS, BATCHES, MAY_CHANGE, PATHS, WITHOUT_EFFECT
from viprl.utils.files import writing
from viprl.utils.json_files import read_json_object
from viprl.utils.numerics import number
from viprl.utils.safe_yaml import read_yaml_mapping

OPTIMIZER_FILES = ("optimizer*", "global_step*")
TRAINING_STATE = (
    TRAINER_STATE_FILE, *OPTIMIZER_FILES, "scheduler.pt", "scaler.pt", "rng_state*", "latest",
    "vip_state.safetensors",
)  # fmt: skip
"""Files and folders of a checkpoint that are not part of the model."""

Changes = Mapping[str, tuple[Any, Any]]
"""Name of a setting -> its value in the run so far, and now."""


@dataclass(frozen=True)
class RunFolder:
    """A run folder, and the settings of the run that is to start or to continue in it.

    Args:
        path: the folder; it need not exist.
        settings: name -> value.
        defaults: name -> value of the settings that a record of a run does not name.
        processes: processes of the run; None if unknown, then the sizes of the batches are not compared.
    """

    path: Path
    settings: Mapping[str, Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    processes: int | None = 1

    def changes(self) -> Changes:
        """The settings with an effect that differ from those of the run in the folder; empty if it has no run.

        Raises StateError if the record of the run cannot be read.
        """
        if not self.has_run():
            return {}
        before, now = (
            {**self.defaults, **over_all_processes(settings, self.processes or 1)}
            for settings in (read_record(self.path), self.settings)
        )
        ignored = {*WITHOUT_EFFECT, *(BATCHES if self.processes is None else ())}
        if _positive(before, now, "max_steps"):
            ignored.add("num_train_epochs")
        return {
            name: (before.get(name), now.get(name))
            for name in dict.fromkeys([*self.settings, *before, *now])
            if name not in ignored and not _same(name, before.get(name), now.get(name))
        }

    def has_run(self) -> bool:
        """Whether a run was started in the folder."""
        return (self.path / SETTINGS_FILE).is_file()

    def finished(self) -> bool:
        """Whether the folder has a finished run with these settings."""
        return (self.path / FINISHED_FILE).is_file() and self.has_run() and not self.changes()

    def resume_point(self) -> Path | None:
        """The newest checkpoint of the run in the folder; None if it has none yet.

        Raises ConfigError if the folder has a run that learns something else.
        """
        other = {name: values for name, values in self.changes().items() if name not in MAY_CHANGE}
        if other:
            batches = " (rollouts over all processes; set both keys to keep them)" if set(BATCHES) & set(other) else ""
            raise ConfigError(
                f"{self.path} has a run with other settings: {in_words(other)}{batches}; undo the change to continue "
                "that run, choose another output_dir, or delete the folder to start again"
            )
        return last_checkpoint(self.path) if self.has_run() else None

    def at_end(self, checkpoint: Path, *, max_steps: int, num_train_epochs: float) -> bool:
        """Whether the training is complete at the checkpoint.

        Args:
            checkpoint: a checkpoint in the folder.
            max_steps: steps of the training; at most 0 if epochs decide.
            num_train_epochs: epochs of the training.

        Raises ConfigError if it is complete, but was trained with other settings.
        """
        state = state_of(checkpoint)
        step, epoch = state["global_step"], number(state.get("epoch"))
        done, end = (step, max_steps) if max_steps > 0 else (epoch, num_train_epochs)
        if not done >= end:  # NaN: an epoch that cannot be read
            return False
        if changed := self.changes():
            raise ConfigError(
                f"the run in {self.path} was trained to step {step} with other settings: {in_words(changed)}, and no "
                "step is left; raise max_steps to train further, choose another output_dir, or delete the folder"
            )
        return True


def in_words(changes: Changes) -> str:
    """ "learning_rate 0.001 -> 0.01, model 'a' -> 'b'"."""
    return ", ".join(f"{name} {before!r} -> {now!r}" for name, (before, now) in changes.items())


def read_record(folder: Path) -> dict[str, Any]:
    """The settings of the run in a folder. Raises StateError if they cannot be read."""
    file = folder / SETTINGS_FILE
    try:
        return flat(read_yaml_mapping(file))
    except (DataError, FileError) as error:
        raise StateError(
            f"{file}, the record of the run, cannot be read: {error}; choose another output_dir, or delete the folder"
        ) from error


def flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without nesting: earlier versions put the options of the trainer under `trainer`."""
    nested = record.get("trainer")
    if not isinstance(nested, Mapping):
        return dict(record)
    return {**{key: value for key, value in record.items() if key != "trainer"}, **nested}


def over_all_processes(settings: Mapping[str, Any], processes: int) -> dict[str, Any]:
    """The settings with the rollouts of an optimizer step (`update_batch_size`) and of a generation batch
    (`generation_batch_size`) over all processes, in place of the parts of each process."""
    whole = {name: value for name, value in settings.items() if name not in BATCH_PARTS}
    given = {name: int(settings[name]) for name in (*BATCH_PARTS, *BATCHES) if settings.get(name) is not None}
    together = given.get("per_device_train_batch_size", 8) * processes
    update = given.get("update_batch_size", together * given.get("gradient_accumulation_steps", 1))
    sampled = together * given.get("steps_per_generation", update // together)
    return whole | {"update_batch_size": update, "generation_batch_size": given.get("generation_batch_size", sampled)}


def copy_model(checkpoint: Path, target: Path) -> None:
    """Copy the model of a checkpoint, without the state of the training. Raises FileError."""
    with writing(target):
        shutil.copytree(checkpoint, target, ignore=shutil.ignore_patterns(*TRAINING_STATE), dirs_exist_ok=True)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint: a folder `checkpoint-N` in which the trainer's state, saved last, can be read.

    Everything else is ignored, such as checkpoint-best and checkpoint-3.bak.
    """
    return next((path for _, path in reversed(by_step(folder, CHECKPOINT)) if _complete(path)), None)


def state_of(checkpoint: Path) -> dict[str, Any]:
    """The trainer's state in a checkpoint. Raises DataError or FileError if it cannot be read."""
    return read_json_object(checkpoint / TRAINER_STATE_FILE)


def _complete(checkpoint: Path) -> bool:
    try:
        return isinstance(state_of(checkpoint)["global_step"], int)
    except (FileError, DataError, KeyError):
        return False


def _positive(before: Mapping[str, Any], now: Mapping[str, Any], name: str) -> bool:
    return all(isinstance(values.get(name), int) and values[name] > 0 for values in (before, now))


def _same(name: str, before: Any, now: Any) -> bool:
    """Whether two values of a setting mean the same: 1e-6 and "1e-6", "data.jsonl" and "./data.jsonl"."""
    if before == now or (isinstance(before, list | tuple) and isinstance(now, list | tuple) and [*before] == [*now]):
        return True
    if name in PATHS and isinstance(before, str) and isinstance(now, str):
        return Path(before).exists() and Path(before).resolve() == Path(now).resolve()
    try:
        numbers = not isinstance(before, bool) and not isinstance(now, bool)
        return numbers and float(before) == float(now)
    except (TypeError, ValueError):
        return False
