"""trainer_state.json, in which the trainers of transformers keep what they logged."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from viprl.errors import DataError
from viprl.utils.json_files import read_json_object
from viprl.utils.numerics import number

TRAINER_STATE_FILE = "trainer_state.json"


@dataclass(frozen=True, eq=False)
class TrainerState:
    """What a trainer logged up to a step."""

    file: Path
    step: int
    """The last step."""
    rows: list[dict[str, Any]]
    """One row for each log, with its step; without the summary at the end of a training."""

    @classmethod
    def read(cls, file: Path) -> TrainerState:
        """Raises DataError for a file that is not the state of a trainer."""
        content = read_json_object(file)
        rows, step = content.get("log_history"), number(content.get("global_step"))
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or step != step:  # NaN
            raise DataError(f"{file} has no log_history and global_step; expected the state that a trainer writes")
        return cls(file, int(step), [row for row in rows if "train_runtime" not in row])


def trainer_state(folder: Path) -> TrainerState | None:
    """The newest state in an output folder, in it or in its checkpoints; None if there is none that can be read.

    The folder may also be a checkpoint, or the folder `completions` of an output folder.
    """
    for place in (folder, folder.parent) if folder.name == "completions" else (folder,):
        named = ((re.fullmatch(r"checkpoint-(\d+)", path.name), path) for path in place.glob("checkpoint-*"))
        checkpoints = sorted(((int(name[1]), path) for name, path in named if name), reverse=True)
        own, last = _first([place]), _first([path for _, path in checkpoints])
        found = [state for state in (own, last) if state is not None]
        if found:
            return max(found, key=lambda state: state.step)
    return None


def _first(folders: list[Path]) -> TrainerState | None:
    """The first state that can be read: a killed run leaves checkpoints that are not complete."""
    for file in (folder / TRAINER_STATE_FILE for folder in folders):
        if file.is_file():
            try:
                return TrainerState.read(file)
            except DataError:
                continue
    return None
