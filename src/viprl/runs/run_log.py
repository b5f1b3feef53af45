"""Writes the logs of a training run, so that the run can be killed and resumed at any time.

metrics.jsonl    one row for each step: strategy, seed, step, rollouts (total so far) and what the trainer logged
outcomes.jsonl   one row for each generation batch: step, and for each prompt its id, successes and scorable rollouts
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from viprl.errors import FileError
from viprl.runs.files import LOCK_FILE, METRICS_FILE, OUTCOMES_FILE
from viprl.utils.files import locked, make_folder
from viprl.utils.json_lines import append_json_line, log_rows, write_json_lines


class RunLog:
    """Appends to metrics.jsonl and outcomes.jsonl of a run folder.

    A resumed run calls `rewind` first: then every step is logged once, and a line that was cut short is removed.

    Args:
        folder: the run folder; created if it does not exist.
        strategy: name of the strategy that trains.
        seed: seed of the run.
    """

    def __init__(self, folder: str | Path, *, strategy: str, seed: int) -> None:
        self.folder = Path(folder)
        make_folder(self.folder)
        self.strategy, self.seed, self.rollouts = strategy, seed, 0

    def rewind(self, step: int) -> None:
        """Keep only the rows of steps 1 to `step`."""
        for name in (METRICS_FILE, OUTCOMES_FILE):
            kept = cut_back(self.folder / name, step)
            if name == OUTCOMES_FILE:
                self.rollouts = sum(sum(row["counts"]) for row in kept)

    def metrics(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one row. Values other than finite numbers, text and booleans become null."""
        row = {"strategy": self.strategy, "seed": self.seed, "step": step, "rollouts": self.rollouts}
        known = {key: value if isinstance(value, str | int | float | bool) else None for key, value in values.items()}
        append_json_line(self.folder / METRICS_FILE, row | known)

    def outcomes(
        self,
        step: int,
        ids: Sequence[str],
        counts: Sequence[int],
        successes: Iterable[float],
        scorable: Iterable[float],
    ) -> None:
        """Append one generation batch.

        Args:
            step: the training step.
            ids: [Q] identities of the prompts.
            counts: [Q] rollouts.
            successes: [Q] successful rollouts.
            scorable: [Q] rollouts whose reward could be read.
        """
        self.rollouts += int(sum(counts))
        whole = {"counts": counts, "successes": successes, "scorable": scorable}
        numbers = {name: [int(value) for value in values] for name, values in whole.items()}
        append_json_line(self.folder / OUTCOMES_FILE, {"step": step, "ids": list(ids)} | numbers)


def cut_back(path: Path, step: int) -> list[dict[str, Any]]:
    """Keep only the rows of steps 1 to `step` of a log, which may not exist yet, and return them."""
    kept = [row for row in log_rows(path) if row["step"] <= step] if path.exists() else []
    write_json_lines(path, kept)
    return kept


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Lock a run folder, so that two processes never write the same run. Raises FileError if it is locked."""
    make_folder(folder)
    with (folder / LOCK_FILE).open("w") as file, ExitStack() as stack:
        try:
            stack.enter_context(locked(file))
        except OSError as error:
            raise FileError(f"another process is writing {folder}; wait for it, or choose another folder") from error
        yield
