"""The visits of the prompts of a run, as counts of successes or as rewards, and how a log becomes one kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from viprl.errors import DataError
from viprl.utils.arrays import FloatArray

MOST_UNROLLED = 10**7
"""Rollouts of a log of which only the number is known, where others have rewards or lengths: each takes memory."""


class Visit(NamedTuple):
    """What a log says about one visit of a prompt."""

    rollouts: float
    """Scorable rollouts, at least 1."""
    successes: float = math.nan
    """How many of them succeeded; NaN where success is undefined."""
    rewards: FloatArray | None = None
    """[n] scorable rewards. None: as many rewards of 1 as successes, and equal rewards for the failures."""
    lengths: FloatArray | None = None
    """[n] length of each scorable rollout, in the order of the rewards, or successes first where there are none; NaN
    where unknown. None: all unknown."""


def of_one_kind(log: Sequence[Sequence[Visit]]) -> list[list[Visit]]:
    """The same visits, all with rewards or all without.

    Rewards that are 0/1 or -1/+1 throughout become counts of successes, unless other rollouts were counted as
    successes. Otherwise the rewards of visits that have only counts are 1 for successes, and for failures -1 if the log
    has a reward of -1 and none of 0, else 0.

    Args:
        log: the visits of each prompt.

    Raises DataError for a log of few bytes that would fill the memory.
    """
    _check_size(log)
    given = [visit for visits in log for visit in visits if visit.rewards is not None]
    if not given:
        return [list(visits) for visits in log]
    values = set(np.unique(np.concatenate([visit.rewards for visit in given if visit.rewards is not None])).tolist())
    if (values <= {0.0, 1.0} or values <= {-1.0, 1.0}) and all(_is_counted(visit) for visit in given):
        return [[_counted(visit) for visit in visits] for visits in log]
    failure = -1.0 if -1.0 in values and 0.0 not in values else 0.0
    return [[_rewarded(visit, failure) for visit in visits] for visits in log]


def _check_size(log: Sequence[Sequence[Visit]]) -> None:
    for what in ("rewards", "lengths"):
        parts = [(getattr(visit, what), visit.rollouts) for visits in log for visit in visits]
        unknown = sum(rollouts for part, rollouts in parts if part is None)
        if unknown > MOST_UNROLLED and any(part is not None for part, _ in parts):
            raise DataError(
                f"the log gives the {what} of some visits, but not those of {unknown:g} rollouts, more than "
                f"{MOST_UNROLLED:g}; give the {what} of all visits, or of none"
            )


def _ones(visit: Visit) -> float:
    return math.nan if visit.rewards is None else float((visit.rewards == 1).sum())


def _is_counted(visit: Visit) -> bool:
    """Whether the successes, if they are known, are the rewards of 1."""
    return math.isnan(visit.successes) or visit.successes == _ones(visit)


def _counted(visit: Visit) -> Visit:
    if visit.rewards is None:
        return visit
    lengths = None if visit.lengths is None else successes_first(visit.lengths, visit.rewards == 1)
    return Visit(visit.rollouts, _ones(visit), None, lengths)


def ordered_outcomes(rollouts: float, successes: float) -> FloatArray:
    """[n] 1 for a success and 0 for a failure, successes first."""
    return (np.arange(int(rollouts)) < successes).astype(float)


def plain_lengths(lengths: FloatArray) -> list[float | None]:
    """Lengths [n] for a JSON file: whole numbers without a point, null where unknown."""
    return [None if x != x else int(x) if x == int(x) else x for x in lengths.tolist()]


def successes_first(lengths: FloatArray, success: np.ndarray) -> FloatArray:
    """[n] the lengths of the rollouts where `success` [n], then the others."""
    return lengths[np.argsort(~success, kind="stable")]


def _rewarded(visit: Visit, failure: float) -> Visit:
    if visit.rewards is not None:
        return visit
    k = min(int(visit.successes), int(visit.rollouts))
    return visit._replace(rewards=np.repeat([1.0, failure], [k, int(visit.rollouts) - k]))
