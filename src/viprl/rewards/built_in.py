"""The built-in reward functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from viprl.rewards.grading.answers import score

Reward = Callable[..., list[float | None]]
"""Called as TRL does: `prompts`, `completions` and the columns of the data set by keyword, each a list of n. Returns n
rewards, None for a completion that cannot be scored."""


def exact_match(
    prompts: Sequence[Any], completions: Sequence[Any], solution: Sequence[Any], **_: Any
) -> list[float | None]:
    """1 if the completion equals the solution apart from white space, otherwise 0; None without a solution."""
    return score([completion_text(given) for given in completions], solution, "exact")


def math(prompts: Sequence[Any], completions: Sequence[Any], solution: Sequence[Any], **_: Any) -> list[float | None]:
    r"""1 if the last ``\boxed{}`` of the completion equals the solution mathematically, otherwise 0; None without a
    usable solution.

    A completion without a box gets 0. Raises MissingPackageError (an ImportError) if math-verify is needed and not
    installed.
    """
    return score([completion_text(given) for given in completions], solution, "boxed")


def math_last_number(
    prompts: Sequence[Any], completions: Sequence[Any], solution: Sequence[Any], **_: Any
) -> list[float | None]:
    """As `math`, but the answer is the last number of the completion."""
    return score([completion_text(given) for given in completions], solution, "last_number")


def completion_text(completion: Any) -> str:
    """The text of a completion; of a chat, the content of its last message."""
    return completion if isinstance(completion, str) else str(completion[-1].get("content") or "")
