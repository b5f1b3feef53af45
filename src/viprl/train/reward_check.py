"""Before training: call the reward functions with the solution of the first row, and check what they return."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from viprl.data.layout import Layout
from viprl.engines.success import SuccessCriterion
from viprl.errors import ConfigError, InputError
from viprl.outcomes import RewardReader
from viprl.rewards import Reward
from viprl.rewards.returned import returned_rewards
from viprl.utils.arrays import FloatArray
from viprl.utils.words import did_you_mean

RewardCheck = tuple[tuple[str, float | None], ...]
"""Name of each reward function and its reward for the solution; None if it returned None."""

ARGUMENTS = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric")
"""What TRL passes to a reward function besides the columns of the data set."""
RESERVED = frozenset((*ARGUMENTS, "completion", "environments"))
"""Columns of these names cannot be passed."""


def check_rewards(
    functions: Sequence[Reward],
    row: dict[str, Any],
    args: Any,
    criterion: SuccessCriterion,
    *,
    layout: Layout | None = None,
    number: int = 1,
) -> RewardCheck:
    r"""Call each reward function as the trainer will, with the solution of `row` as the completion.

    The solution is tried as plain text and in \boxed{}; the higher reward counts.

    Args:
        functions: the reward functions.
        row: the first row of the data.
        args: the trainer's config.
        criterion: which reward decides about success.
        layout: the columns of prompt and solution in the source, for errors.
        number: of the row in the source, counted from 1, for errors.

    Raises ConfigError for functions that cannot be called with the columns of the data, for return values that are not
    rewards, and if the reward that decides about success can be read neither as success nor as failure. An exception of
    a reward function is passed on, with a note.
    """
    names = [getattr(function, "__name__", str(function)) for function in functions]
    passed = [*ARGUMENTS, *(key for key in row if key != "prompt")]
    for name, function in zip(names, functions, strict=True):
        _check_arguments(name, function, passed, layout)
    rewards = np.array([_rewards(*pair, row, number) for pair in zip(names, functions, strict=True)]).T
    _check_readable(rewards, names, args, criterion)
    best = [max((value for value in values if not math.isnan(value)), default=None) for values in rewards.T.tolist()]
    return tuple(zip(names, best, strict=True))


def _check_arguments(name: str, function: Reward, passed: Collection[str], layout: Layout | None) -> None:
    """Raise ConfigError if a function needs arguments that it does not get, or does not take those that it gets."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some functions written in C
        return
    kinds = inspect.Parameter
    by_name = [p for p in parameters if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)]
    listed = ", ".join(passed)
    if unnamed := [p.name for p in parameters if p.kind is kinds.POSITIONAL_ONLY and p.default is kinds.empty]:
        raise ConfigError(f"reward {name} takes {', '.join(unnamed)} by position; rewards are called by name: {listed}")
    if absent := [p.name for p in by_name if p.default is kinds.empty and p.name not in passed]:
        hint = _renamed(absent[0], layout) or did_you_mean(absent[0], passed)
        raise ConfigError(
            f"reward {name} asks for {', '.join(f'`{name}`' for name in absent)}, which it does not get; "
            f"{hint + '; ' if hint else ''}a reward gets {listed}"
        )
    if not any(p.kind is kinds.VAR_KEYWORD for p in parameters):
        taken = {p.name for p in by_name}
        if unknown := [key for key in passed if key not in taken]:
            raise ConfigError(f"reward {name} does not take {', '.join(unknown)}; add **kwargs to its parameters")


def _renamed(argument: str, layout: Layout | None) -> str:
    """Where the content of a column of the source is found by a reward."""
    if layout is not None and argument in layout.solution.split("."):
        return f"the column {layout.solution} reaches rewards as `solution`: rename the parameter"
    if layout is not None and argument in layout.prompt.split("."):
        return f"the column {layout.prompt} reaches rewards as `prompts`: rename the parameter"
    return ""


def _check_readable(rewards: FloatArray, names: Sequence[str], args: Any, criterion: SuccessCriterion) -> None:
    """Raise ConfigError if the deciding one of the rewards [2, F], or their total, is not readable as an outcome."""
    weights = np.ones(len(names)) if args.reward_weights is None else np.asarray(args.reward_weights, dtype=float)
    if weights.shape != (len(names),):
        raise ConfigError(f"reward_weights has {weights.size} numbers for {len(names)} rewards; give one for each")
    total = np.where(np.isnan(rewards).all(axis=1), np.nan, np.nansum(rewards * weights, axis=1))
    criterion.bind(names)
    values = criterion.values(rewards, total)
    read = RewardReader(criterion.rule)
    unread = np.isnan(read(values.tolist())) & ~np.isnan(values)
    if not read.unreadable:
        return
    single = criterion.column or (names[0] if len(names) == 1 else None)
    what = f"the reward {single}" if single else "the total of the rewards"
    given = f"{what} is {values[unread].max():g} for the solution of the first row"
    if criterion.rule is not None:
        raise ConfigError(
            f"{given}; the function vip_success: {args.vip_success!r} must return True, False or None for it"
        )
    threshold = f"{np.nanmax(values):g}"
    example = f"{criterion.column}>={threshold}" if criterion.column else threshold
    raise ConfigError(
        f"success is ambiguous: {given}, not 0/1 or -1/+1; set a threshold, such as vip_success: {example!r}"
    )


def _rewards(name: str, function: Reward, row: dict[str, Any], number: int) -> list[float]:
    """The rewards of the solution as plain text and in a box; NaN for None."""
    from transformers import TrainerState

    texts = [str(row["solution"]), f"\\boxed{{{row['solution']}}}"]
    chat = not isinstance(row["prompt"], str)
    columns = {key: [value] * 2 for key, value in row.items() if key not in RESERVED and key != "prompt"}
    try:
        returned: Any = function(
            prompts=[row["prompt"]] * 2,
            completions=[[{"role": "assistant", "content": text}] if chat else text for text in texts],
            completion_ids=[[0]] * 2,
            trainer_state=TrainerState(),
            log_extra=lambda *_: None,
            log_metric=lambda *_: None,
            **columns,
        )
        returned = asyncio.run(returned) if inspect.iscoroutine(returned) else returned
    except Exception as error:
        error.add_note(f"raised by the reward function {name} for the solution of row {number}, before training")
        raise
    try:
        return returned_rewards(name, returned, 2, f"completions of row {number}, its solution as text and in a box")
    except InputError as error:
        raise ConfigError(str(error)) from error
