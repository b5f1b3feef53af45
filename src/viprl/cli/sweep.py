"""`viprl sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from viprl.cli.interrupt import goes_on
from viprl.cli.naming import naming
from viprl.cli.options import DryRun, Overrides


def sweep(
    config: Annotated[Path, typer.Option(help="YAML file with base, arms, seeds and output_dir.")],
    set_: Overrides = None,
    dry_run: DryRun = False,
) -> None:
    """Train every arm with every seed, one run after the other, and compare the arms in one report.

    --set and --dry-run apply to every run. The same command continues an interrupted sweep.
    """
    from viprl.train.sweep import load_sweep
    from viprl.train.sweep_run import check_sweep, run_sweep

    plan = load_sweep(config, set_ or ())
    if dry_run:
        with naming(config):
            check_sweep(plan)
        return
    advice = "the same command continues the sweep: finished runs are kept, the others resume"
    with goes_on(lambda: advice), naming(config):
        if not run_sweep(plan):
            raise typer.Exit(1)
