"""`viprl init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from viprl.cli.options import PromptColumn, SkipBadRows, SolutionColumn, Split, Subset


def init(
    file: Annotated[Path, typer.Argument(help="File to write.")] = Path("viprl.yaml"),
    model: Annotated[str, typer.Option(help="Folder or Hub name of a causal language model.")] = (
        "Qwen/Qwen2.5-0.5B-Instruct"
    ),
    dataset: Annotated[
        str, typer.Option(help="Named set, file, folder, Hub name or reasoning-gym:TASK. Local data are read.")
    ] = "gsm8k",
    reward: Annotated[
        str | None,
        typer.Option(help="A built-in reward or module:function. Default: what suits the answers of the data."),
    ] = None,
    output_dir: Annotated[
        str | None, typer.Option(help="The run folder. Default: runs/NAME for a file NAME.yaml.")
    ] = None,
    split: Split = None,
    subset: Subset = None,
    prompt_column: PromptColumn = None,
    solution_column: SolutionColumn = None,
    skip_bad_rows: SkipBadRows = False,
) -> None:
    """Write a small configuration of `viprl train` for your data and model, with comments."""
    from viprl.data import DataSource
    from viprl.train.starter import write_starter

    rows: dict[str, Any] = {"split": split, "subset": subset, "skip_bad_rows": skip_bad_rows}
    columns: dict[str, Any] = {"prompt_column": prompt_column, "solution_column": solution_column}
    folder = f"runs/{file.stem}" if output_dir is None else output_dir
    for note in write_starter(file, DataSource(dataset, **rows, **columns), model, folder, reward):
        typer.echo(note)
    typer.echo(f"written: {file}. Check it with `viprl train --config {file} --dry-run`.")
