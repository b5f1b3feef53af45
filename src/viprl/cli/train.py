"""`viprl train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from viprl.cli.options import DryRun, Overrides


def train(
    config: Annotated[
        Path, typer.Option(help="YAML file with model, dataset, reward, output_dir and any option of the trainer.")
    ],
    set_: Overrides = None,
    dry_run: DryRun = False,
) -> None:
    """Train a model. Every option of VIPRLOOConfig, or of VIPGRPOConfig with `algorithm: grpo`, is a key of the file.

    On several processes: `torchrun --nproc_per_node N -m viprl train --config FILE.yaml`.
    """
    from viprl.train.config import load_config

    run = load_config(config, set_ or ())
    if dry_run:
        from viprl.train.dry_run import dry_run as check

        for name, words in check(run):
            typer.echo(f"{name:<12}{words}")
        typer.echo("configuration OK (model weights not loaded)")
        return
    from viprl.train.training import train

    folder = train(run)
    typer.echo(f"finished: {folder}. Draw the report with `viprl report {folder}`.")
