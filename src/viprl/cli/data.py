"""`viprl data show` and `viprl data verl`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from viprl.cli.options import (
    Chat,
    ChatTemplateKwargs,
    Duplicates,
    Instruction,
    PromptColumn,
    SkipBadRows,
    SolutionColumn,
    Split,
    Subset,
    template_options,
)

AnswerAfter = Annotated[
    str | None, typer.Option(help="The answer is the text after this mark in its column, such as ####.")
]

data = typer.Typer(help="Inspect a data set, or export it for verl.", no_args_is_help=True)


@data.command()
def show(
    source: Annotated[
        str | None,
        typer.Argument(
            help="Named set, file, folder, Hub name or reasoning-gym:TASK. Without it the named sets are listed."
        ),
    ] = None,
    split: Split = None,
    subset: Subset = None,
    prompt_column: PromptColumn = None,
    solution_column: SolutionColumn = None,
    answer_after: AnswerAfter = None,
    instruction: Instruction = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    chat: Chat = None,
    duplicates: Duplicates = None,
    skip_bad_rows: SkipBadRows = False,
    model: Annotated[
        str | None, typer.Option(help="Folder or Hub name of a model: show lengths in its tokens and its template.")
    ] = None,
    completion: Annotated[int, typer.Option(min=0, help="Tokens of the context reserved for the completion.")] = 0,
    chat_template_kwargs: ChatTemplateKwargs = None,
) -> None:
    """Show how a data set is read: columns, rows, duplicates, bad rows, lengths and two examples."""
    from rich.console import Console

    from viprl.data.show import show_data, show_names

    if source is None:
        show_names(Console())
        return
    from viprl.data.loading import DataSource

    columns = {"prompt_column": prompt_column, "solution_column": solution_column, "answer_after": answer_after}
    form = {"instruction": instruction, "system": system, "chat": chat}
    rows = {"split": split, "subset": subset, "duplicates": duplicates, "skip_bad_rows": skip_bad_rows}
    options: dict[str, Any] = columns | form | rows
    show_data(DataSource(source, **options), Console(), model, completion, template_options(chat_template_kwargs))


@data.command()
def verl(
    source: Annotated[str, typer.Argument(help="Named set, file, folder or Hub name.")],
    out: Annotated[Path, typer.Option(help="Parquet file for verl's data.train_files or data.val_files.")],
    split: Split = None,
    subset: Subset = None,
    prompt_column: PromptColumn = None,
    solution_column: SolutionColumn = None,
    answer_after: AnswerAfter = None,
    instruction: Instruction = "answer_line",
    data_source: Annotated[
        str,
        typer.Option(help="verl chooses its reward by this name; math_dapo reads a last line `Answer: ...`."),
    ] = "math_dapo",
    duplicates: Duplicates = "drop",
) -> None:
    """Write a data set in verl's format: prompt, reference answer and the name of verl's reward function."""
    from viprl.data.export import to_verl_rows, write_parquet
    from viprl.data.loading import DataSource, load
    from viprl.utils.words import visible

    columns: dict[str, Any] = {"prompt_column": prompt_column, "solution_column": solution_column}
    rows: dict[str, Any] = {"duplicates": duplicates, "skip_bad_rows": True, "answer_after": answer_after}
    loaded = load(DataSource(source, split=split, subset=subset, instruction=instruction, chat=True, **columns, **rows))
    for note in loaded.notes:
        typer.echo(visible(note))
    written = to_verl_rows(loaded.dataset, data_source=data_source)
    typer.echo(f"{write_parquet(out, written)}: {len(written):,} rows")
