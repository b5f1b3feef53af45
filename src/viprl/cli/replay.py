"""`viprl replay`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from viprl.analysis.protocol import USUAL_BATCH
from viprl.cli.options import JsonFile, help_of, names
from viprl.strategies import STRATEGIES


class Loop(StrEnum):
    open = "open"
    closed = "closed"


class Spend(StrEnum):
    budget = "budget"
    match = "match"


class Cost(StrEnum):
    rollouts = "rollouts"
    tokens = "tokens"


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
        int | None,
        typer.Option(
            min=1,
            help="Prompts of a batch. The last batch is dropped if it is smaller. Default: as in the log, or "
            f"{USUAL_BATCH}.",
        ),
    ] = None,
    rollouts: Annotated[
        int | None, typer.Option(min=1, help="Budget of a batch: mean rollouts of a prompt. Default: as in the log.")
    ] = None,
    min_rollouts: Annotated[
        int | None, typer.Option(help=f"{help_of('min_rollouts')} Default: of the run, or of the logged groups.")
    ] = None,
    max_rollouts: Annotated[
        int | None, typer.Option(help=f"{help_of('max_rollouts')} Default: of the run, or of the logged groups.")
    ] = None,
    loop: Annotated[
        Loop,
        typer.Option(
            help="open: strategies learn from all logged outcomes. closed: they learn only from the rollouts that "
            "they allocate, drawn at the logged success rate or from the logged rewards."
        ),
    ] = Loop.open,
    features: Annotated[str, typer.Option(help=help_of("features"))] = "auto",
    visits: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of visits of each prompt to replay. Prompts with fewer are left out. Default: the number that "
            "replays most of the log.",
        ),
    ] = None,
    spend: Annotated[Spend, typer.Option(help=help_of("spend"))] = Spend.budget,
    variance_target: Annotated[float, typer.Option(help=help_of("variance_target"))] = 1.0,
    cost: Annotated[
        Cost, typer.Option(help=f"{help_of('cost')} The log must have lengths; their unit does not matter.")
    ] = Cost.rollouts,
    reward: Annotated[
        str | None,
        typer.Option(help="Reward column of verl's or TRL's logs: NAME, or NAME>=NUMBER for successes."),
    ] = None,
    success: Annotated[
        str | None,
        typer.Option(
            help="Replay successes in place of rewards. What counts as success: the smallest reward, NAME>=NUMBER or "
            "module:function. Default: the rewards as they are."
        ),
    ] = None,
    json: JsonFile = None,
    report: Annotated[Path | None, typer.Option(help="Write replay.html and its figures to this folder.")] = None,
) -> None:
    """Replay the logged outcomes of a run: how well would each strategy have predicted and allocated?"""
    from viprl.report.replay_command import run_replay

    protocol = {
        "batch_size": batch_size, "rollouts": rollouts, "min_rollouts": min_rollouts, "max_rollouts": max_rollouts,
        "visits": visits, "seeds": seeds, "closed": loop is Loop.closed,
        "spend": str(spend), "variance_target": variance_target, "cost": str(cost),
    }  # fmt: skip
    run_replay(
        file, names(strategies), protocol, features=features, reward=reward, success=success, json_file=json,
        report=report,
    )  # fmt: skip
