"""`viprl report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders. Several are compared in one report.")],
    out: Annotated[Path | None, typer.Option(help="HTML file. Default: report.html in the first folder.")] = None,
) -> None:
    """Draw the report of one or several runs: one HTML file that contains its figures."""
    from viprl.report.run_report import write_report

    typer.echo(f"report: {write_report(runs, out or runs[0] / 'report.html')}")
