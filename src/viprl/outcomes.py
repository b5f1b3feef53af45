"""Reading what callers give: rewards, log probabilities, counts; and which rewards are successes."""

from __future__ import annotations

import logging
import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from viprl.errors import InputError
from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.sequences import listed, short, to_float, whole_numbers
from viprl.utils.sequences import numbers as read_numbers

logger = logging.getLogger(__name__)

Success = str | float | Callable[[float], bool | None] | None
"""What counts as success. None: rewards of 1, if they are 0/1 or -1/+1. A number: reward >= number. A callable:
reward -> True, False, or None if undecided. Engines also accept names of rewards, see `viprl.engines.success`."""

LARGEST_REWARD = 1e30
"""Rewards beyond it, infinite ones included, are unscorable: weights in 32 bits would become infinite or NaN."""

LARGEST_LOGPROB = 1e9
"""No text is less likely. Smaller log probabilities come from masks, such as the smallest number of float32."""
ROUNDING = 0.1
"""Log probabilities of a text may be positive by this much, because they are sums of rounded ones."""

_BINARY = frozenset({0.0, 1.0, -1.0})


def scorable(rewards: Any) -> Any:
    """Whether each number of an array or tensor is a reward to train on: not NaN, and not beyond `LARGEST_REWARD`."""
    return abs(rewards) <= LARGEST_REWARD  # False for NaN


@dataclass(frozen=True)
class Observation:
    """How a batch of rewards was read."""

    keys: tuple[str, ...]
    """[Q] identity of each prompt."""
    rollouts: FloatArray
    """[Q] rollouts whose reward could be scored."""
    successes: FloatArray
    """[Q] rollouts that succeeded; NaN where success is undefined: no `success`, and rewards not 0/1 or -1/+1."""
    judged: FloatArray
    """[Q] rollouts of which is known whether they succeeded."""
    reward_mean: FloatArray
    """[Q] mean reward, NaN without scorable rollouts."""
    reward_variance: FloatArray
    """[Q] sample variance of the rewards, NaN with fewer than two scorable rollouts."""
    variance: tuple[float, float] | None = None
    """Realised gradient variance of a planned batch, and that of uniform counts; None without a plan."""
    rewards: tuple[FloatArray, ...] = ()
    """[Q] the scorable rewards of each prompt, [n]."""
    lengths: tuple[FloatArray, ...] | None = None
    """[Q] the lengths of these rollouts, NaN where unknown; None if none were given."""

    def __repr__(self) -> str:
        n, known = f"{self.rollouts.sum():.0f} scorable rollouts", self.judged > 0
        if known.any():
            n = f"{self.successes[known].sum():.0f} successes of {n}"
        return f"Observation({len(self.keys)} prompts, {n})"


