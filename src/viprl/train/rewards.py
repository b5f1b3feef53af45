"""Rewards by name: the built-in exact match, or any function by import path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from viprl.imports import import_function

Reward = Callable[..., list[float | None]]


def exact_match(
    prompts: Sequence[Any], completions: Sequence[Any], solution: Sequence[Any], **_: Any
) -> list[float | None]:
    """1 where the completion is the solution, apart from white space; 0 elsewhere; None where there is no solution."""
    return [
        None if right is None else float(" ".join(_text(given).split()) == " ".join(str(right).split()))
        for given, right in zip(completions, solution, strict=True)
    ]


BUILT_IN: dict[str, Reward] = {"exact_match": exact_match}


def resolve_rewards(names: Sequence[str]) -> list[Reward]:
    """Functions for built-in names and "module:function" paths (the working directory is searched too)."""
    if not names:
        raise ValueError("reward is empty; name at least one, such as exact_match")
    for name in names:
        if name not in BUILT_IN and ":" not in name:
            raise ValueError(f"reward is {name!r}; expected {', '.join(BUILT_IN)} or 'module:function'")
    return [BUILT_IN[name] if name in BUILT_IN else import_function(name) for name in names]


def _text(completion: Any) -> str:
    """The text of a completion; of a chat completion, its last message."""
    return completion if isinstance(completion, str) else str(completion[-1].get("content") or "")
