"""The command line: `viprl quickstart | train | report`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(
    help="Adaptive rollout allocation for reinforcement learning with verifiable rewards.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
errors = Console(stderr=True, soft_wrap=True)


@app.command()
def quickstart(
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions: seeds 0 to N-1.")] = 1,
    out: Annotated[Path, typer.Option(help="Run folder; an interrupted run in it is resumed.")] = Path(
        "runs/quickstart"
    ),
    jobs: Annotated[int, typer.Option(min=1, help="Trainings side by side, one core each.")] = 2,
) -> None:
    """Train a tiny language model with adaptive and with uniform allocation, measure the gradient variance, report."""
    from viprl.quickstart.run import run

    run(out, seeds=seeds, jobs=jobs)


@app.command()
def train(
    config: Annotated[
        Path, typer.Option(help="YAML file: model, dataset, reward, output_dir, and any trainer option.")
    ],
    check: Annotated[bool, typer.Option("--check", help="Check configuration and data, then stop.")] = False,
) -> None:
    """Train your own model on your own data; every option of VIPRLOOConfig or VIPGRPOConfig is a key of the file.

    Run on several processes with `torchrun --nproc_per_node N -m viprl train --config FILE.yaml`.
    """
    from viprl.train.config import load_config

    settings = load_config(config)
    from viprl.train import run as training

    if check:
        training.prepare(settings)
        typer.echo(f"{config}: model, data and budget are in order as far as can be told without loading the model")
        return
    folder = training.train(settings)
    typer.echo(f"done: {folder}; `viprl report {folder}` draws it")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; several are shown side by side.")],
    out: Annotated[Path | None, typer.Option(help="HTML file. Default: report.html in the first folder.")] = None,
) -> None:
    """Draw the report of one run or several: one HTML file that needs nothing else."""
    from viprl.lab.report import write_report

    path = write_report(runs, out or runs[0] / "report.html")
    typer.echo(f"report: {path}")


def main() -> None:
    """Entry point: what a user can mend is one line, not a traceback."""
    try:
        app()
    except (ValueError, ImportError, OSError) as error:
        if isinstance(error, ImportError) and "viprl[" not in str(error):
            raise
        errors.print(f"[red]error:[/red] {_plain(error)}", highlight=False)
        sys.exit(2)


def _plain(error: Exception) -> str:
    from rich.markup import escape

    return escape(str(error))
