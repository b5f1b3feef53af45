"""`viprl doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def doctor(
    run: Annotated[Path, typer.Argument(help="Run folder, or an output folder of TRL.")],
    strategy: Annotated[str | None, typer.Option(help="Only this strategy of the run. Default: all.")] = None,
) -> None:
    """Say what stands out in a run, and what to do about it. Exit code 1 if there is a problem."""
    from viprl.errors import InputError
    from viprl.report.diagnosis import PROBLEM, diagnose
    from viprl.runs.reader import load_run
    from viprl.utils.words import count

    found = load_run(run)
    if strategy is not None and strategy not in found.strategies:
        raise InputError(f"--strategy is {strategy!r}; the run has {', '.join(found.strategies) or 'none'}")
    problems = 0
    for name in found.strategies if strategy is None else (strategy,):
        typer.echo(name)
        for one in diagnose(found, name):
            problems += one.level == PROBLEM
            typer.echo(f"  {one.level:8} {one.name}: {one.sentence}")
            if one.remedy:
                typer.echo(f"           -> {one.remedy}")
    for note in found.notes:
        typer.echo(f"log: {note}")
    typer.echo(f"{count(problems, 'problem')}")
    raise typer.Exit(1 if problems else 0)
