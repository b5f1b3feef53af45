r"""What the reward functions say of a row's own answer, and whether that can be read as success or failure."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from viprl.engines.success import SuccessCriterion
from viprl.outcomes import RewardReader
from viprl.rewards import Reward
from viprl.utils.arrays import FloatArray

Probe = tuple[tuple[str, float | None], ...]
"""Names of the reward functions and what they gave the row's own answer; None where it cannot be scored."""


def probe(functions: Sequence[Reward], row: dict[str, Any], args: Any, source: SuccessCriterion) -> Probe:
    r"""What each reward function gives the row's own answer, plain or in \boxed{}, the better of the two; called as the
    trainer will. Raises ValueError where one fails or gives no numbers, and where what decides about success
    (`vip_success`) is neither success nor failure."""
    names = [getattr(function, "__name__", str(function)) for function in functions]
    given = np.array([_given(*pair, row) for pair in zip(names, functions, strict=True)]).T
    _check_readable(given, names, args, source)
    best = [max((value for value in values if not math.isnan(value)), default=None) for values in given.T.tolist()]
    return tuple(zip(names, best, strict=True))


def _check_readable(given: FloatArray, names: Sequence[str], args: Any, source: SuccessCriterion) -> None:
    """Raise ValueError where the deciding one of rewards [2, F], or their total, is no outcome."""
    weights = np.ones(len(names)) if args.reward_weights is None else np.asarray(args.reward_weights, dtype=float)
    if weights.shape != (len(names),):
        raise ValueError(f"reward_weights has {weights.size} numbers for {len(names)} rewards; give one for each")
    total = np.where(np.isnan(given).all(axis=1), np.nan, np.nansum(given * weights, axis=1))
    source.bind(names)
    values = source.values(given, total)
    read = RewardReader(source.rule)
    unread = np.isnan(read(values.tolist())) & ~np.isnan(values)
    if not read.unreadable:
        return
    what = f"the reward {source.column or names[0]}" if source.column or len(names) == 1 else "the total of the rewards"
    seen = f"{what} is {values[unread].max():g} for the first row's own answer"
    if source.rule is not None:
        raise ValueError(f"{seen}, of which vip_success {args.vip_success!r} says neither True, False nor None")
    best = f"{np.nanmax(values):g}"
    mend = f"{source.column}>={best}" if source.column else best
    raise ValueError(
        f"{seen}, neither 0/1 nor -1/+1, so it is open what success is; set a threshold, such as vip_success: {mend!r}"
    )


def _given(name: str, function: Reward, row: dict[str, Any]) -> list[float]:
    """What a function gives the row's own answer, plain and in a box; NaN where it cannot be scored."""
    from transformers import TrainerState

    texts = [str(row["solution"]), f"\\boxed{{{row['solution']}}}"]
    chat = not isinstance(row["prompt"], str)
    columns = {key: [value] * 2 for key, value in row.items() if key != "prompt"}
    try:
        given: Any = function(
            prompts=[row["prompt"]] * 2,
            completions=[[{"role": "assistant", "content": text}] if chat else text for text in texts],
            completion_ids=[[0]] * 2,
            trainer_state=TrainerState(),
            log_extra=lambda *_: None,
            log_metric=lambda *_: None,
            **columns,
        )
        given = asyncio.run(given) if inspect.iscoroutine(given) else given
    except Exception as error:  # any failure of the user's function is a failure of the run
        raise ValueError(f"reward {name} fails on the first row: {type(error).__name__}: {error}") from error
    try:
        values = [math.nan if value is None else float(value) for value in given]
    except (TypeError, ValueError):
        values = []
    if isinstance(given, str) or len(values) != 2:
        raise ValueError(
            f"reward {name} gave {given!r} for two completions; expected a list of two numbers, None where "
            "one cannot be scored"
        )
    return values
