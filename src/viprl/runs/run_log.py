"""What a training run leaves behind: metrics and outcomes as JSON lines, safe to append to, to cut and to resume.

metrics.jsonl    one object a step: strategy, seed, step, rollouts (spent so far) and what the engine logged
outcomes.jsonl   one object a generation batch: step, and for each prompt its id, successes and scorable rollouts
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from viprl.errors import FileError
from viprl.utils.files import locked
from viprl.utils.json_lines import append_json_line, log_rows, write_json_lines

METRICS_FILE, OUTCOMES_FILE = "metrics.jsonl", "outcomes.jsonl"


class RunLog:
    """Appends to the two files.

    A resumed run calls `rewind` first, so that every step is logged once, and no line stays that a kill cut short.
    """

    def __init__(self, folder: str | Path, *, strategy: str, seed: int) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.strategy, self.seed, self.rollouts = strategy, seed, 0

    def rewind(self, step: int) -> None:
        """Keep the rows of steps 1 to `step`."""
        for name in (METRICS_FILE, OUTCOMES_FILE):
            path = self.folder / name
            kept = [row for row in log_rows(path) if row["step"] <= step] if path.exists() else []
            write_json_lines(path, kept)
            if name == OUTCOMES_FILE:
                self.rollouts = sum(sum(row["counts"]) for row in kept)

    def metrics(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one row; values that are not a finite number, a text or a truth value become null."""
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
        """Append one generation batch; all [Q]."""
        self.rollouts += int(sum(counts))
        whole = {"counts": counts, "successes": successes, "scorable": scorable}
        numbers = {name: [int(value) for value in values] for name, values in whole.items()}
        append_json_line(self.folder / OUTCOMES_FILE, {"step": step, "ids": list(ids)} | numbers)


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold a run folder, so that two processes never write the same run. Raises FileError if another one holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        lock = locked(file)
        try:
            lock.__enter__()
        except OSError as error:
            raise FileError(f"another process is writing {folder}; wait for it, or choose another folder") from error
        try:
            yield
        finally:
            lock.__exit__(None, None, None)
