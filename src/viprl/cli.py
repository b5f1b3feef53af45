"""The command line: `viprl quickstart | train | replay | report`."""

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
    also: Annotated[str, typer.Option(help="Further strategies to measure in shadow, separated by commas.")] = "",
) -> None:
    """Train a tiny language model with adaptive and with uniform allocation, measure the gradient variance, report."""
    from viprl.quickstart.run import run
    from viprl.quickstart.settings import Settings

    run(out, seeds=seeds, jobs=jobs, settings=Settings(also=tuple(name for name in also.split(",") if name)))


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


@app.command()
def replay(
    file: Annotated[
        Path,
        typer.Argument(
            help="Trajectories (.jsonl[.gz], .parquet), a run folder, verl's rollout_data_dir or TRL's completions."
        ),
    ],
    strategies: Annotated[str, typer.Option(help="Presets, separated by commas.")] = "default,paper,uniform",
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions: seeds 0 to N-1.")] = 3,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts of a batch; a short last batch is dropped.")] = 64,
    rollouts: Annotated[int, typer.Option(min=1, help="Budget: rollouts of a prompt on average.")] = 8,
    low: Annotated[int, typer.Option(help="Fewest rollouts of a prompt.")] = 4,
    high: Annotated[int, typer.Option(help="Most rollouts of a prompt.")] = 16,
    loop: Annotated[
        str, typer.Option(help="open: all logged outcomes are observed; closed: only allocated rollouts, drawn.")
    ] = "open",
    features: Annotated[
        str, typer.Option(help="auto, none, minilm, length, minilm+length, or a model's folder.")
    ] = "auto",
    visits: Annotated[int, typer.Option(min=1, help="Replay that many visits of the prompts that have them.")] = 40,
    reward: Annotated[str | None, typer.Option(help="Reward column of verl or TRL logs that decides.")] = None,
    success: Annotated[
        float | None, typer.Option(help="Success is a reward of at least this; else 0/1, -1/+1.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write all numbers to this JSON file.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write replay.html and its figures into this folder.")] = None,
) -> None:
    """Replay the logged outcomes of a run: how well would each strategy have predicted and allocated?"""
    from viprl.lab.replay import Protocol
    from viprl.lab.replay_report import run

    if loop not in ("open", "closed"):
        raise ValueError(f"--loop is {loop!r}; expected open or closed")
    names = [name.strip() for name in strategies.split(",") if name.strip()]
    protocol = Protocol(batch_size, rollouts, low, high, visits, seeds, closed=loop == "closed")
    run(
        file, names, protocol, features=features, reward=reward, success=success, json_file=json, report=report
    )  # fmt: skip


def main() -> None:
    """Entry point: what a user can mend is one line, not a traceback."""
    try:
        app()
    except KeyboardInterrupt:
        errors.print("interrupted; the same command goes on from the last checkpoint")
        sys.exit(130)
    except (ValueError, ImportError, OSError) as error:
        if isinstance(error, ImportError) and "viprl[" not in str(error):
            raise
        errors.print(f"[red]error:[/red] {_plain(error)}", highlight=False)
        sys.exit(2)


def _plain(error: Exception) -> str:
    from rich.markup import escape

    return escape(str(error))
