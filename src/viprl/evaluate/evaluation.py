"""`viprl evaluate`: sample where samples are missing, grade, estimate, write."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from viprl.data import DataSource
from viprl.data.lengths import context_of, load_model_config, load_tokenizer
from viprl.evaluate import problems as reading
from viprl.evaluate.generations import Generations, Store, check_same_problems, read_generations
from viprl.evaluate.grading import Graded, Scores, check_ks, grade, scores
from viprl.evaluate.sampling import Sampler, Sampling, choose_backend, transformers_sampler, vllm_sampler
from viprl.evaluate.tables import write_tables
from viprl.rewards.functions import MODES, require
from viprl.runs.run_log import only_writer
from viprl.utils.files import write_text

console = Console(stderr=True, soft_wrap=True)

SAMPLES_FILE, SETTINGS_FILE, METRICS_FILE = "samples.jsonl", "settings.json", "metrics.json"
GRADED_AT_ONCE = 64
"""Problems between two updates of the progress bar."""


@dataclass(frozen=True)
class Plan:
    """What a model is asked, and how. None: by the model and the data."""

    model: str
    data: DataSource
    sampling: Sampling
    limit: int | None = None
    backend: str = "auto"
    batch_size: int | None = None
    """Problems at once with vLLM (64), completions of one problem with transformers (all n)."""
    tensor_parallel: int = 1
    tokenizer: str | None = None


def evaluate_generations(
    file: Path,
    ks: Sequence[int] | None,
    verify: str,
    *,
    data: DataSource | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Scores:
    """Score a file of completions; with `data`, only if it is that dataset's. Raises ValueError for what cannot be
    scored: see `read_generations`, `check_same_problems`, `check_ks`."""
    require(verify)
    found = read_generations(file)
    chosen = ks or usual_ks(len(found[0].completions))
    check_ks(chosen, len(found[0].completions))
    if data is not None:
        answers = {problem.id: problem.answer for problem in reading.load_problems(data, limit)}
        check_same_problems(found, answers, str(file), data.source)
    elif limit is not None:
        raise ValueError("--limit takes the first problems of a dataset; name it with --dataset")
    return scores(_graded(found, verify), chosen, seed)


def evaluate_model(plan: Plan, ks: Sequence[int] | None, verify: str, out: Path) -> Scores:
    """Sample n completions of each problem into `out` and score them; a run found there is resumed.

    Everything that can be wrong with model, data and numbers is refused (ValueError) before weights are loaded.
    """
    require(verify)
    chosen = ks or usual_ks(plan.sampling.n)
    check_ks(chosen, plan.sampling.n)
    backend = choose_backend(plan.backend)
    tokenizer = load_tokenizer(plan.tokenizer or plan.model)
    spec = reading.format_for(plan.data, tokenizer, verify == "math")
    asked = reading.load_problems(spec, plan.limit)
    tasks = reading.tokenized(asked, tokenizer, plan.model)
    context = context_of(load_model_config(plan.model))
    reading.check_fit(tasks, context, plan.sampling.max_new_tokens, plan.model)
    settings = asdict(plan.sampling) | {
        "model": plan.model, "weights": _weights(Path(plan.model)), "dataset": plan.data.source, "limit": plan.limit,
        "backend": backend, "prompts": _digest(tasks),
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    with only_writer(out):
        _claim(out, settings)
        store = Store(out / SAMPLES_FILE)
        missing = [task for task in tasks if task.id not in store.found]
        how = "plain text" if isinstance(asked[0].prompt, str) else "chat template"
        console.print(
            f"{len(tasks)} problems, {plan.sampling.n} completions each; prompts: {how}, instruction: "
            f"{spec.instruction or 'none'}; {backend}"
            + (f"; {len(store.found)} problems are there already" if store.found else ""),
            highlight=False,
        )
        if missing:
            longest = max(len(task.tokens) for task in tasks) + plan.sampling.max_new_tokens
            _sample(_sampler(plan, backend, tokenizer, longest), missing, store, len(tasks))
        found = [store.found[task.id] for task in tasks]
    return scores(_graded(found, verify), chosen, plan.sampling.seed)


def usual_ks(n: int) -> tuple[int, ...]:
    """1, 2, 4, ... and n."""
    return tuple(sorted({*(2**i for i in range(n.bit_length())), n}))


def write_results(result: Scores, settings: dict[str, Any], json_file: Path | None, out: Path | None) -> None:
    """The metrics as JSON to `json_file`; to the folder `out` the same and the table of problems, as JSON lines and
    parquet."""
    metrics = {
        name: {str(k): asdict(estimate) for k, estimate in by_k.items()} for name, by_k in result.metrics.items()
    }
    document: dict[str, Any] = {
        **metrics, "problems": result.problems, "unscorable": result.unscorable,
        "settings": {"n": result.n, **settings},
    }  # fmt: skip
    text = json.dumps(document, indent=1, ensure_ascii=True, allow_nan=False) + "\n"
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        write_text(json_file, text)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / METRICS_FILE, text)
        write_tables(result.problems, out)


def _sampler(plan: Plan, backend: str, tokenizer: Any, longest: int) -> Sampler:
    if backend == "vllm":
        return vllm_sampler(
            plan.model, tokenizer, plan.sampling, context=longest, batch_size=plan.batch_size or 64,
            tensor_parallel=plan.tensor_parallel,
        )  # fmt: skip
    return transformers_sampler(plan.model, tokenizer, plan.sampling, batch_size=plan.batch_size or plan.sampling.n)


def _sample(sampler: Sampler, missing: Sequence[reading.Task], store: Store, total: int) -> None:
    with _progress() as bar:
        row = bar.add_task("sampling", total=total, completed=len(store.found))
        for problem in sampler(missing):
            store.append(problem)
            bar.advance(row)


def _graded(found: Sequence[Generations], verify: str) -> list[Graded]:
    graded: list[Graded] = []
    with _progress() as bar:
        for start in bar.track(range(0, len(found), GRADED_AT_ONCE), description="grading"):
            graded += grade(found[start : start + GRADED_AT_ONCE], MODES[verify])
    return graded


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _claim(out: Path, settings: dict[str, Any]) -> None:
    """Note the settings of a new run; ValueError where the folder holds one with others."""
    file = out / SETTINGS_FILE
    if not file.exists():
        if (out / SAMPLES_FILE).exists():
            raise ValueError(f"{out} holds samples without their {SETTINGS_FILE}; choose another --out")
        write_text(file, json.dumps(settings, indent=1) + "\n")
        return
    earlier = json.loads(file.read_text(encoding="utf-8"))
    changed = [key for key in {**earlier, **settings} if earlier.get(key) != settings.get(key)]
    if changed:
        raise ValueError(
            f"{out} holds samples made with other settings ({', '.join(changed)}); choose another --out, or delete "
            "that folder to start again"
        )


def _digest(tasks: Sequence[reading.Task]) -> str:
    """A name for what the model is asked: ids, token ids and answers, in any order."""
    rows = sorted(json.dumps([task.id, task.answer, task.tokens]) for task in tasks)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def _weights(folder: Path) -> str | None:
    """A name for the files of a model folder, which a training may have replaced since; None for a hub name."""
    if not folder.is_dir():
        return None
    files = sorted(path for kind in ("*.safetensors", "*.bin") for path in folder.glob(kind))
    stamps = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    return hashlib.sha256(json.dumps(stamps).encode()).hexdigest()[:16]
