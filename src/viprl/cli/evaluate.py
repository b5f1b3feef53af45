"""`viprl evaluate`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, Any

import typer

from viprl.cli.interrupt import goes_on
from viprl.cli.options import (
    PROMPTS,
    ChatTemplateKwargs,
    JsonFile,
    PromptColumn,
    SkipBadRows,
    SolutionColumn,
    Split,
    Subset,
    names,
    template_options,
)
from viprl.errors import InputError, MissingPackageError

SAMPLING_ONLY = (
    "n", "temperature", "top_p", "max_new_tokens", "backend", "batch_size", "tensor_parallel", "tokenizer", "chat",
    "instruction", "chat_template_kwargs",
)  # fmt: skip
"""Options that have no meaning for stored completions."""
WHAT, GRADING, SAMPLING, OUTPUT = "What to evaluate", "Grading", "Sampling", "Output"
"""Groups of options in the help."""


def evaluate(
    context: typer.Context,
    generations: Annotated[
        Path | None,
        typer.Option(help="Score these completions: JSON lines with id, answer, completions.", rich_help_panel=WHAT),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Or sample from this model: a run folder, a model folder or Hub name.", rich_help_panel=WHAT),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Problems: a named set (aime24, math500, ...), a file, a folder or a Hub name.", rich_help_panel=WHAT
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use only the first problems of the data set.", rich_help_panel=WHAT)
    ] = None,
    verify: Annotated[
        str | None,
        typer.Option(
            help="math (last \\boxed{}), math_last_number, exact_match (the whole text), or a reward function "
            "module:function. Default: the reward of the run that trained the model, otherwise math.",
            rich_help_panel=GRADING,
        ),
    ] = None,
    success: Annotated[
        str | None,
        typer.Option(
            help="For a reward function: the smallest reward that counts as success. Default: that of the run, "
            "otherwise rewards must be 0/1 or -1/+1.",
            rich_help_panel=GRADING,
        ),
    ] = None,
    k: Annotated[
        str | None,
        typer.Option(help="Values, separated by commas. Default: 1, 2, 4, ... and n.", rich_help_panel=GRADING),
    ] = None,
    n: Annotated[int, typer.Option(help="Completions of a problem.", rich_help_panel=SAMPLING)] = 32,
    temperature: Annotated[float, typer.Option(help="Sampling temperature.", rich_help_panel=SAMPLING)] = 1.0,
    top_p: Annotated[
        float, typer.Option(help="Nucleus sampling: total probability of the tokens kept.", rich_help_panel=SAMPLING)
    ] = 0.7,
    max_new_tokens: Annotated[int, typer.Option(help="Longest completion in tokens.", rich_help_panel=SAMPLING)] = 3072,
    seed: Annotated[
        int, typer.Option(help="Seed of the samples and of the bootstrap intervals.", rich_help_panel=SAMPLING)
    ] = 0,
    backend: Annotated[
        str, typer.Option(help="vllm, transformers, or auto: vLLM if it is installed.", rich_help_panel=SAMPLING)
    ] = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Problems (vLLM) or completions (transformers) at a time.", rich_help_panel=SAMPLING),
    ] = None,
    tensor_parallel: Annotated[
        int, typer.Option(min=1, help="GPUs of one model (vLLM).", rich_help_panel=SAMPLING)
    ] = 1,
    chat: Annotated[
        bool | None,
        typer.Option(
            help="Use the chat template of the model, or plain text. Default: if it has one.", rich_help_panel=PROMPTS
        ),
    ] = None,
    instruction: Annotated[
        str | None,
        typer.Option(
            help="Added to the question: none, boxed or a text. Default: boxed with --verify math.",
            rich_help_panel=PROMPTS,
        ),
    ] = None,
    chat_template_kwargs: ChatTemplateKwargs = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder or Hub name. Default: the model's.", rich_help_panel=PROMPTS)
    ] = None,
    split: Split = None,
    subset: Subset = None,
    prompt_column: PromptColumn = None,
    solution_column: SolutionColumn = None,
    skip_bad_rows: SkipBadRows = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for samples, metrics and tables. A run found there is continued.", rich_help_panel=OUTPUT
        ),
    ] = None,
    json: JsonFile = None,
) -> None:
    """Pass@k, Mean@k and Maj@k with intervals, of a model on a data set or of stored completions.

    For the model of a run, the reward and the form of the prompts are those of the run unless they are given.
    """
    if (generations is None) == (model is None):
        raise InputError("give either --generations FILE, or --model with --dataset and --out")
    source_of = context.get_parameter_source
    given = [name for name in SAMPLING_ONLY if getattr(source_of(name), "name", None) == "COMMANDLINE"]
    if generations is not None and given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(f"{options}: nothing is sampled with --generations; leave out the options of sampling")
    if model is not None and (dataset is None or out is None):
        raise InputError("--model needs --dataset, the problems, and --out, a folder for the samples")
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingPackageError('viprl evaluate needs pyarrow: pip install "viprl[eval]"')
    from rich.console import Console

    from viprl.data import DataSource
    from viprl.evaluate.evaluation import Plan, evaluate_generations, evaluate_model
    from viprl.evaluate.judge import chosen_judge
    from viprl.evaluate.of_run import Trained, trained
    from viprl.evaluate.results import remarks, terminal_table, write_results
    from viprl.evaluate.sampling import Sampling
    from viprl.utils.words import visible

    run = Trained("") if model is None else trained(model)
    own = run.form() if verify in (None, *run.rewards()) else {}
    given_verify = verify
    verify, success = run.judged_by(verify, success)
    try:
        chosen_judge(verify, success)
    except InputError as error:
        if given_verify is not None or run.run is None:
            raise
        where = f"the reward of the run in {run.run}"
        raise InputError(f"{where}: {error}; start in the folder of its module, or set --verify") from error
    try:
        ks = None if k is None else [int(part) for part in names(k)]
    except ValueError:
        raise InputError(f"--k is {k!r}; expected whole numbers separated by commas, such as 1,8,32") from None
    source = None
    if dataset is not None:
        rows: dict[str, Any] = {"split": split, "subset": subset, "skip_bad_rows": skip_bad_rows}
        asked = {"instruction": instruction, "chat": chat}
        form: dict[str, Any] = own | {name: value for name, value in asked.items() if value is not None}
        columns: dict[str, Any] = {"prompt_column": prompt_column, "solution_column": solution_column}
        source = DataSource(dataset, **rows, **form, **columns)
    settings: dict[str, Any] = {"dataset": dataset, "verify": verify, "seed": seed}
    if success is not None:
        settings["success"] = success
    if generations is not None:
        result = evaluate_generations(generations, ks, verify, data=source, limit=limit, seed=seed, success=success)
        settings |= {"generations": str(generations)}
    else:
        assert source is not None and out is not None  # checked above
        template = run.template_options if chat_template_kwargs is None else template_options(chat_template_kwargs)
        sampling = Sampling(n, temperature, top_p, max_new_tokens, seed)
        plan = Plan(run.model, source, sampling, limit, backend, batch_size, tensor_parallel, tokenizer, template)
        with goes_on(lambda: f"the samples so far are in {out}; the same command continues"):
            result = evaluate_model(plan, ks, verify, out, success=success)
        settings |= {"model": run.model, "temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens}
        if template:
            settings["chat_template_kwargs"] = template
    write_results(result, settings, json, out)
    console = Console(soft_wrap=True)
    console.print(terminal_table(result))
    for line in remarks(result):
        console.print(visible(line), highlight=False, markup=False)
    for place in (json, out):
        if place is not None:
            console.print(f"written: {place}", highlight=False, markup=False)
