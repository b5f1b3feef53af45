"""The command `viprl evaluate`: its options checked, its results written and printed."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection
from pathlib import Path
from typing import Any

from rich.console import Console

from viprl.errors import InputError, MissingPackageError

SAMPLING_ONLY = (
    "n", "temperature", "top_p", "max_new_tokens", "backend", "batch_size", "tensor_parallel", "tokenizer", "chat",
    "instruction",
)  # fmt: skip
"""Options without a meaning for completions that exist already."""


def run(
    *, generations: Path | None, model: str | None, dataset: str | None, k: str | None, n: int, out: Path | None,
    json: Path | None, verify: str, seed: int, limit: int | None, backend: str, batch_size: int | None,
    tensor_parallel: int, tokenizer: str | None, temperature: float, top_p: float, max_new_tokens: int,
    given: Collection[str] = (), **data: Any,
) -> None:  # fmt: skip
    """Score a model or a file of completions; print the metrics and write them to `json` and `out`.

    The arguments are the options of the command, of the same names. `data` holds the options of `DataSource`, and
    `given` the names of the options that the user set.

    Raises InputError for options that contradict each other, and what `evaluate_model` and `evaluate_generations`
    raise.
    """
    if (generations is None) == (model is None):
        raise InputError("set either --generations, or --model with --dataset and --out")
    if generations is not None and (idle := [name for name in SAMPLING_ONLY if name in given]):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
        raise InputError(f"{options}: nothing is sampled with --generations; remove the options of sampling")
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingPackageError('viprl evaluate needs pyarrow: pip install "viprl[eval]"')
    from viprl.data import DataSource
    from viprl.evaluate.evaluation import Plan, evaluate_generations, evaluate_model
    from viprl.evaluate.results import remarks, terminal_table, write_results
    from viprl.evaluate.sampling import Sampling
    from viprl.rewards.registry import MODES

    if verify not in MODES:
        raise InputError(f"--verify is {verify!r}; expected {', '.join(MODES)}")
    ks = None if k is None else _numbers(k)
    source = None if dataset is None else DataSource(dataset, **data)
    if generations is not None:
        result = evaluate_generations(generations, ks, verify, data=source, limit=limit, seed=seed)
        settings: dict[str, Any] = {"generations": str(generations)}
    else:
        if source is None or out is None:
            raise InputError("--model needs --dataset (the problems) and --out (a folder for the samples)")
        sampling = Sampling(n, temperature, top_p, max_new_tokens, seed)
        plan = Plan(str(model), source, sampling, limit, backend, batch_size, tensor_parallel, tokenizer)
        result = evaluate_model(plan, ks, verify, out)
        settings = {"model": model, "temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens}
    settings |= {"dataset": dataset, "verify": verify, "seed": seed}
    write_results(result, settings, json, out)
    console = Console(soft_wrap=True)
    console.print(terminal_table(result))
    for line in remarks(result):
        console.print(line, highlight=False, markup=False)
    for place in (json, out):
        if place is not None:
            console.print(f"written: {place}", highlight=False, markup=False)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise InputError(f"--k is {text!r}; expected whole numbers separated by commas, such as 1,8,32") from None