class RewardReader:
    """Turns rewards into numbers, and numbers into successes.

    A reward that cannot be read is unscorable. It is counted and logged, but never raises an error, because one bad
    reward must not end a long run. None, NaN and pandas' NA are unscorable on purpose and do not count.

    Args:
        success: None, a threshold or a callable, see `Success`.

    Raises InputError for any other `success`.
    """

    def __init__(self, success: Success = None) -> None:
        threshold = isinstance(success, numbers.Real) and not isinstance(success, bool) and abs(success) < math.inf
        if success is not None and not callable(success) and not threshold:
            raise InputError(f"success is {short(success)}; expected None, a threshold or a callable reward -> bool")
        self.success = success
        self.unreadable = 0
        """Rewards so far that could not be read, infinity and numbers beyond `LARGEST_REWARD` included."""
        self._lost = 0  # batches without a scorable reward

    def batch(self, groups: Sequence[Sequence[Any]]) -> list[FloatArray]:
        """[Q] the rewards of Q groups as numbers. Warns if none of them is scorable, unless all are None or NaN."""
        before, values = self.unreadable, [self.values(group) for group in groups]
        if self.unreadable > before and all(np.isnan(group).all() for group in values):
            self._lost += 1
            if _now_and_then(self._lost):
                first = next(reward for group in groups for reward in group)
                message = (
                    "no reward of the batch could be scored, so nothing is learned from it (%d such batches so far; "
                    "the first reward is %s); check the reward functions"
                )
                logger.warning(message, self._lost, short(first))
        return values

    def values(self, rewards: Sequence[Any]) -> FloatArray:
        """[n] the rewards of one group as numbers, NaN where unscorable."""
        if all(type(r) is float and abs(r) <= LARGEST_REWARD for r in rewards):
            return np.array(rewards, dtype=float)  # the usual case, several times faster
        return np.array([self._value(r) for r in rewards], dtype=float)

    def __call__(self, rewards: Sequence[Any]) -> FloatArray:
        """[n] outcomes of the n rewards of one group: 1 success, 0 failure, NaN undecided or unscorable. With `success`
        None the rewards must be 0/1 or -1/+1."""
        return self.outcomes(self.values(rewards))

    def outcomes(self, values: FloatArray) -> FloatArray:
        """[n] outcomes of rewards that `values` has read."""
        if self.success is None and _BINARY.issuperset(values.tolist()):
            return (values == 1).astype(float)
        return np.array([self._outcome(value) for value in values.tolist()], dtype=float)

    def _value(self, reward: Any) -> float:
        try:
            value = to_float(reward)
        except Exception as error:  # objects of any library
            return self._unreadable(reward, f"{type(error).__name__}: {error}")
        if scorable(value) or math.isnan(value):
            return value
        return self._unreadable(reward, f"expected a number of at most {LARGEST_REWARD:g}")

    def _outcome(self, value: float) -> float:
        if math.isnan(value):
            return math.nan
        if callable(self.success):
            return self._verdict(self.success, value)
        if self.success is not None:
            return float(value >= self.success)  # type: ignore[operator]  # a number
        if value in _BINARY:
            return float(value == 1.0)
        return self._unreadable(value, "expected 0, 1 or -1; set success to a threshold or a callable")

    def _verdict(self, success: Callable[[float], Any], value: float) -> float:
        try:
            verdict = to_float(success(value))
        except Exception as error:  # also an error in the user's callable must not end a long run
            return self._unreadable(value, f"{type(error).__name__}: {error}")
        if math.isnan(verdict):  # NaN or None
            return math.nan
        if verdict in (0.0, 1.0):
            return verdict
        return self._unreadable(value, f"success returned {verdict!r}; expected True, False or None")

    def _unreadable(self, reward: object, why: str) -> float:
        self.unreadable += 1
        if _now_and_then(self.unreadable):
            message = "unreadable reward %s counts as unscorable (%d so far): %s"
            logger.warning(message, short(reward), self.unreadable, why)
        return math.nan


def _now_and_then(count: int) -> bool:
    """True for the 1st, 2nd, 4th, 8th ... event, to keep the log short."""
    return count & (count - 1) == 0


def reward_values(rewards: Any) -> FloatArray:
    """[C] rewards of a sequence of any library as numbers; NaN for None, and with a warning for what is not `scorable`.

    Raises InputError for what is not a sequence.
    """
    if type(rewards) is np.ndarray and rewards.ndim == 1 and rewards.dtype.kind in "fiub":
        values = rewards.astype(float)
        return np.where(scorable(values), values, np.nan)
    return RewardReader().values(listed("rewards", rewards, "with one for each rollout"))


def rollout_groups(what: str, values: Any, prompts: int) -> list[list[Any]]:
    """[Q] lists, one value for each rollout of a prompt, from sequences of any library.

    Raises InputError for another number of groups, and for groups that are not sequences.
    """
    groups = listed(what, values, "with one list for each prompt")
    if len(groups) != prompts:
        raise InputError(f"got {len(groups)} lists of {what} for {prompts} prompts; expected one for each")
    items = "with one number for each rollout"
    return [listed(f"{what} of prompt {q}", group, items) for q, group in enumerate(groups)]


def check_group_sizes(groups: Sequence[Any], counts: IntArray) -> None:
    """Raise InputError unless the group of each prompt has one entry for each of its [Q] counts."""
    got = np.array([len(group) for group in groups], dtype=np.int64)
    if len(got) != len(counts):
        raise InputError(f"got the rewards of {len(got)} prompts; expected those of {len(counts)}, in their order")
    if (got != counts).any():
        q = int(np.argmax(got != counts))
        raise InputError(
            f"prompt {q} of the batch was planned with {counts[q]} rollouts, but has {got[q]} rewards "
            f"({int((got != counts).sum())} of {len(counts)} prompts differ); give one reward for each rollout, in the "
            "order of the prompts, None for an unscorable one"
        )


@dataclass(frozen=True)
class GivenRollouts:
    """What a caller gave of the rollouts of Q prompts, by prompt."""

    rewards: list[list[Any]]
    """As they were given."""
    logprobs: list[FloatArray] | None
    successes: list[FloatArray] | None
    lengths: list[FloatArray] | None

    @classmethod
    def read(cls, prompts: int, rewards: Any, logprobs: Any, successes: Any, lengths: Any) -> GivenRollouts:
        """Everything but the rewards is optional. Raises InputError for other shapes, and for what is not a number."""
        groups = rollout_groups("rewards", rewards, prompts)

        def given(values: Any, read: Callable[[Any, list[list[Any]]], list[FloatArray]]) -> list[FloatArray] | None:
            return None if values is None else read(values, groups)

        return cls(
            groups, given(logprobs, read_logprobs), given(successes, read_successes), given(lengths, read_lengths)
        )


