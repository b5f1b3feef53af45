"""`viprl sweep`: check all arms, train what is not finished, compare what is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rich.console import Console

from viprl.errors import ConfigError, ViprlError
from viprl.runs.resume import in_words
from viprl.train.config import RunConfig
from viprl.train.data_cache import DataCache
from viprl.train.dry_run import dry_run, folder_state
from viprl.train.processes import run_trainings
from viprl.train.sweep import Sweep, SweepRun
from viprl.train.trainer_options import trainer_config
from viprl.utils.progress import progress_bars

MAX_PROCESSES = 64
"""Most processes of a run that are tried if the launch command sets their number."""


def check_sweep(sweep: Sweep, *, verbose: bool = True) -> None:
    """Check every arm as `viprl train --dry-run` does, and the run folders of all seeds.

    With `verbose` each arm is described. Otherwise only its name is printed, and finished arms are not checked. Raises
    ConfigError with the name of the arm.
    """
    console, cache = Console(soft_wrap=True), DataCache()
    for run in sweep.runs:  # fast, and fails before the data is read
        with _names(run.name):
            _check_same_run(run)
    for arm in sweep.arms:
        runs = [run for run in sweep.runs if run.arm == arm]
        title = f"{arm}, {len(runs)} seed{'s' if len(runs) > 1 else ''}"
        if not verbose and all(run.finished() for run in runs):
            continue
        console.rule(title, align="left", style="dim") if verbose else console.print(f"checking {title}", style="dim")
        config = runs[0].config  # the seeds differ in nothing else that is checked
        with _names(f"arm {arm}"):
            processes = _processes(sweep, config)
            facts = dry_run(config, processes=processes, cache=cache)
            args = trainer_config(config, dry_run=True, processes=processes)
        for name, text in facts if verbose else ():
            console.print(f"{name:<12}{text}", highlight=False, markup=False)
        for run in runs:
            with _names(run.name):
                folder_state(run.run_folder(), args)
    if verbose:
        console.print(f"{len(sweep.runs)} runs: configuration OK (model weights not loaded)", highlight=False)


def run_sweep(sweep: Sweep) -> bool:
    """Check all arms, train the runs that are not finished, and compare; returns whether every run is finished.

    A run that fails is reported and does not stop the others. The same call continues an interrupted sweep. Raises
    ConfigError before anything is trained or written, see `check_sweep`.
    """
    from viprl.report.comparison import compare

    check_sweep(sweep, verbose=False)
    console, failed = Console(soft_wrap=True), {}
    waiting = [run for run in sweep.runs if not run.finished()]
    for run in sweep.runs:
        if run not in waiting:
            console.print(f"{run.name}: finished before", highlight=False)
    with progress_bars(console, transient=True) as progress:
        overall = progress.add_task("sweep", total=len(sweep.runs), completed=len(sweep.runs) - len(waiting))
        with contextlib.closing(run_trainings(waiting, progress, launch=sweep.launch)) as trainings:
            for run, failure in trainings:
                if failure is None:
                    console.print(f"{run.name}: finished", highlight=False)
                else:
                    failed[run.name] = failure.reason
                    console.print(f"[red]{run.name}: failed[/red]", highlight=False)
                    console.print(failure.details, highlight=False, markup=False)
                progress.advance(overall)
    done = [run for run in sweep.runs if run.finished()]
    if done:
        compare(sweep.folder, [(run.arm, run.seed, run.folder) for run in done], sweep.baseline, failed, console)
    if failed:
        console.print(
            f"{len(failed)} of {len(sweep.runs)} runs failed: {', '.join(failed)}; run the same command to try again"
        )
    return not failed


@contextlib.contextmanager
def _names(what: str) -> Iterator[None]:
    """Add the name of an arm or a run to an error."""
    try:
        yield
    except ViprlError as error:
        raise ConfigError(f"{what}: {error}") from error
    except Exception as error:
        error.add_note(f"in the check of {what}")
        raise


def _check_same_run(run: SweepRun) -> None:
    """Refuse a folder with other settings. `viprl train` itself would continue a run with another strategy."""
    folder = run.run_folder()
    folder.resume_point()
    if other := {name: values for name, values in folder.changes().items() if name == "vip_strategy"}:
        raise ConfigError(
            f"{run.folder} has a run with another strategy: {in_words(other)}; rename the arm, or delete the folder to "
            "start again"
        )


def _processes(sweep: Sweep, config: RunConfig) -> int:
    """Processes of a run. If the launch command sets them, the fewest that suit the batch sizes."""
    if sweep.processes is not None:
        return sweep.processes
    for processes in range(1, MAX_PROCESSES + 1):
        with contextlib.suppress(ConfigError):
            trainer_config(config, dry_run=True, processes=processes)
            return processes
    return 1  # the check then reports its error
