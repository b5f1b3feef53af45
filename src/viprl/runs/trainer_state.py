"""trainer_state.json, in which the trainers of transformers keep what they logged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from viprl.errors import DataError
from viprl.runs.files import CHECKPOINT, TRAINER_STATE_FILE, by_step
from viprl.utils.json_files import read_json_object
from viprl.utils.numerics import number


@dataclass(frozen=True, eq=False)
class TrainerState:
    """What a trainer logged up to a step."""

    file: Path
    step: int
    """The last step."""
    rows: list[dict[str, Any]]
    """One row for each log, with its step; without the summary at the end of a training."""
    max_steps: int | None = None
    """Steps of the whole training; None if the state does not say."""

    @classmethod
    def read(cls, file: Path) -> TrainerState:
        """Raises DataError for a file that is not the state of a trainer."""
        content = read_json_object(file)
        rows, step = content.get("log_history"), number(content.get("global_step"))
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or step != step:  # NaN
            raise DataError(f"{file} has no log_history and global_step; expected the state that a trainer writes")
        most = number(content.get("max_steps"))
        known = [row for row in rows if "train_runtime" not in row]
        return cls(file, int(step), known, int(most) if most > 0 else None)


def trainer_state(folder: Path) -> TrainerState | None:
    """The newest state in an output folder, in it or in its checkpoints; None if there is none.

    The folder may also be a checkpoint, or the folder `completions` of an output folder. Raises DataError if there are
    states, but none of them can be read.
    """
    for place in (folder, folder.parent) if folder.name == "completions" else (folder,):
        newest_first = [path for _, path in reversed(by_step(place, CHECKPOINT))]
        own, saved = ([path / TRAINER_STATE_FILE for path in paths] for paths in ([place], newest_first))
        errors: list[DataError] = []
        found = [state for files in (own, saved) if (state := _first(files, errors)) is not None]
        if found:
            return max(found, key=lambda state: state.step)
        if errors:
            raise errors[0]
    return None


def _first(files: list[Path], errors: list[DataError]) -> TrainerState | None:
    """The first state that can be read: a killed run leaves checkpoints that are not complete."""
    for file in files:
        if file.is_file():
            try:
                return TrainerState.read(file)
            except DataError as error:
                errors.append(error)
    return None