def read_logprobs(values: Any, groups: Sequence[Sequence[Any]]) -> list[FloatArray]:
    """[Q] log probabilities, one for each value in `groups`; NaN where unknown: None, NaN, beyond `LARGEST_LOGPROB`,
    and, with a warning, positive ones.

    Raises InputError for other shapes and for anything but numbers.
    """
    given = rollout_groups("logprobs", values, len(groups))
    if list(map(len, given)) != list(map(len, groups)):
        raise InputError(
            "logprobs and rewards differ in shape; give one log probability for each rollout, None where unknown"
        )
    read = [read_numbers(f"logprobs of prompt {q}", group) for q, group in enumerate(given)]
    known = [np.where((np.abs(group) <= LARGEST_LOGPROB) & (group <= ROUNDING), group, np.nan) for group in read]
    positive = sum(int((group > ROUNDING).sum()) for group in read)
    if positive:
        logger.warning(
            "%d log probabilities are positive, up to %g, and count as unknown; do not give surprisals",
            positive,
            np.nanmax(np.concatenate(read)),
        )
    return known


def read_lengths(values: Any, groups: Sequence[Sequence[Any]]) -> list[FloatArray]:
    """[Q] lengths in tokens, one for each value in `groups`; NaN where unknown: None, NaN, infinity.

    Raises InputError for other shapes and for anything but numbers.
    """
    given = rollout_groups("lengths", values, len(groups))
    if list(map(len, given)) != list(map(len, groups)):
        raise InputError("lengths and rewards differ in shape; give one length for each rollout, None where unknown")
    read = [read_numbers(f"lengths of prompt {q}", group) for q, group in enumerate(given)]
    for q, group in enumerate(read):
        if (group < 0).any():
            raise InputError(f"lengths of prompt {q} are {short(given[q])}; expected numbers of at least 0, or None")
    return [np.where(np.isfinite(group), group, np.nan) for group in read]


def read_successes(values: Any, groups: Sequence[Sequence[Any]]) -> list[FloatArray]:
    """[Q] successes, one for each value in `groups`: 1, 0, or NaN if undecided (None, NaN).

    Raises InputError for other shapes and for anything else.
    """
    given = rollout_groups("successes", values, len(groups))
    if list(map(len, given)) != list(map(len, groups)):
        raise InputError("successes and rewards differ in shape; give True, False or None for each rollout")
    read = [read_numbers(f"successes of prompt {q}", group) for q, group in enumerate(given)]
    for q, group in enumerate(read):
        if not np.isin(group[~np.isnan(group)], (0.0, 1.0)).all():
            raise InputError(f"successes of prompt {q} are {short(given[q])}; expected True, False or None")
    return read


def counted(successes: Any, rollouts: Any, prompts: int) -> tuple[FloatArray, FloatArray]:
    """[Q] successes and [Q] rollouts of Q prompts. Raises InputError unless whole, 0 <= successes <= rollouts."""
    expected = f"expected successes and rollouts of {prompts} prompts, 0 <= successes <= rollouts"
    try:
        k, n = whole_numbers("successes", successes), whole_numbers("rollouts", rollouts)
    except InputError as error:
        raise InputError(f"{expected}; {error}") from error
    if not len(k) == len(n) == prompts or (k > n).any():
        raise InputError(f"{expected}; got {short(k.tolist())} and {short(n.tolist())}")
    return k.astype(float), n.astype(float)


def tally(outcomes: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Successes [Q] and scorable rollouts [Q] of Q groups of outcomes."""
    owner = np.repeat(np.arange(len(outcomes)), [len(group) for group in outcomes])
    values = np.concatenate([np.empty(0), *outcomes])
    known = ~np.isnan(values)
    successes = np.bincount(owner[known], values[known], minlength=len(outcomes)).astype(float)
    return successes, np.bincount(owner[known], minlength=len(outcomes)).astype(float)


def read_probabilities(keys: Sequence[str], success_probability: Any) -> dict[str, float]:
    """True success probabilities by key. Raises InputError unless there is one number in [0, 1] for each key."""
    p = read_numbers("success_probability", success_probability)
    if len(p) != len(keys) or not ((p >= 0) & (p <= 1)).all():
        raise InputError(
            f"got {len(p)} success probabilities {short(p.tolist())} for {len(keys)} prompts; expected one number in "
            "[0, 1] for each"
        )
    return dict(zip(keys, p.tolist(), strict=True))
