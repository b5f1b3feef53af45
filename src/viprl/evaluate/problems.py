"""The problems of a data set, and as token ids that fit the context of a model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from viprl.data import DataSource, Loaded, load
from viprl.data.gym import is_gym
from viprl.data.lengths import check_template, token_ids
from viprl.errors import DataError, InputError
from viprl.evaluate.generations import problem_id
from viprl.prompts import Prompt, text
from viprl.utils.missing import is_missing

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Problem:
    """One question."""

    id: str
    """The `id` in the data set, or the index of the row."""
    prompt: Prompt
    answer: str
    tokens: tuple[int, ...] = ()
    """The prompt as the model sees it, after `tokenized`."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """The whole row, for reward functions."""


def load_problems(source: DataSource, limit: int | None = None) -> list[Problem]:
    """The first `limit` problems of a data set. Bad rows that are left out are logged.

    Raises what `viprl.data.load` raises; InputError for an endless data set, DataError for duplicate ids.
    """
    loaded = _load(source)
    if loaded.findings is not None and loaded.findings.bad:
        logger.warning("%s: %s", source.name, loaded.notes[0])
    dataset, rows = loaded.dataset, [] if loaded.rows is None else loaded.rows.tolist()
    if limit is not None:
        dataset, rows = dataset.select(range(min(limit, len(dataset)))), rows[:limit]
    names = _names(dataset, rows, source.name)
    seen: dict[str, int] = {}
    for row, name in zip(rows, names, strict=True):
        if seen.setdefault(name, row) != row:
            raise DataError(f"{source.name}: rows {seen[name] + 1} and {row + 1} have the same id {name!r}")
    pairs = zip(names, dataset, strict=True)
    return [Problem(name, row["prompt"], str(row["solution"]), columns=row) for name, row in pairs]


def _names(dataset: Any, rows: Sequence[int], source: str) -> list[str]:
    """The ids of the problems: of the column `id`, or the indices of the rows if there is none or it is empty."""
    ids = list(dataset["id"]) if "id" in dataset.column_names else []
    if all(map(is_missing, ids)):
        return [str(row) for row in rows]
    names = []
    for row, given in zip(rows, ids, strict=True):
        try:
            names.append(problem_id(given))
        except DataError as error:
            raise DataError(f"{source}, row {row + 1}: {error}; correct it, or remove the column `id`") from error
    return names


def formatted_for(source: DataSource, tokenizer: Any, instruct: bool) -> DataSource:
    """The source with the format that suits the model, for each option that is not set.

    Args:
        source: the data set.
        tokenizer: prompts become chats if it has a chat template.
        instruct: add the instruction to box the answer, unless a prompt mentions it.
    """
    if source.chat is None and getattr(tokenizer, "chat_template", None):
        source = replace(source, chat=True)
    wanted = source.instruction is None and instruct
    if wanted and not any("\\boxed" in text(prompt) for prompt in _load(source).dataset["prompt"]):
        source = replace(source, instruction="boxed")
    return source


def tokenized(
    problems: Sequence[Problem], tokenizer: Any, model: str, template_options: Mapping[str, Any] | None = None
) -> list[Problem]:
    """Problems with token ids, chats through the tokenizer's chat template with its options.

    Raises DataError if it has none, and for a prompt without tokens.
    """
    prompts = [problem.prompt for problem in problems]
    check_template(prompts, tokenizer, model)
    found = []
    for problem, tokens in zip(problems, token_ids(prompts, tokenizer, template_options), strict=True):
        if not tokens:
            raise DataError(f"problem {problem.id!r}: the prompt has no tokens with the tokenizer of {model}")
        found.append(replace(problem, tokens=tuple(tokens)))
    return found


def check_fit(problems: Sequence[Problem], context: int | None, max_new_tokens: int, model: str) -> None:
    """Raise DataError if a prompt and its completion exceed the context of the model (None: no limit)."""
    longest = max(problems, key=lambda problem: len(problem.tokens))
    length = len(longest.tokens)
    if context is None or length + max_new_tokens <= context:
        return
    fix = f"set --max-new-tokens to at most {context - length}" if length < context else "use a longer context"
    raise DataError(
        f"problem {longest.id!r} has {length} tokens; with {max_new_tokens} new tokens it exceeds the context of "
        f"{model}, {context} tokens; {fix}, or leave the problem out"
    )


def _load(source: DataSource) -> Loaded:
    if is_gym(source.name):
        raise InputError(
            f"{source.name} is endless, but an evaluation needs a fixed set of problems; write some rows to a file "
            "(see docs/data.md)"
        )
    return load(source)
