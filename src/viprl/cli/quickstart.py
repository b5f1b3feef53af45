"""`viprl quickstart`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from viprl.cli.interrupt import goes_on
from viprl.cli.options import help_of, names


def quickstart(
    seeds: Annotated[int, typer.Option(min=1, help="Number of repetitions, with seeds 0 to N-1.")] = 1,
    out: Annotated[Path, typer.Option(help="Run folder. An interrupted quickstart in it is continued.")] = Path(
        "runs/quickstart"
    ),
    jobs: Annotated[int, typer.Option(min=1, help="Processes that run at the same time, one core each.")] = 2,
    shadow: Annotated[str, typer.Option(help=help_of("shadow") + " Names, separated by commas.")] = "",
) -> None:
    """Train a tiny language model on the CPU with adaptive and with uniform allocation and compare the two."""
    with goes_on(lambda: f"the same command continues the quickstart in {out}"):
        from viprl.quickstart.experiment import Experiment
        from viprl.quickstart.stages import run

        run(out, seeds=seeds, jobs=jobs, experiment=Experiment(shadow=tuple(names(shadow))))
