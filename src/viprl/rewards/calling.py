"""Calls of reward functions outside a training, as TRL calls them."""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
from collections.abc import Collection, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from viprl.errors import InputError
from viprl.prompts import Prompt
from viprl.rewards.returned import returned_rewards
from viprl.rewards.slow_calls import watched
from viprl.utils.words import did_you_mean

ARGUMENTS = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric")
"""What a reward function gets besides the columns of the data set."""
RESERVED = frozenset((*ARGUMENTS, "prompt", "completion", "environments"))
"""Columns of these names are not passed."""


def reward_name(function: Any) -> str:
    """The name that TRL gives a reward and logs it under.

    The name of a function, also behind `functools.partial`; the class of a callable object; the last part of the id of
    a reward model ("org/grader-1b" is "grader-1b").
    """
    while isinstance(function, functools.partial):
        function = function.func
    if is_reward_model(function):
        model_id = function if isinstance(function, str) else getattr(function.config, "_name_or_path", "")
        return str(model_id).split("/")[-1]
    return str(getattr(function, "__name__", type(function).__name__))


def is_reward_model(function: Any) -> bool:
    """Whether a reward is a model, or the id of one."""
    return isinstance(function, str) or (hasattr(function, "parameters") and hasattr(function, "config"))


def check_arguments(function: Any, columns: Collection[str], renamed: Mapping[str, str] | None = None) -> None:
    """Raise InputError if a function needs arguments that it does not get, or does not take those that it gets.

    Args:
        function: the reward function.
        columns: the columns of the data set.
        renamed: columns of the source that have another name in the data set -> that name.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some functions written in C
        return
    passed = [*ARGUMENTS, *(column for column in columns if column not in RESERVED)]
    name, needed = reward_name(function), [p for p in parameters if p.default is p.empty]
    if unnamed := [p.name for p in needed if p.kind is p.POSITIONAL_ONLY]:
        raise InputError(f"reward {name} takes {', '.join(unnamed)} by position, but rewards are called by name")
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if absent := [p.name for p in needed if p in named and p.name not in passed]:
        column = absent[0]
        if column in (renamed or {}):
            hint = f"rename it: the column {column} reaches rewards as `{(renamed or {})[column]}`"
        else:
            hint = did_you_mean(column, passed) or "add the column, or give the parameter a default"
        asked = ", ".join(f"`{name}`" for name in absent)
        raise InputError(f"reward {name} asks for {asked}, but it gets {', '.join(passed)}; {hint}")
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        taken = {p.name for p in named}
        if unknown := [key for key in passed if key not in taken]:
            raise InputError(f"reward {name} does not take {', '.join(unknown)}; add **kwargs to its parameters")


def call_reward(
    function: Any, prompt: Prompt, completions: Sequence[str], columns: Mapping[str, Any], where: str
) -> list[float]:
    """The rewards of completions of one prompt; NaN for a completion that cannot be scored, infinite rewards included.

    Args:
        function: a function or an async function.
        prompt: a text or a chat. For a chat, completions are passed as messages of the assistant.
        completions: n texts.
        columns: the row of the data set.
        where: what is scored, for errors.

    Raises InputError for a result that is not n rewards. Exceptions of the function are passed on, with a note.
    """
    n, chat = len(completions), not isinstance(prompt, str)
    name = reward_name(function)
    rest = {key: [value] * n for key, value in columns.items() if key not in RESERVED}
    try:
        with watched(name, f"for {where}"):
            returned: Any = function(
                prompts=[prompt] * n,
                completions=[[{"role": "assistant", "content": text}] if chat else text for text in completions],
                completion_ids=[[0]] * n,
                trainer_state=_trainer_state(),
                log_extra=lambda *_, **__: None,
                log_metric=lambda *_, **__: None,
                **rest,
            )
            returned = asyncio.run(returned) if inspect.iscoroutine(returned) else returned
    except Exception as error:
        error.add_note(f"raised by the reward function {name} for {where}")
        raise
    rewards = returned_rewards(name, returned, n, f"completions: {where}")
    return [reward if math.isfinite(reward) else math.nan for reward in rewards]


def _trainer_state() -> Any:
    """The state of a trainer before its first step."""
    try:
        from transformers import TrainerState
    except ImportError:
        return SimpleNamespace(global_step=0, max_steps=0, epoch=0.0, log_history=[])
    return TrainerState()
