"""Before training: call the reward functions with the solution of the first row, and check what they return."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from viprl.data.layout import Layout
from viprl.engines.success import SuccessCriterion
from viprl.errors import ConfigError, InputError
from viprl.outcomes import RewardReader
from viprl.rewards import Reward
from viprl.rewards.calling import call_reward, check_arguments, reward_name
from viprl.utils.arrays import FloatArray

RewardCheck = tuple[tuple[str, float | None], ...]
"""Name of each reward function and its reward for the solution; None if it returned None."""


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
    rewards, and if `vip_success` is set but does not say whether the solution is a success. An exception of a reward
    function is passed on, with a note.
    """
    names = [reward_name(function) for function in functions]
    for function in functions:
        try:
            check_arguments(function, row, _renamed(layout))
        except InputError as error:
            raise ConfigError(str(error)) from error
    rewards = np.array([_rewards(function, row, number) for function in functions]).T
    _check_readable(rewards, names, args, criterion)
    best = [max((value for value in values if not math.isnan(value)), default=None) for values in rewards.T.tolist()]
    return tuple(zip(names, best, strict=True))


def _rewards(function: Reward, row: dict[str, Any], number: int) -> list[float]:
    """The rewards of the solution as plain text and in a box; NaN for None."""
    texts = [str(row["solution"]), f"\\boxed{{{row['solution']}}}"]
    where = f"row {number}, its solution as text and in a box, before training"
    try:
        return call_reward(function, row["prompt"], texts, row, where)
    except InputError as error:
        raise ConfigError(str(error)) from error


def _renamed(layout: Layout | None) -> dict[str, str]:
    """Columns of the source -> the name under which a reward finds their content."""
    if layout is None:
        return {}
    names = dict.fromkeys(layout.prompt.split("."), "prompts")
    return names | dict.fromkeys(layout.solution.split("."), "solution")


def _check_readable(rewards: FloatArray, names: Sequence[str], args: Any, criterion: SuccessCriterion) -> None:
    """Raise ConfigError if `vip_success` is set, but the reward that it names, of [2, F], is not readable by it."""
    weights = np.ones(len(names)) if args.reward_weights is None else np.asarray(args.reward_weights, dtype=float)
    if weights.shape != (len(names),):
        raise ConfigError(f"reward_weights has {weights.size} numbers for {len(names)} rewards; give one for each")
    total = np.where(np.isnan(rewards).all(axis=1), np.nan, np.nansum(rewards * weights, axis=1))
    criterion.bind(names)
    values = criterion.values(rewards, total)
    if not criterion.given:
        return
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
        f"vip_success is {args.vip_success!r}, but {given}, not 0/1 or -1/+1; set a threshold, such as "
        f"vip_success: {example!r}"
    )
