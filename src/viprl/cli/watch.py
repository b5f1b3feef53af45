"""`viprl watch`."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from viprl.report.snapshot import Snapshot
    from viprl.report.terminal import View
    from viprl.runs.following import FollowedRun


def watch(
    run: Annotated[
        Path,
        typer.Argument(
            help="Run folder, output folder of TRL, log_path of tinker-cookbook, or the file of verl's logger `file`. "
            "It need not exist yet."
        ),
    ],
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks at the log.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print the view once and exit.")] = False,
) -> None:
    """Show a run in the terminal while it goes on: progress, reward, savings, variance, guards and findings.

    The view ends with the run, or with Ctrl-C. If the output is not a terminal, it is printed once.
    """
    from rich.console import Console

    from viprl.errors import DataError
    from viprl.report.snapshot import Snapshot
    from viprl.runs.following import FollowedRun
    from viprl.runs.reader import load_run

    console, followed = Console(highlight=False), FollowedRun(run)
    if once or not sys.stdout.isatty() or console.is_dumb_terminal:
        followed.read()
        if followed.run is None:
            load_run(run, prompts=False)  # says what is missing
            raise DataError(f"{run}: {followed.waits_for}")
        console.print(_view(Snapshot.of(followed.run), followed))
        return
    shown: list[RenderableType] = []
    with contextlib.suppress(KeyboardInterrupt):
        _follow(console, followed, every, shown)
    console.print(*shown[-1:])


def _follow(console: Console, followed: FollowedRun, every: float, shown: list[RenderableType]) -> None:
    """Show the run until it is finished. `shown` gets what is shown."""
    from rich.live import Live

    from viprl.report.snapshot import Snapshot
    from viprl.report.terminal import waiting

    snapshot, outdated, due = None, False, 0.0
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            finished = followed.finished  # before reading, so that no last row is missed
            outdated |= followed.read()
            now = time.monotonic()
            if followed.run is None:
                snapshot, shown[:] = None, [waiting(followed.waits_for, console.options.ascii_only)]
            elif outdated and (now >= due or finished):
                snapshot, outdated = Snapshot.of(followed.run), False
                due = time.monotonic() + 10 * (time.monotonic() - now)  # a long log costs time
            if snapshot is not None:
                shown[:] = [_view(snapshot, followed)]
            live.update(shown[0], refresh=True)
            if snapshot is not None and finished:
                return
            time.sleep(every)


def _view(snapshot: Snapshot, followed: FollowedRun) -> View:
    from viprl.report.terminal import View

    return View(snapshot, followed.age, followed.finished, followed.at_checkpoints)
