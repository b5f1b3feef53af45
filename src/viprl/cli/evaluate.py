"""`viprl evaluate`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, Any

import typer

from viprl.cli.options import JsonFile, PromptColumn, SkipBadRows, SolutionColumn, Split, Subset, names
from viprl.errors import InputError, MissingPackageError

SAMPLING_ONLY = (
    "n", "temperature", "top_p", "max_new_tokens", "backend", "batch_size", "tensor_parallel", "tokenizer", "chat",
    "instruction",
)  # fmt: skip
"""Options that have no meaning for stored completions."""


def evaluate(
    context: typer.Context,
    generations: Annotated[
        Path | None, typer.Option(help="Score these completions: JSON lines with id, answer, completions.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Or sample from this model: a folder or Hub name.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Problems: a named set (aime24, math500, ...), a file, a folder or a Hub name.")
    ] = None,
    k: Annotated[str | None, typer.Option(help="Values, separated by commas. Default: 1, 2, 4, ... and n.")] = None,
    n: Annotated[int, typer.Option(help="Completions of a problem.")] = 32,
    out: Annotated[
        Path | None, typer.Option(help="Folder for samples, metrics and tables. A run found there is continued.")
    ] = None,
    json: JsonFile = None,
    verify: Annotated[
        str, typer.Option(help="math (last \\boxed{}), math_last_number, or exact_match (the whole text).")
    ] = "math",
    temperature: Annotated[float, typer.Option(help="Sampling temperature.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Nucleus sampling: total probability of the tokens kept.")] = 0.7,
    max_new_tokens: Annotated[int, typer.Option(help="Longest completion in tokens.")] = 3072,
    seed: Annotated[int, typer.Option(help="Seed of the samples and of the bootstrap intervals.")] = 0,
    backend: Annotated[str, typer.Option(help="vllm, transformers, or auto: vLLM if it is installed.")] = "auto",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Problems (vLLM) or completions (transformers) at a time.")
    ] = None,
    tensor_parallel: Annotated[int, typer.Option(min=1, help="GPUs of one model (vLLM).")] = 1,
    chat: Annotated[
        bool | None, typer.Option(help="Use the chat template of the model, or plain text. Default: if it has one.")
    ] = None,
    instruction: Annotated[
        str | None,
        typer.Option(help="Added to the question: none, boxed or a text. Default: boxed with --verify math."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first problems of the data set.")] = None,
    split: Split = None,
    subset: Subset = None,
    prompt_column: PromptColumn = None,
    solution_column: SolutionColumn = None,
    skip_bad_rows: SkipBadRows = False,
    tokenizer: Annotated[str | None, typer.Option(help="Folder or Hub name. Default: the model's.")] = None,
) -> None:
    """Pass@k, Mean@k and Maj@k with intervals, of a model on a data set or of stored completions."""
    if (generations is None) == (model is None):
        raise InputError("give either --generations FILE, or --model with --dataset and --out")
    source_of = context.get_parameter_source
    given = [name for name in SAMPLING_ONLY if getattr(source_of(name), "name", None) == "COMMANDLINE"]
    if generations is not None and given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(f"{options}: nothing is sampled with --generations; leave out the options of sampling")
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingPackageError('viprl evaluate needs pyarrow: pip install "viprl[eval]"')
    from rich.console import Console

    from viprl.data import DataSource
    from viprl.evaluate.evaluation import Plan, evaluate_generations, evaluate_model
    from viprl.evaluate.results import remarks, terminal_table, write_results
    from viprl.evaluate.sampling import Sampling
    from viprl.rewards.registry import MODES

    if verify not in MODES:
        raise InputError(f"--verify is {verify!r}; expected {', '.join(MODES)}")
    try:
        ks = None if k is None else [int(part) for part in names(k)]
    except ValueError:
        raise InputError(f"--k is {k!r}; expected whole numbers separated by commas, such as 1,8,32") from None
    source = None
    if dataset is not None:
        rows: dict[str, Any] = {"split": split, "subset": subset, "skip_bad_rows": skip_bad_rows}
        form: dict[str, Any] = {"instruction": instruction, "chat": chat}
        columns: dict[str, Any] = {"prompt_column": prompt_column, "solution_column": solution_column}
        source = DataSource(dataset, **rows, **form, **columns)
    settings: dict[str, Any] = {"dataset": dataset, "verify": verify, "seed": seed}
    if generations is not None:
        result = evaluate_generations(generations, ks, verify, data=source, limit=limit, seed=seed)
        settings |= {"generations": str(generations)}
    else:
        if source is None or out is None:
            raise InputError("--model needs --dataset, the problems, and --out, a folder for the samples")
        sampling = Sampling(n, temperature, top_p, max_new_tokens, seed)
        plan = Plan(str(model), source, sampling, limit, backend, batch_size, tensor_parallel, tokenizer)
        result = evaluate_model(plan, ks, verify, out)
        settings |= {"model": model, "temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens}
    write_results(result, settings, json, out)
    console = Console(soft_wrap=True)
    console.print(terminal_table(result))
    for line in remarks(result):
        console.print(line, highlight=False, markup=False)
    for place in (json, out):
        if place is not None:
            console.print(f"written: {place}", highlight=False, markup=False)
