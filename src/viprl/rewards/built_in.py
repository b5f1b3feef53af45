"""The built-in reward functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from viprl.errors import InputError
from viprl.rewards.grading.answers import score

Reward = Callable[..., list[float | None]]
"""Called as TRL does: `prompts`, `completions` and the columns of the data set by keyword, each a list of n. Returns n
rewards, None for a completion that cannot be scored."""

LIKELY_COLUMNS = ("answer", "final_answer", "ground_truth", "target", "label", "solutions", "answers")
"""Other names under which data sets have the reference answer."""


def exact_match(
    prompts: Any = None, completions: Any = None, solution: Any = None, **columns: Any
) -> list[float | None]:
    """1 if the completion equals the solution apart from white space, otherwise 0; None without a solution.

    Raises InputError if `completions` or `solution` is missing or not a list of n, DataError for a solution that is
    neither a text nor a number.
    """
    return _scored("exact_match", "exact", completions, solution, columns)


def math(prompts: Any = None, completions: Any = None, solution: Any = None, **columns: Any) -> list[float | None]:
    r"""1 if the last ``\boxed{}`` of the completion equals the solution mathematically, otherwise 0; None without a
    usable solution.

    A completion without a box gets 0. Raises InputError if `completions` or `solution` is missing or not a list of n,
    DataError for a solution that is neither a text nor a number, MissingPackageError (an ImportError) if math-verify
    is needed and not installed.
    """
    return _scored("math", "boxed", completions, solution, columns)


def math_last_number(
    prompts: Any = None, completions: Any = None, solution: Any = None, **columns: Any
) -> list[float | None]:
    """As `math`, but the answer is the last number of the completion."""
    return _scored("math_last_number", "last_number", completions, solution, columns)


def completion_text(completion: Any) -> str:
    """The text of a completion; of a chat, the content of its last message, of which the text parts are joined.

    Raises InputError for what is neither a text nor chat messages.
    """
    if completion is None or isinstance(completion, str):
        return completion or ""
    if isinstance(completion, Sequence) and not isinstance(completion, bytes | bytearray):
        return completion_text(completion[-1]) if completion else ""
    if not isinstance(completion, Mapping):
        raise InputError(f"a completion is of type {type(completion).__name__}; expected a text or chat messages")
    content = completion.get("content", completion.get("text"))
    if isinstance(content, Sequence) and not isinstance(content, str):
        return "".join(completion_text(part) for part in content)
    return completion_text(content)


def _scored(name: str, mode: str, completions: Any, solution: Any, columns: Mapping[str, Any]) -> list[float | None]:
    if completions is None:
        raise InputError(f"the reward {name} was called without completions; pass completions=[...]")
    texts = [completion_text(given) for given in _listed(name, "completions", completions)]
    if solution is None:
        others = [column for column, values in columns.items() if column != "completion_ids" and _is_listed(values)]
        found = f"its other columns are {', '.join(others)}" if others else "no other column was given"
        likely = next((column for column in others if column in LIKELY_COLUMNS), "COLUMN")
        raise InputError(
            f"the reward {name} needs the column 'solution' with the reference answers, which is missing from the data "
            f"set ({found}); rename the right one: dataset.rename_column({likely!r}, 'solution')"
        )
    solutions = _listed(name, "solution", solution)
    if len(solutions) != len(texts):
        raise InputError(
            f"the reward {name} was called with {len(texts)} completions and {len(solutions)} solutions; give one "
            "solution for each completion"
        )
    return score(texts, solutions, mode)


def _is_listed(values: Any) -> bool:
    unordered = isinstance(values, str | bytes | bytearray | Mapping | set | frozenset)
    scalar = getattr(values, "ndim", 1) == 0  # arrays and tensors of one number have a length only by name
    return isinstance(values, Iterable) and hasattr(values, "__len__") and not unordered and not scalar


def _listed(name: str, argument: str, values: Any) -> list[Any]:
    """The values as a list. A text would be read letter by letter, a set in any order."""
    if not _is_listed(values):
        raise InputError(
            f"the reward {name} was called with {argument} of type {type(values).__name__}; expected a list with one "
            "value for each completion"
        )
    return list(values)
