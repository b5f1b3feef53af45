"""Evaluation of a model or of a file of completions: sample what is missing, grade, estimate."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from viprl.data import DataSource
from viprl.data.lengths import context_of, load_model_config, load_tokenizer
from viprl.errors import InputError, StateError
from viprl.evaluate.generations import Generations, Store, check_same_problems, read_generations
from viprl.evaluate.graded import Graded
from viprl.evaluate.judge import Judge, chosen_judge, graded
from viprl.evaluate.of_run import base_model
from viprl.evaluate.problems import Problem, check_fit, formatted_for, load_problems, tokenized
from viprl.evaluate.sampling import Sampler, Sampling, choose_backend, transformers_sampler, vllm_sampler
from viprl.evaluate.scores import Scores, chosen_ks, scores
from viprl.rewards.calling import check_arguments
from viprl.runs.run_log import only_writer
from viprl.utils.batches import batches
from viprl.utils.claim import claim
from viprl.utils.files import make_folder
from viprl.utils.progress import progress_bars

console = Console(stderr=True, soft_wrap=True)

SAMPLES_FILE, SETTINGS_FILE = "samples.jsonl", "settings.json"
GRADED_AT_ONCE = 64
"""Problems between two updates of the progress bar."""


@dataclass(frozen=True)
class Plan:
    """What to sample from a model."""

    model: str
    """Folder or Hub name."""
    data: DataSource
    sampling: Sampling
    limit: int | None = None
    """Only the first problems of the data set."""
    backend: str = "auto"
    """"vllm", "transformers", or "auto": vLLM if it is installed."""
    batch_size: int | None = None
    """With vLLM, problems at once (default 64); with transformers, completions of one problem at once (default all)."""
    tensor_parallel: int = 1
    """GPUs for one model, with vLLM."""
    tokenizer: str | None = None
    """Folder or Hub name. Default: the model's."""
    template_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the chat template, as TRL's `chat_template_kwargs`."""


def evaluate_generations(
    file: Path,
    ks: Sequence[int] | None,
    verify: str,
    *,
    data: DataSource | None = None,
    limit: int | None = None,
    seed: int = 0,
    success: Any = None,
) -> Scores:
    """Score a file of completions.

    Args:
        file: see `viprl.evaluate.generations`.
        ks: numbers of completions. Default: 1, 2, 4, ... and n.
        verify: a built-in reward, "math", "math_last_number" or "exact_match", or a function "module:function".
        data: if given, the problems of the file must be those of this data set.
        limit: only the first problems of `data`.
        seed: of the intervals.
        success: for a function, what counts as success, see `chosen_judge`.

    Raises what `read_generations`, `check_same_problems` and `scores` raise; InputError for a limit without data.
    """
    judge = chosen_judge(verify, success)
    found = read_generations(file)
    ks = chosen_ks(ks, len(found[0].completions))
    problems = {} if data is None else {problem.id: problem for problem in load_problems(data, limit)}
    if data is not None:
        answers = {name: problem.answer for name, problem in problems.items()}
        check_same_problems(found, answers, str(file), data.name)
    elif limit is not None:
        raise InputError("--limit takes the first problems of a data set; set --dataset")
    return scores(_graded(found, judge, problems), ks, seed, votes=judge.votes)


