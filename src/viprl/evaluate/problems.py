"""The questions of a dataset, as token ids that are known to fit the model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from viprl.data import DataSource, Loaded, load
from viprl.data.gym import is_gym
from viprl.data.lengths import rendered
from viprl.prompts import Prompt, text

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Problem:
    """One question."""

    id: str
    """The dataset's `id`, or the row's number."""
    prompt: Prompt
    answer: str


@dataclass(frozen=True)
class Task:
    """One question as the model gets it."""

    id: str
    answer: str
    tokens: tuple[int, ...]


def load_problems(spec: DataSource, limit: int | None = None) -> list[Problem]:
    """The first `limit` problems of a dataset; bad rows that are left out are logged. Raises ValueError for what cannot
    be evaluated, rows named by number."""
    loaded = _load(spec)
    if loaded.findings is not None and loaded.findings.bad:
        logger.warning("%s: %s", spec.source, loaded.notes[0])
    dataset, rows = loaded.dataset, _numbers(loaded)
    if limit is not None:
        dataset, rows = dataset.select(range(min(limit, len(dataset)))), rows[:limit]
    ids = dataset["id"] if "id" in dataset.column_names else [None] * len(dataset)
    names = [str(row) if name is None else str(name) for row, name in zip(rows, ids, strict=True)]
    seen: dict[str, int] = {}
    for row, name in zip(rows, names, strict=True):
        if seen.setdefault(name, row) != row:
            raise ValueError(f"{spec.source}: rows {seen[name]} and {row} have the same id {name!r}; ids are unique")
    columns = zip(names, dataset["prompt"], dataset["solution"], strict=True)
    return [Problem(name, prompt, str(answer)) for name, prompt, answer in columns]


def format_for(spec: DataSource, tokenizer: Any, instruct: bool) -> DataSource:
    """The spec with the format that suits the model, where none was asked for: a chat where the tokenizer has a chat
    template, and with `instruct` the instruction to box the answer where the prompts do not speak of it."""
    if spec.chat is None and getattr(tokenizer, "chat_template", None):
        spec = replace(spec, chat=True)
    unasked = spec.instruction is None and instruct
    if unasked and not any("\\boxed" in text(prompt) for prompt in _load(spec).dataset["prompt"]):
        spec = replace(spec, instruction="boxed")
    return spec


def tokenized(problems: Sequence[Problem], tokenizer: Any, model: str) -> list[Task]:
    """Prompts as token ids, chats through the tokenizer's template. Raises ValueError without one."""
    if not getattr(tokenizer, "chat_template", None) and any(not isinstance(p.prompt, str) for p in problems):
        raise ValueError(
            f"the prompts are chats, but {model} has no chat template; --no-chat puts the questions as plain text, or "
            "give the tokenizer a template (tokenizer.chat_template)"
        )
    tasks = []
    for problem in problems:
        # a chat template writes the special tokens itself
        special = isinstance(problem.prompt, str)
        tokens = tokenizer(rendered(problem.prompt, tokenizer), add_special_tokens=special)["input_ids"]
        if not tokens:
            raise ValueError(f"problem {problem.id!r}: the tokenizer of {model} makes no tokens of its prompt")
        tasks.append(Task(problem.id, problem.answer, tuple(tokens)))
    return tasks


def check_fit(tasks: Sequence[Task], context: int | None, max_new_tokens: int, model: str) -> None:
    """ValueError where a prompt and its completion exceed the model's context (None: unlimited)."""
    longest = max(tasks, key=lambda task: len(task.tokens))
    if context is not None and len(longest.tokens) + max_new_tokens > context:
        raise ValueError(
            f"problem {longest.id!r} has {len(longest.tokens)} tokens; with {max_new_tokens} new ones that exceeds the "
            f"context of {model}, {context} tokens; "
            + (
                f"set --max-new-tokens to {context - len(longest.tokens)} or less"
                if len(longest.tokens) < context
                else "leave the problem out or take a model with a longer context"
            )
        )


def _numbers(loaded: Loaded) -> list[int]:
    """The row of the source that each row of the dataset comes from."""
    return list(range(len(loaded.dataset))) if loaded.rows is None else loaded.rows.tolist()


def _load(spec: DataSource) -> Loaded:
    if is_gym(spec.source):
        raise ValueError(
            f"{spec.source} is endless, and an evaluation needs a fixed set of problems; write some of its rows to a "
            "file (see docs/data.md)"
        )
    return load(spec)
