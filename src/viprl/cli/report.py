"""`viprl report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Run folders, output folders of TRL, log_paths of tinker-cookbook, or files of verl's logger `file`. "
            "Several are compared in one report."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="HTML file. Default: report.html in the first folder, or beside the first file.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Also write each figure into this folder, as PNG and SVG.")
    ] = None,
) -> None:
    """Draw the report of one or several runs: one HTML file that contains its figures."""
    from viprl.report.run_report import write_report
    from viprl.runs.files import REPORT_FILE

    folder = runs[0].parent if runs[0].is_file() else runs[0]
    typer.echo(f"report: {write_report(runs, out or folder / REPORT_FILE, figures)}")
    if figures is not None:
        typer.echo(f"figures: {figures}")