def evaluate_model(plan: Plan, ks: Sequence[int] | None, verify: str, out: Path, *, success: Any = None) -> Scores:
    """Sample n completions of each problem and score them.

    Args:
        plan: model, problems and sampling.
        ks, verify, success: as for `evaluate_generations`.
        out: folder for the samples. If it holds samples of the same plan, only the missing ones are sampled.

    Options, data and the length of prompts are checked before the weights are loaded. Raises InputError or DataError
    if they cannot be used, StateError if `out` holds samples of another plan, FileError if another process uses it.
    """
    judge = chosen_judge(verify, success)
    ks = chosen_ks(ks, plan.sampling.n)
    base = base_model(plan.model)
    backend = choose_backend("transformers" if base is not None and plan.backend == "auto" else plan.backend)
    if base is not None and backend == "vllm":
        raise InputError(f"{plan.model} is a LoRA adapter, which vLLM needs merged; set --backend transformers")
    tokenizer = load_tokenizer(plan.tokenizer or plan.model)
    source = formatted_for(plan.data, tokenizer, verify == "math")
    questions = load_problems(source, plan.limit)
    problems = tokenized(questions, tokenizer, plan.model, plan.template_options)
    check_fit(problems, context_of(load_model_config(base or plan.model)), plan.sampling.max_new_tokens, plan.model)
    settings = asdict(plan.sampling) | {
        "model": plan.model, "weights": _weights(Path(plan.model)), "dataset": plan.data.name, "limit": plan.limit,
        "backend": backend, "prompts": _digest(problems),
    }  # fmt: skip
    if plan.template_options:
        settings["chat_template_kwargs"] = dict(plan.template_options)
    if not judge.votes:  # fails before anything is sampled
        check_arguments(judge.function, questions[0].columns)
    make_folder(out)
    with only_writer(out):
        if (out / SAMPLES_FILE).exists() and not (out / SETTINGS_FILE).exists():
            raise StateError(f"{out} has {SAMPLES_FILE} but no {SETTINGS_FILE}; choose another --out")
        claim(out / SETTINGS_FILE, settings)
        store = Store(out / SAMPLES_FILE)
        missing = [problem for problem in problems if problem.id not in store.found]
        options = ", ".join(f"{name}: {value}" for name, value in plan.template_options.items())
        form = "plain text" if isinstance(questions[0].prompt, str) else f"chat template{options and f' ({options})'}"
        console.print(
            f"{len(problems)} problems, {plan.sampling.n} completions each; prompts: {form}, instruction: "
            f"{source.instruction or 'none'}; {backend}; graded by {judge.name}"
            + (f"; {len(store.found)} problems sampled before" if store.found else ""),
            highlight=False,
            markup=False,
        )
        if missing:
            longest = max(len(problem.tokens) for problem in problems) + plan.sampling.max_new_tokens
            sampler = _sampler(plan, backend, tokenizer, longest)
            with progress_bars(console, transient=True) as bar:
                row = bar.add_task("sampling", total=len(problems), completed=len(store.found))
                for completed in sampler(missing):
                    store.append(completed)
                    bar.advance(row)
        found = [store.found[problem.id] for problem in problems]
    by_id = {problem.id: problem for problem in problems}
    return scores(_graded(found, judge, by_id), ks, plan.sampling.seed, votes=judge.votes)


def _sampler(plan: Plan, backend: str, tokenizer: Any, longest: int) -> Sampler:
    if backend == "vllm":
        return vllm_sampler(
            plan.model, tokenizer, plan.sampling, context=longest, batch_size=plan.batch_size or 64,
            tensor_parallel=plan.tensor_parallel,
        )  # fmt: skip
    return transformers_sampler(plan.model, tokenizer, plan.sampling, batch_size=plan.batch_size or plan.sampling.n)


def _graded(found: Sequence[Generations], judge: Judge, problems: Mapping[str, Problem]) -> list[Graded]:
    done: list[Graded] = []
    with progress_bars(console, transient=True) as bar:
        for some in bar.track(list(batches(found, GRADED_AT_ONCE)), description="grading"):
            done += graded(some, judge, problems)
    return done


def _digest(problems: Sequence[Problem]) -> str:
    """A hash of the problems, independent of their order: ids, token ids and answers."""
    rows = sorted(json.dumps([problem.id, problem.answer, problem.tokens]) for problem in problems)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def _weights(folder: Path) -> str | None:
    """A hash of names, sizes and times of the weight files, which a training may replace; None for a Hub name."""
    if not folder.is_dir():
        return None
    files = sorted(path for kind in ("*.safetensors", "*.bin") for path in folder.glob(kind))
    stamps = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    return hashlib.sha256(json.dumps(stamps).encode()).hexdigest()[:16]
