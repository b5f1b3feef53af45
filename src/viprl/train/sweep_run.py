"""Running a sweep: one process a training, one after the other, with progress; what fails is told and passed over."""

from __future__ import annotations

import contextlib
import ctypes
import json
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from viprl.runs.resume import changes, resume_point
from viprl.train.config import ConfigError, RunConfig, trainer_config
from viprl.train.sweep import Sweep, SweepRun
from viprl.utils.files import write_text

POLL = 0.5  # seconds


MOST_PROCESSES = 64  # tried where the number is not known


def check_sweep(sweep: Sweep, *, tell: bool = True) -> None:
    """Dry run of every arm, its data read once, and of the folders of all its seeds, which differ in nothing else that
    is checked. Raises `ConfigError`, naming the arm."""
    from viprl.train.reader import Reader
    from viprl.train.training import check_folder, dry_run

    console, reader = Console(soft_wrap=True), Reader()
    for run in sweep.runs:  # quick, and before the data is read
        with _named(run.name):
            _check_same_run(run)
    for arm in sweep.arms:
        runs = [run for run in sweep.runs if run.arm == arm]
        seeds = f"{arm}, {len(runs)} seed{'s' if len(runs) > 1 else ''}"
        if not tell and all(run.finished() for run in runs):
            continue
        with _named(f"arm {arm}"):
            console.rule(seeds, align="left", style="dim") if tell else console.print(f"checking {seeds}", style="dim")
            processes = _processes(sweep, runs[0].config)
            facts = dry_run(runs[0].config, processes=processes, reader=reader)
            args = trainer_config(runs[0].config, dry_run=True, processes=processes)
        for name, words in facts if tell else ():
            console.print(f"{name:<12}{words}", highlight=False, markup=False)
        for run in runs:
            with _named(run.name):
                check_folder(run.config, args)
    if tell:
        console.print(f"{len(sweep.runs)} runs: everything that can be told without the model's weights is in order")


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from error


def _check_same_run(run: SweepRun) -> None:
    """Raise `ConfigError` where the folder holds a run with other settings, the strategy among them: `viprl train`
    would go on with the other one's weights."""
    resume_point(run.folder, asdict(run.config))
    if "vip_strategy" in changes(run.folder, asdict(run.config)):
        raise ConfigError(
            f"{run.folder} holds a run with another vip_strategy; give the arm another name, or delete that folder"
        )


def _processes(sweep: Sweep, config: RunConfig) -> int:
    """Processes of a run; where the user's own command sets them, the fewest that suit the batch sizes."""
    if sweep.processes is not None:
        return sweep.processes
    for processes in range(1, MOST_PROCESSES):
        with contextlib.suppress(ConfigError):
            trainer_config(config, dry_run=True, processes=processes)
            return processes
    return 1  # whose error is then told


def run_sweep(sweep: Sweep) -> bool:
    """Check all arms, train what is not finished, compare what is, and tell. True where every run came to its end.

    Raises `ConfigError` before anything is trained or written, see `check_sweep`. A run that fails is reported and does
    not stop the others. Interrupted, the same call goes on.
    """
    from viprl.report.comparison import compare

    check_sweep(sweep, tell=False)
    console, failed = Console(soft_wrap=True), {}
    with _terminable(), _bars(console) as bars:
        whole = bars.add_task("sweep", total=len(sweep.runs), detail="")
        for run in sweep.runs:
            if run.finished():
                console.print(f"{run.name}: finished before", highlight=False)
            elif reason := _train(run, sweep.launch, bars):
                failed[run.name] = reason
                console.print(f"[red]{run.name}: failed[/red]", highlight=False)
                console.print(f"{reason} (all of it: {run.log})", highlight=False, markup=False)
            else:
                console.print(f"{run.name}: done", highlight=False)
            bars.advance(whole)
    done = [run for run in sweep.runs if run.finished()]
    if done:
        compare(sweep.folder, [(run.arm, run.seed, run.folder) for run in done], sweep.baseline, failed, console)
    if failed:
        console.print(
            f"{len(failed)} of {len(sweep.runs)} runs failed: {', '.join(failed)}; the same command tries them again"
        )
    return not failed


def _train(run: SweepRun, launch: Sequence[str], bars: Progress) -> str:
    """Train one run in a process of its own; the reason where it fails, else ""."""
    run.file.parent.mkdir(parents=True, exist_ok=True)
    write_text(run.file, run.text())
    task = bars.add_task(run.name, total=None, detail="starting")
    command = [*launch, "viprl", "train", "--config", str(run.file)]
    with run.log.open("a", encoding="utf-8") as log:
        start = log.tell()
        try:
            process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=_die_with_parent)
        except OSError as error:
            bars.remove_task(task)
            return f"cannot be started: {error}"
        try:
            while not _ended(process):
                bars.update(task, detail=_progress(run.folder))
        finally:
            _stop(process)
            bars.remove_task(task)
    if process.returncode == 0 and run.finished():
        return ""
    with run.log.open(encoding="utf-8", errors="replace") as log:
        log.seek(start)
        lines = [line.strip() for line in log.read().splitlines() if line.strip()]
    ending = f"exit code {process.returncode}" if process.returncode >= 0 else f"killed by signal {-process.returncode}"
    return f"{ending}: {lines[-1] if lines else 'no output'}"


def _ended(process: subprocess.Popen) -> bool:
    """Whether the process ended within POLL seconds."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(POLL)
    return process.poll() is not None


def _progress(folder: Path) -> str:
    """The last step that the run has logged."""
    try:
        with (folder / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 20_000))
            lines = file.read().decode("utf-8", "replace").splitlines()
        row = json.loads(lines[-1])
    except (OSError, ValueError, IndexError):
        return "starting"
    epoch = f", pass {row['epoch']:.2f}" if isinstance(row.get("epoch"), float) else ""
    return f"step {row.get('step')}{epoch}"


def _stop(process: subprocess.Popen) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _die_with_parent() -> None:
    """On Linux a run ends with its sweep, however the sweep ends; else the next sweep would find it still writing."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the sweep as Ctrl-C does, with its run."""

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


def _bars(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[detail]}"))
    return Progress(*columns, TimeElapsedColumn(), console=console, transient=True)
