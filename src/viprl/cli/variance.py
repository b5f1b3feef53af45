"""`viprl variance`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from viprl.cli.options import (
    Chat,
    ChatTemplateKwargs,
    Instruction,
    JsonFile,
    PromptColumn,
    SkipBadRows,
    SolutionColumn,
    Split,
    Subset,
    help_of,
    names,
    template_options,
)
from viprl.errors import InputError

WHAT, MEASUREMENT, STEP = "What to measure", "Measurement", "Training step"
"""Groups of options in the help."""


def variance(
    model: Annotated[str, typer.Option(help="Policy: a run folder, a model folder or Hub name.", rich_help_panel=WHAT)],
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Prompts with answers: a named set, a file, a folder or a Hub name. Default: those of the run.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(
            help="exact_match, math, math_last_number or module:function; several separated by commas are added. "
            "Default: that of the run, otherwise exact_match.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    prompts: Annotated[
        int, typer.Option(help="Prompts to measure, drawn at random from the data set.", rich_help_panel=MEASUREMENT)
    ] = 64,
    rollouts: Annotated[int, typer.Option(help="Rollouts of a prompt; at least 4.", rich_help_panel=MEASUREMENT)] = 16,
    further_rollouts: Annotated[
        int,
        typer.Option(
            help="Further rollouts of a prompt, from which the best designs know how much its reward varies.",
            rich_help_panel=MEASUREMENT,
        ),
    ] = 64,
    temperature: Annotated[
        float | None,
        typer.Option(help="Sampling temperature. Default: that of the run, or 1.", rich_help_panel=MEASUREMENT),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            help="Longest completion in tokens. Default: that of the run, or 256.", rich_help_panel=MEASUREMENT
        ),
    ] = None,
    sketch: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Numbers to which a gradient is reduced by a random projection; 0 keeps it whole. Default: 4093, or "
            "whole for small models.",
            rich_help_panel=MEASUREMENT,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Completions to sample at a time. Default: all.", rich_help_panel=MEASUREMENT),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.", rich_help_panel=MEASUREMENT)] = 0,
    step_prompts: Annotated[
        int | None,
        typer.Option(min=1, help="Prompts of a step. Default: that of the run, or 32.", rich_help_panel=STEP),
    ] = None,
    step_rollouts: Annotated[
        int | None,
        typer.Option(
            min=2, help="Rollouts of a step. Default: that of the run, or 8 for each prompt.", rich_help_panel=STEP
        ),
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option(
            min=1, help="Prompts that a selection chooses from. Default: 2 for each of a step.", rich_help_panel=STEP
        ),
    ] = None,
    min_rollouts: Annotated[int | None, typer.Option(min=2, help=help_of("min_rollouts"), rich_help_panel=STEP)] = None,
    max_rollouts: Annotated[int | None, typer.Option(min=2, help=help_of("max_rollouts"), rich_help_panel=STEP)] = None,
    chat: Chat = None,
    instruction: Instruction = None,
    chat_template_kwargs: ChatTemplateKwargs = None,
    split: Split = None,
    subset: Subset = None,
    prompt_column: PromptColumn = None,
    solution_column: SolutionColumn = None,
    skip_bad_rows: SkipBadRows = False,
    json: JsonFile = None,
) -> None:
    """How much noise the gradient of a training step has, where it comes from, and what counts and selection can save.

    Samples rollouts of some prompts at a fixed policy and measures their gradients. For a run folder, everything that
    is not given is that of the run.
    """
    import json as json_text

    from rich.console import Console

    from viprl.evaluate.gradients import measure
    from viprl.evaluate.variance_run import planned, run_designs
    from viprl.evaluate.variance_table import designs_table, document, parts_table, remarks, sentences
    from viprl.utils.files import make_folder, write_text

    form = {"instruction": instruction, "chat": chat, "prompt_column": prompt_column}
    form |= {"solution_column": solution_column, "split": split, "subset": subset}
    form |= {"skip_bad_rows": skip_bad_rows or None}
    sampling: dict[str, Any] = {"prompts": prompts, "rollouts": rollouts, "further": further_rollouts, "seed": seed}
    sampling |= {"batch_size": batch_size, "buckets": sketch}
    sampling |= {"temperature": temperature, "max_new_tokens": max_new_tokens}
    if chat_template_kwargs is not None:
        sampling["template_options"] = template_options(chat_template_kwargs)
    step = {"prompts": step_prompts, "budget": step_rollouts, "candidates": candidates}
    step |= {"min_rollouts": min_rollouts, "max_rollouts": max_rollouts}
    if reward is not None and not names(reward):
        raise InputError("--reward is empty; name at least one, such as exact_match")
    plan = planned(model, dataset, None if reward is None else names(reward), form, sampling, step)
    found = measure(plan.subject)
    outcomes, step_of = run_designs(plan, found)
    console = Console(soft_wrap=True)
    console.print(parts_table(outcomes[0]), designs_table(outcomes), sep="\n")
    for line in (*sentences(outcomes), *remarks(found, step_of)):
        console.print(line, highlight=False, markup=False)
    if json is not None:
        make_folder(json.parent)
        settings = {
            "model": plan.subject.model,
            "dataset": plan.subject.data.name,
            "reward": list(plan.subject.rewards),
        }
        settings |= {key: getattr(plan.subject, key) for key in ("temperature", "max_new_tokens", "seed")}
        text = json_text.dumps(document(outcomes, step_of, found, settings), indent=1, allow_nan=False)
        write_text(json, text + "\n")
        console.print(f"written: {json}", highlight=False, markup=False)
