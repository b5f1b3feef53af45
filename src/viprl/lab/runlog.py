"""What a training run leaves behind: metrics and outcomes as JSON lines, safe to append to, to cut and to resume.

metrics.jsonl    one object a step: strategy, seed, step, rollouts (spent so far) and what the engine logged
outcomes.jsonl   one object a generation batch: step, and for each prompt its id, successes and scorable rollouts
"""

from __future__ import annotations

import fcntl
import gzip
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class RunLog:
    """Appends to the two files. `rewind(step)` drops what lies after a checkpoint, so that a resumed run writes every
    step once, and a line cut short by a kill never stays."""

    def __init__(self, folder: str | Path, *, strategy: str, seed: int) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.strategy, self.seed, self.rollouts = strategy, seed, 0

    def rewind(self, step: int) -> None:
        """Keep the rows of steps 1 to `step`."""
        for name in ("metrics.jsonl", "outcomes.jsonl"):
            path = self.folder / name
            kept = [row for row in read_jsonl(path) if row["step"] <= step] if path.exists() else []
            write_text(path, "".join(_line(row) for row in kept))
            if name == "outcomes.jsonl":
                self.rollouts = sum(sum(row["counts"]) for row in kept)

    def metrics(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one row; values that are no finite number, text or truth value become null."""
        row = {"strategy": self.strategy, "seed": self.seed, "step": step, "rollouts": self.rollouts}
        self._append("metrics.jsonl", row | {key: _plain(value) for key, value in values.items()})

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
        whole: dict[str, Iterable[float]] = {"counts": counts, "successes": successes, "scorable": scorable}
        self._append(
            "outcomes.jsonl", {"step": step, "ids": list(ids)} | {k: [int(x) for x in v] for k, v in whole.items()}
        )

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        with (self.folder / name).open("a", encoding="utf-8") as file:
            file.write(_line(row))


def read_jsonl(path: str | Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSON-lines file; a last line without an end (a killed run) is left out."""
    with Path(path).open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold a run folder, so that two processes never write the same run. The kernel lets go of it at any end of the
    process. Raises ValueError where another one holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(f"another process is writing {folder}; wait for it, or choose another folder") from error
        yield


def write_text(path: str | Path, text: str) -> None:
    """Write a whole file atomically."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def write_trajectories(path: str | Path, outcomes: Sequence[str | Path], prompts: Mapping[str, Any]) -> None:
    """Outcome logs as replay trajectories (.jsonl.gz): `id`, `prompt`, and a list entry a visit in `rollouts` and
    `successes`. `prompts` maps identities to texts or chats; visits without a scorable rollout are left out."""
    visits: dict[str, tuple[list[int], list[int]]] = {}
    for source in outcomes:
        for row in read_jsonl(source):
            for key, successes, scorable in zip(row["ids"], row["successes"], row["scorable"], strict=True):
                if scorable > 0:
                    rollouts, wins = visits.setdefault(key, ([], []))
                    rollouts.append(scorable)
                    wins.append(successes)
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with gzip.open(part, "wt", encoding="utf-8") as file:
        for key, (rollouts, wins) in visits.items():
            name = key.removeprefix("id:")
            file.write(_line({"id": name, "prompt": prompts.get(key, ""), "rollouts": rollouts, "successes": wins}))
    part.replace(path)


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool) else None
