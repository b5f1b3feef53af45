"""The command line: `viprl quickstart | train | sweep | data | evaluate | replay | report`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from viprl.errors import InputError

app = typer.Typer(
    help="Adaptive rollout allocation for reinforcement learning with verifiable rewards.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data = typer.Typer(help="Look at data sets.", no_args_is_help=True)
app.add_typer(data, name="data")
errors = Console(stderr=True, soft_wrap=True)
_SET = "key=value on top of the file; may be given several times. The value is YAML, a dot goes into a mapping."


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
    from viprl.quickstart.scale import Settings
    from viprl.quickstart.stages import run

    run(out, seeds=seeds, jobs=jobs, settings=Settings(also=tuple(name for name in also.split(",") if name)))


@app.command()
def train(
    config: Annotated[
        Path, typer.Option(help="YAML file: model, dataset, reward, output_dir, and any trainer option.")
    ],
    set_: Annotated[list[str] | None, typer.Option("--set", help=_SET)] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, data included, without weights or GPU, then stop.")
    ] = False,
) -> None:
    """Train your own model on your own data; every option of VIPRLOOConfig or VIPGRPOConfig is a key of the file.

    Run on several processes with `torchrun --nproc_per_node N -m viprl train --config FILE.yaml`.
    """
    from viprl.train.config import load_config

    settings = load_config(config, set_ or ())
    from viprl.train import training

    if dry_run:
        for name, words in training.dry_run(settings):
            typer.echo(f"{name:<12}{words}")
        typer.echo(f"{config}: everything that can be told without the model's weights is in order")
        return
    folder = training.train(settings)
    typer.echo(f"done: {folder}; `viprl report {folder}` draws it")


@app.command()
def sweep(
    config: Annotated[Path, typer.Option(help="YAML file: base, arms, seeds, output_dir.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help=_SET + " It goes into every run.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check every arm without weights or GPU, then stop.")
    ] = False,
) -> None:
    """Train arms x seeds one after the other and compare them in one report; the same command goes on where it was."""
    from viprl.train.sweep import load_sweep
    from viprl.train.sweep_run import check_sweep, run_sweep

    plan = load_sweep(config, set_ or ())
    if dry_run:
        check_sweep(plan)
    elif not run_sweep(plan):
        sys.exit(1)


@data.command()
def show(
    source: Annotated[
        str | None,
        typer.Argument(help="Named set, file, folder, hub name or reasoning-gym:TASK; none: list the names."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of a hub or saved data set.")] = None,
    subset: Annotated[str | None, typer.Option(help="Configuration of a hub data set.")] = None,
    prompt_column: Annotated[str | None, typer.Option(help="Column of the prompt; dots go into structs.")] = None,
    solution_column: Annotated[str | None, typer.Option(help="Column of the answer.")] = None,
    answer_after: Annotated[
        str | None, typer.Option(help="The answer is what follows this mark, such as ####.")
    ] = None,
    instruction: Annotated[str | None, typer.Option(help="boxed, answer_line, answer_tags, none, or a text.")] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    chat: Annotated[bool | None, typer.Option(help="Through the chat template, or plain text.")] = None,
    duplicates: Annotated[str | None, typer.Option(help="keep or drop.")] = None,
    skip_bad_rows: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Training will leave bad and overlong rows out.")
    ] = False,
    model: Annotated[str | None, typer.Option(help="Folder or hub name: lengths in its tokens, its template.")] = None,
    completion: Annotated[int, typer.Option(min=0, help="Tokens that a completion may take of the context.")] = 0,
) -> None:
    """Print what was understood of a data set: columns, rows, duplicates, bad rows, lengths, two examples."""
    from viprl.data.show import show_data, show_names

    console = Console()
    if source is None:
        show_names(console)
        return
    from viprl.data.loading import DataSource

    spec = DataSource(
        source,
        split=split,
        subset=subset,
        prompt_column=prompt_column,
        solution_column=solution_column,
        answer_after=answer_after,
        instruction=instruction,
        system=system,
        chat=chat,
        duplicates=duplicates,
        skip_bad_rows=skip_bad_rows,
    )
    show_data(spec, console, model, completion)


@data.command()
def verl(
    source: Annotated[str, typer.Argument(help="Named set, file, folder or hub name, as for `data show`.")],
    out: Annotated[Path, typer.Option(help="Parquet file for verl's data.train_files or data.val_files.")],
    split: Annotated[str | None, typer.Option(help="Split of a hub or saved data set.")] = None,
    instruction: Annotated[str, typer.Option(help="boxed, answer_line, answer_tags, none, or a text.")] = "answer_line",
    data_source: Annotated[
        str, typer.Option(help="Name by which verl chooses its reward; math_dapo reads a last line `Answer: ...`.")
    ] = "math_dapo",
    duplicates: Annotated[str, typer.Option(help="keep or drop.")] = "drop",
) -> None:
    """Write a data set as verl reads it: prompt, reference answer and the name of verl's reward function."""
    from viprl.data.export import to_verl_rows, write_parquet
    from viprl.data.loading import DataSource, load

    loaded = load(
        DataSource(source, split, instruction=instruction, chat=True, duplicates=duplicates, skip_bad_rows=True)
    )
    for note in loaded.notes:
        typer.echo(note)
    rows = to_verl_rows(loaded.dataset, data_source=data_source)
    typer.echo(f"{write_parquet(out, rows)}: {len(rows):,} rows")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; several are shown side by side.")],
    out: Annotated[Path | None, typer.Option(help="HTML file. Default: report.html in the first folder.")] = None,
) -> None:
    """Draw the report of one run or several: one HTML file that needs nothing else."""
    from viprl.report.run_report import write_report

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
    min_rollouts: Annotated[int, typer.Option(help="Fewest rollouts of a prompt.")] = 4,
    max_rollouts: Annotated[int, typer.Option(help="Most rollouts of a prompt.")] = 16,
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
    from viprl.analysis.replay import Protocol
    from viprl.report.replay_command import run_replay

    if loop not in ("open", "closed"):
        raise InputError(f"--loop is {loop!r}; expected open or closed")
    names = [name.strip() for name in strategies.split(",") if name.strip()]
    protocol = Protocol(batch_size, rollouts, min_rollouts, max_rollouts, visits, seeds, closed=loop == "closed")
    run_replay(
        file, names, protocol, features=features, reward=reward, success=success, json_file=json, report=report
    )  # fmt: skip


