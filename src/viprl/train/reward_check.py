"""Before training: call the reward functions with the solution of the first row, and check what they return."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from viprl.engines.success import SuccessCriterion
from viprl.errors import ConfigError
from viprl.outcomes import RewardReader
from viprl.rewards import Reward
from viprl.utils.arrays import FloatArray

RewardCheck = tuple[tuple[str, float | None], ...]
"""Name of each reward function and its reward for the solution; None if it returned None."""


def check_rewards(
    functions: Sequence[Reward], row: dict[str, Any], args: Any, criterion: SuccessCriterion
) -> RewardCheck:
    r"""Call each reward function as the trainer will, with the solution of `row` as the completion.

    The solution is tried as plain text and in \boxed{}; the higher reward counts. `args` is the trainer's config.

    Raises ConfigError for return values that are not rewards, and if the reward that decides about success can be read
    neither as success nor as failure. An exception of a reward function is passed on, with a note.
    """
    names = [getattr(function, "__name__", str(function)) for function in functions]
    rewards = np.array([_rewards(*pair, row) for pair in zip(names, functions, strict=True)]).T
    _check_readable(rewards, names, args, criterion)
    best = [max((value for value in values if not math.isnan(value)), default=None) for values in rewards.T.tolist()]
    return tuple(zip(names, best, strict=True))


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


def _rewards(name: str, function: Reward, row: dict[str, Any]) -> list[float]:
    """The rewards of the solution as plain text and in a box; NaN for None."""
    from transformers import TrainerState

    texts = [str(row["solution"]), f"\\boxed{{{row['solution']}}}"]
    chat = not isinstance(row["prompt"], str)
    columns = {key: [value] * 2 for key, value in row.items() if key != "prompt"}
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
        error.add_note(f"raised by the reward function {name} for the solution of the first row, before training")
        raise
    try:
        values = [math.nan if value is None else float(value) for value in returned]
    except (TypeError, ValueError):
        values = []
    if isinstance(returned, str) or len(values) != 2:
        raise ConfigError(
            f"reward {name} returned {returned!r} for two completions; expected a list of two numbers, with None for a "
            "completion that it cannot score"
        )
    return values
