"""`viprl train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from viprl.cli.interrupt import goes_on
from viprl.cli.naming import naming
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

        with goes_on(), naming(config):
            for name, words in check(run):
                typer.echo(f"{name:<12}{words}")
        typer.echo("configuration OK (model weights not loaded)")
        return
    with goes_on(lambda: _continuation(run)), naming(config):
        from viprl.train.training import train

        folder = train(run)
    typer.echo(f"finished: {folder}. Draw the report with `viprl report {folder}`.")


def _continuation(run: Any) -> str:
    """Where an interrupted run goes on."""
    from viprl.runs.resume import last_checkpoint

    checkpoint = last_checkpoint(Path(run.output_dir))
    if checkpoint is not None:
        return f"the same command continues from {checkpoint}"
    steps = run.trainer.get("save_steps", 500)
    return (
        f"there is no checkpoint yet, so the same command starts again; one is saved every {steps} steps (save_steps)"
    )
