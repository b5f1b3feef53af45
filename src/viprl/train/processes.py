"""Trainings in processes of their own: each is a `viprl train` that a user could have started."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from rich.progress import Progress

from viprl.errors import InputError
from viprl.runs.files import FINISHED_FILE, METRICS_FILE
from viprl.runs.logged_rows import planned_steps
from viprl.utils.files import make_folder, write_text, writing
from viprl.utils.json_lines import parse_json

PYTHON = (sys.executable, "-m")
"""Command before `viprl train ...` for a training on one process."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
"""Environment of a process that uses one core."""
POLL = 0.1  # seconds
PATIENCE = 20  # seconds between asking a training to end and killing it
LOG_LINES = 15
PROGRESS = re.compile(r"\d%\|")
"""In the lines of tqdm's progress bars."""


@dataclass(frozen=True)
class Training:
    """One run of `viprl train`."""

    name: str
    """Shown beside its progress."""
    folder: Path
    """Run folder."""
    settings: Mapping[str, Any]
    """The whole configuration, as `viprl train` reads it."""

    @property
    def file(self) -> Path:
        """Where the configuration is written, beside the run folder."""
        return self.folder.with_name(f"{self.folder.name}.yaml")

    @property
    def log(self) -> Path:
        """What the process prints, beside the run folder."""
        return self.folder.with_name(f"{self.folder.name}.log")

    def finished(self) -> bool:
        """Whether the folder has the finished run."""
        return (self.folder / FINISHED_FILE).is_file()

    def steps(self, epoch: float | None, step: int) -> int | None:
        """Total number of steps; None if it is not known yet."""
        return planned_steps(self.settings, epoch, step)


@dataclass(frozen=True)
class Failure:
    """Why a training failed."""

    reason: str
    """In one line: the exit code, and the exception or the last line that the process printed."""
    details: str
    """In several lines: the exit code and the end of the log."""


AnyTraining = TypeVar("AnyTraining", bound=Training)


def run_trainings(
    trainings: Sequence[AnyTraining],
    progress: Progress,
    *,
    jobs: int = 1,
    launch: Sequence[str] = PYTHON,
    environment: Mapping[str, str] | None = None,
) -> Generator[tuple[AnyTraining, Failure | None], None, None]:
    """Run trainings, `jobs` at a time, and yield each when it ends, with its failure if it failed.

    `viprl train` resumes a training that was interrupted. The processes end with the generator and with this process,
    however it ends; use `contextlib.closing` to leave the loop early.

    Args:
        trainings: the trainings that are not finished.
        progress: gets a bar for each training.
        jobs: number of processes at the same time.
        launch: command before `viprl train ...`.
        environment: variables in addition to those of this process.

    Raises InputError if the command before `viprl train` is not found.
    """
    if shutil.which(launch[0]) is None:
        raise InputError(f"the command {launch[0]!r} for starting a training is not found; install it, or fix `launch`")
    waiting = list(trainings)
    running: list[tuple[AnyTraining, _Process]] = []
    try:
        with _sigterm_interrupts():
            while waiting or running:
                while waiting and len(running) < jobs:
                    training = waiting.pop(0)
                    running.append((training, _Process(training, progress, launch, environment or {})))
                time.sleep(POLL)
                for training, process in list(running):
                    if process.ended():
                        running.remove((training, process))
                        yield training, process.failure()
    finally:
        for _, process in running:
            process.stop()


class _Process:
    """A running training and its bar."""

    def __init__(
        self, training: Training, progress: Progress, launch: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        self._training, self._progress = training, progress
        make_folder(training.file.parent)
        write_text(training.file, yaml.safe_dump(dict(training.settings), sort_keys=False))
        self._bar = progress.add_task(training.name, total=training.steps(None, 0))
        with writing(training.log):
            log = training.log.open("ab")
        with log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [*launch, "viprl", "train", "--config", str(training.file)],
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
                preexec_fn=end_with_parent,
            )

    def ended(self) -> bool:
        """Whether the process has ended. Updates the bar, which a transient display then removes."""
        ended = self._process.poll() is not None
        row = _last_row(self._training.folder / METRICS_FILE)
        if "step" in row:
            step = row["step"]
            self._progress.update(self._bar, completed=step, total=self._training.steps(row.get("epoch"), step))
        if ended and self._progress.live.transient:
            self._progress.remove_task(self._bar)
        return ended

    def failure(self) -> Failure | None:
        """None if the training is finished."""
        code = self._process.returncode
        if code == 0 and self._training.finished():
            return None
        with self._training.log.open(encoding="utf-8", errors="replace") as log:
            log.seek(self._log_start)
            lines = [line.rstrip() for line in log.read().splitlines() if line.strip() and not PROGRESS.search(line)]
        ending = f"exit code {code}" if code >= 0 else f"killed by signal {-code}"
        end_of_log = "\n".join(lines[-LOG_LINES:])
        return Failure(f"{ending}: {_last_words(lines)}", f"{ending}; the end of {self._training.log}:\n{end_of_log}")

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def end_with_parent() -> None:
    """On Linux, let this process end with its parent, however that ends. A training that outlived it would keep its
    run folder locked."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _last_words(lines: Sequence[str]) -> str:
    """The last line, or the exception and its notes at the end of a traceback."""
    if not any(line.startswith("Traceback") for line in lines):
        return lines[-1].strip() if lines else "no output"
    end = max(i for i, line in enumerate(lines) if line.startswith((" ", "Traceback")))
    return " ".join(lines[end + 1 :])


def _last_row(metrics: Path) -> dict[str, Any]:
    """The last complete row of a metrics file; empty if there is none."""
    try:
        with metrics.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 20_000))
            row = parse_json(file.read().decode("utf-8", "replace").splitlines()[-1])
    except (OSError, ValueError, IndexError):
        return {}
    return row if isinstance(row, dict) else {}


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM end this process as Ctrl-C does, so that it ends its trainings."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
