"""What `viprl evaluate` was asked, checked, and its answer in the terminal."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection
from pathlib import Path
from typing import Any

from rich.console import Console

SAMPLING_ONLY = (
    "n", "temperature", "top_p", "max_new_tokens", "backend", "batch_size", "tensor_parallel", "tokenizer", "chat",
    "instruction",
)  # fmt: skip
"""Options without a meaning for completions that are stored already."""


def run(
    *, generations: Path | None, model: str | None, dataset: str | None, k: str | None, n: int, out: Path | None,
    json: Path | None, verify: str, seed: int, limit: int | None, backend: str, batch_size: int | None,
    tensor_parallel: int, tokenizer: str | None, temperature: float, top_p: float, max_new_tokens: int,
    given: Collection[str] = (), **data: Any,
) -> None:  # fmt: skip
    """Score stored completions or a model, print the numbers and write what was asked for. `given` are the names of
    the options that the user set."""
    if (generations is None) == (model is None):
        raise ValueError("give either --generations FILE, or --model with --dataset and --out")
    if generations is not None and (idle := [name for name in SAMPLING_ONLY if name in given]):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
        raise ValueError(
            f"{options}: the completions of --generations are there already, so nothing is sampled; leave out what "
            "concerns sampling"
        )
    if importlib.util.find_spec("pyarrow") is None:
        raise ImportError('viprl evaluate needs pyarrow: pip install "viprl[eval]"')
    from viprl.data import DataSource
    from viprl.evaluate import evaluation
    from viprl.evaluate.sampling import Sampling
    from viprl.evaluate.tables import remarks, terminal_table
    from viprl.rewards.functions import MODES

    if verify not in MODES:
        raise ValueError(f"--verify is {verify!r}; expected {', '.join(MODES)}")
    ks = None if k is None else _numbers(k)
    spec = None if dataset is None else DataSource(dataset, **data)
    if generations is not None:
        result = evaluation.evaluate_generations(generations, ks, verify, data=spec, limit=limit, seed=seed)
        settings: dict[str, Any] = {"generations": str(generations)}
    else:
        if spec is None or out is None:
            raise ValueError("--model needs --dataset, whose problems it solves, and --out, a folder for the samples")
        sampling = Sampling(n, temperature, top_p, max_new_tokens, seed)
        plan = evaluation.Plan(str(model), spec, sampling, limit, backend, batch_size, tensor_parallel, tokenizer)
        result = evaluation.evaluate_model(plan, ks, verify, out)
        settings = {"model": model, "temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens}
    settings |= {"dataset": dataset, "verify": verify, "seed": seed}
    evaluation.write_results(result, settings, json, out)
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
        raise ValueError(f"--k is {text!r}; expected whole numbers separated by commas, such as 1,8,32") from None
