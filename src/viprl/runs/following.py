"""Follows the log of a run while it is written."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from viprl.errors import DataError, FileError, ViprlError
from viprl.runs.files import FINISHED_FILE, METRICS_FILE, SUMMARY_FILE, TRAINER_STATE_FILE
from viprl.runs.logged_rows import Row, has_step, with_our_names
from viprl.runs.reader import Run, load_run, with_strategy
from viprl.runs.run_folder import run_settings
from viprl.utils.json_lines import parse_json
from viprl.utils.numerics import number
from viprl.utils.read_files import LONGEST_LINE

_MARK = 64
"""Bytes before the place that was read up to, by which a file is recognised that was written anew."""


class GrowingFile:
    """The rows of a file of JSON lines that another process writes. Each line is read once.

    A last line without an end is left for the next time. A file that was truncated, replaced or written anew, as by a
    resumed run, is read from its start.

    Args:
        path: the file, which is not compressed.
        parse: what is kept of a row; None for nothing.
    """

    def __init__(self, path: Path, parse: Callable[[Row], Row | None] = lambda row: row) -> None:
        self.path, self._parse = path, parse
        self.rows: list[Row] = []
        """What is kept so far; lines that are not JSON objects are left out."""
        self._at, self._identity, self._mark = 0, (0, 0), b""

    def read(self) -> bool:
        """Read what was added; whether there are other rows than before.

        Raises FileError if the file cannot be read, DataError for a line that is too long.
        """
        try:
            with self.path.open("rb") as file:
                state = os.fstat(file.fileno())
                anew = self._at > 0 and self._written_anew(file, (state.st_dev, state.st_ino))
                if anew:
                    self.rows, self._at, self._mark = [], 0, b""
                self._identity = (state.st_dev, state.st_ino)
                file.seek(self._at)
                added = file.read()
        except OSError as error:
            raise FileError(f"{self.path} cannot be read ({error.strerror or error})") from error
        end = added.rfind(b"\n") + 1
        if len(added) - end > LONGEST_LINE:
            raise DataError(f"{self.path} has a line longer than {LONGEST_LINE // 2**20} MiB")
        self._at += end
        self._mark = (self._mark + added[:end])[-_MARK:]
        new = [row for line in added[:end].split(b"\n") if (row := self._row(line)) is not None]
        self.rows += new
        return anew or bool(new)

    def _written_anew(self, file: BinaryIO, identity: tuple[int, int]) -> bool:
        file.seek(self._at - len(self._mark))
        return identity != self._identity or file.read(len(self._mark)) != self._mark

    def _row(self, line: bytes) -> Row | None:
        if not line.strip():
            return None
        try:
            row = parse_json(line.decode("utf-8-sig", "replace"))
        except ValueError:
            return None
        return self._parse(row) if isinstance(row, dict) else None


class FollowedRun:
    """A run that may still be written, or not exist yet. It has no history of prompts.

    Args:
        path: as for `viprl.runs.reader.load_run`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run: Run | None = None
        """The run so far; None as long as there is no row with a step."""
        self.waits_for = ""
        """What is wrong as long as there is no run."""
        self._log: GrowingFile | None = None
        self._states: dict[Path, int] = {}
        self._changed = 0.0

    def read(self) -> bool:
        """Read what was added; whether the run has changed."""
        file = self.path if self.path.suffix == ".jsonl" and not self.path.is_dir() else self.path / METRICS_FILE
        try:
            return self._read_lines(file) if file.is_file() else self._read_states()
        except (ViprlError, FileNotFoundError) as error:  # a checkpoint may be deleted at any moment
            self.waits_for = str(error)
            return False

    @property
    def age(self) -> float:
        """Seconds since the log was written."""
        return max(0.0, time.time() - self._changed)

    @property
    def at_checkpoints(self) -> bool:
        """Whether the log is one of TRL, which is written with checkpoints alone."""
        return self._log is None

    @property
    def finished(self) -> bool:
        """Whether the run is finished. The logs of verl and tinker-cookbook do not say so."""
        if self.run is None or (self.path / METRICS_FILE).is_file():
            return any((self.path / name).is_file() for name in (FINISHED_FILE, SUMMARY_FILE))
        return number(self.run.rows[-1]["step"]) >= number(self.run.settings.get("max_steps"))

    def _read_lines(self, file: Path) -> bool:
        if self._log is None or self._log.path != file:
            self._log = GrowingFile(file, lambda row: with_our_names(row) if has_step(row) else None)
        changed = self._log.read()
        self._changed = file.stat().st_mtime
        if not self._log.rows:
            self.run, self.waits_for = None, f"{file} has no step yet"
        elif changed:
            notes: list[str] = []
            rows = tuple(with_strategy(self._log.rows, file.name, notes))
            name = file.stem if file == self.path else self.path.resolve().name
            self.run = Run(name, self.path, rows, {}, (), tuple(notes), run_settings(self.path))
        return changed

    def _read_states(self) -> bool:
        """Read the state of TRL's trainer, which is written with each checkpoint."""
        places = [self.path / TRAINER_STATE_FILE, *self.path.glob(f"checkpoint-*/{TRAINER_STATE_FILE}")]
        states = {place: place.stat().st_mtime_ns for place in places if place.is_file()}
        if states and states == self._states:
            return False
        self.run = load_run(self.path, prompts=False)  # or an error, which says what is missing
        self._states, self._changed = states, max(states.values(), default=0) / 1e9
        return True