@app.command()
def evaluate(
    context: typer.Context,
    generations: Annotated[
        Path | None, typer.Option(help="Score this file of completions: JSON lines with id, answer, completions.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Or sample from this model: a folder or hub name.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Problems: a named set (aime24, math500, ...), a file, a folder or hub name.")
    ] = None,
    k: Annotated[str | None, typer.Option(help="Separated by commas. Default: 1, 2, 4, ... and n.")] = None,
    n: Annotated[int, typer.Option(help="Completions a problem.")] = 32,
    out: Annotated[
        Path | None, typer.Option(help="Folder for samples, metrics and tables; a run found there is resumed.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the metrics to this JSON file.")] = None,
    verify: Annotated[
        str, typer.Option(help="math (last \\boxed{}), math_last_number, or exact_match (the whole text).")
    ] = "math",
    temperature: Annotated[float, typer.Option(help="Of sampling.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Of sampling.")] = 0.7,
    max_new_tokens: Annotated[int, typer.Option(help="Longest completion.")] = 3072,
    seed: Annotated[int, typer.Option(help="Of sampling and of the intervals.")] = 0,
    backend: Annotated[str, typer.Option(help="vllm, transformers, or auto: vLLM where it is installed.")] = "auto",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Problems at once (vLLM), completions at once (transformers).")
    ] = None,
    tensor_parallel: Annotated[int, typer.Option(min=1, help="GPUs for one model (vLLM).")] = 1,
    chat: Annotated[bool | None, typer.Option(help="Chat template or plain text. Default: as the model is.")] = None,
    instruction: Annotated[
        str | None, typer.Option(help="none, boxed or a text below the question. Default: boxed with --verify math.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first problems of the dataset.")] = None,
    split: Annotated[str | None, typer.Option(help="Of a hub dataset.")] = None,
    subset: Annotated[str | None, typer.Option(help="Of a hub dataset.")] = None,
    prompt_column: Annotated[str | None, typer.Option(help="Column of the question.")] = None,
    solution_column: Annotated[str | None, typer.Option(help="Column of the answer.")] = None,
    skip_bad_rows: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Leave bad rows of the dataset out and say which.")
    ] = False,
    tokenizer: Annotated[str | None, typer.Option(help="Folder or hub name. Default: the model's.")] = None,
) -> None:
    """Pass@k, Mean@k and Maj@k with intervals: of a model on a dataset, or of completions that are stored already."""
    asked = {name: value for name, value in locals().items() if name != "context"}
    from viprl.evaluate.command import run

    set_here = {name for name in asked if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"}
    run(**asked, given=set_here)


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
