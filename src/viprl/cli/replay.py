"""`viprl replay`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from viprl.cli.options import JsonFile, help_of, names
from viprl.strategies import STRATEGIES


class Loop(StrEnum):
    open = "open"
    closed = "closed"


def replay(
    file: Annotated[
        Path,
        typer.Argument(
            help="Log of a run: a run folder, a history file (.jsonl, .jsonl.gz or .parquet), verl's rollout_data_dir "
            "or TRL's completions folder."
        ),
    ],
    strategies: Annotated[
        str,
        typer.Option(help=f"Strategies to compare, separated by commas. Available: {', '.join(STRATEGIES)}."),
    ] = "default,paper,uniform",
    seeds: Annotated[int, typer.Option(min=1, help="Number of repetitions, with seeds 0 to N-1.")] = 3,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Prompts of a batch. The last batch is dropped if it is smaller.")
    ] = 64,
    rollouts: Annotated[int, typer.Option(min=1, help="Budget of a batch: mean rollouts of a prompt.")] = 8,
    min_rollouts: Annotated[int, typer.Option(help=help_of("min_rollouts"))] = 4,
    max_rollouts: Annotated[int, typer.Option(help=help_of("max_rollouts"))] = 16,
    loop: Annotated[
        Loop,
        typer.Option(
            help="open: strategies learn from all logged outcomes. closed: they learn only from the rollouts that "
            "they allocate, drawn at the logged success rate."
        ),
    ] = Loop.open,
    features: Annotated[str, typer.Option(help=help_of("features"))] = "auto",
    visits: Annotated[
        int, typer.Option(min=1, help="Number of visits of each prompt to replay. Prompts with fewer are left out.")
    ] = 40,
    reward: Annotated[
        str | None, typer.Option(help="Reward column of verl's or TRL's logs that decides about success.")
    ] = None,
    success: Annotated[
        float | None,
        typer.Option(help="Smallest reward that counts as success. Default: rewards must be 0/1 or -1/+1."),
    ] = None,
    json: JsonFile = None,
    report: Annotated[Path | None, typer.Option(help="Write replay.html and its figures to this folder.")] = None,
) -> None:
    """Replay the logged outcomes of a run: how well would each strategy have predicted and allocated?"""
    from viprl.analysis.replay import Protocol
    from viprl.report.replay_command import run_replay

    closed = loop is Loop.closed
    protocol = Protocol(batch_size, rollouts, min_rollouts, max_rollouts, visits, seeds, closed=closed)
    found = names(strategies)
    run_replay(file, found, protocol, features=features, reward=reward, success=success, json_file=json, report=report)
