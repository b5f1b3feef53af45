"""From the single rollouts in the log of a trainer to the history of each prompt."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mode
from typing import Any, NamedTuple

import numpy as np

from viprl.errors import DataError, InputError
from viprl.outcomes import RewardReader, Success
from viprl.prompts import Prompt
from viprl.runs.history import PromptHistory, absent, ground_truth_text, history_id
from viprl.runs.visits import Visit, of_one_kind, successes_first
from viprl.utils.arrays import FloatArray
from viprl.utils.comparisons import read_comparison
from viprl.utils.imports import import_function
from viprl.utils.words import first_line

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LoggedRun:
    """What a log says about a run."""

    histories: list[PromptHistory]
    """One for each prompt."""
    batch_size: int | None = None
    """Prompts of a training step; None if the log does not say."""
    min_rollouts: int | None = None
    """The bound that the run was started with; None if the log does not say."""
    max_rollouts: int | None = None
    own: bool = False
    """Whether a trainer of this package wrote the log, so that bounds that were not set are its defaults."""
    stored: bool = False
    """Whether the log is in a form of this package, which has no columns to choose from."""

    @property
    def rewarded(self) -> bool:
        """Whether the histories have rewards, because these are not 0/1 or -1/+1."""
        return self.histories[0].rewards is not None


class LoggedRollout(NamedTuple):
    """One rollout in the log of a trainer."""

    key: str
    """Identity of its prompt, see `viprl.runs.history.history_id`."""
    prompt: Prompt
    reward: Any
    ground_truth: str | None = None
    length: float = math.nan
    """In the unit of the log; NaN if unknown."""

    @classmethod
    def read(
        cls, where: str, prompt: Prompt, reward: Any, ground_truth: Any = None, length: float = math.nan
    ) -> LoggedRollout:
        """Check the prompt. Raises DataError, which begins with `where`, for a missing one and for one of another type.

        A missing or unreadable reward is no error: such a rollout is unscorable.
        """
        if absent(prompt):
            raise DataError(f"{where} has no prompt (it is {prompt!r}); delete the row")
        truth = ground_truth_text(ground_truth)
        try:
            return cls(history_id(prompt, truth), prompt, _number_in(reward), truth, length)
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(f"{where}: {first_line(error)}") from error


def characters(completion: Any) -> float:
    """The length of a completion in characters, the sum of the contents of messages; NaN if it has no text."""
    if isinstance(completion, str):
        return float(len(completion))
    parts = completion if isinstance(completion, list) else []
    texts = [part.get("content") for part in parts if isinstance(part, Mapping)]
    known = [len(text) for text in texts if isinstance(text, str)]
    return float(sum(known)) if known else math.nan


def _number_in(reward: Any) -> Any:
    """The number in a text, as some logs write it; anything else as it is."""
    if not isinstance(reward, str):
        return reward
    try:
        return float(reward)
    except ValueError:
        return reward


class LoggedStep(NamedTuple):
    """The outcomes of one training step."""

    step: int
    groups: dict[str, Visit]
    """What each prompt showed, in the order of the log."""


def warn_of_second_waves(where: str | Path, rollouts: int) -> None:
    """Warn of a log with rollouts of second waves."""
    if rollouts:
        logger.warning(
            "%s: %d rollouts are of second waves, so that the sizes of their groups depend on rewards: success rates, "
            "log losses and variances from this log are biased",
            where,
            rollouts,
        )


class StepReader:
    """Reads the rollouts of a log step by step.

    Args:
        where: the log, for errors.
        success: which rewards are a success, see `viprl.outcomes.Success`. None: keep the rewards themselves.
    """

    def __init__(self, where: str, success: Success) -> None:
        self.where = where
        self._read = RewardReader(success)
        self._first: dict[str, LoggedRollout] = {}
        self._last: Any = None
        self._rollouts = 0

    def __call__(self, step: int, rollouts: Sequence[LoggedRollout]) -> LoggedStep:
        """The outcomes of one step. Rollouts whose reward is missing or unreadable do not count."""
        groups: dict[str, list[LoggedRollout]] = {}
        for rollout in rollouts:
            self._first.setdefault(rollout.key, rollout)
            groups.setdefault(rollout.key, []).append(rollout)
            self._last = rollout.reward
        self._rollouts += len(rollouts)
        return LoggedStep(step, {key: self._visit(group) for key, group in groups.items()})

    def _visit(self, rollouts: Sequence[LoggedRollout]) -> Visit:
        values = self._read.values([rollout.reward for rollout in rollouts])
        lengths = np.array([rollout.length for rollout in rollouts])
        given = None if np.isnan(lengths).all() else lengths
        if self._read.success is None:
            known = ~np.isnan(values)
            return Visit(int(known.sum()), rewards=values[known], lengths=None if given is None else given[known])
        return judged_visit(values, given, self._read)

    def prompt(self, key: str) -> Prompt:
        """The prompt with this identity."""
        return self._first[key].prompt

    def run(self, steps: Sequence[LoggedStep]) -> LoggedRun:
        """The histories of these steps, in this order. Raises DataError if they hold no readable reward."""
        visits: dict[str, list[Visit]] = {}
        for step in steps:
            for key, visit in step.groups.items():
                if visit.rollouts > 0:
                    visits.setdefault(key, []).append(visit)
        if not visits:
            raise DataError(
                f"{self.where}: no reward could be read (the last one is {self._last!r}); expected numbers, and with "
                "success (--success) rewards that it can judge; for another column set reward (--reward NAME)"
            )
        if self._read.unreadable:
            logger.warning(
                "%s: %d of %d rewards could not be read and do not count; for another column set reward (--reward "
                "NAME)",
                self.where,
                self._read.unreadable,
                self._rollouts,
            )
        kinds = dict(zip(visits, of_one_kind(list(visits.values())), strict=True))
        histories = [
            PromptHistory.of(key, first.prompt, kinds[key], first.ground_truth)
            for key, first in self._first.items()
            if key in kinds
        ]
        return LoggedRun(histories, mode(len(step.groups) for step in steps))


def judged_visit(rewards: FloatArray, lengths: FloatArray | None, read: RewardReader) -> Visit:
    """The visit as successes among the rollouts that `read` can judge; `lengths` [n] if they are known."""
    outcomes = read.outcomes(rewards)
    known = ~np.isnan(outcomes)
    success = outcomes[known] == 1
    of_known = None if lengths is None else successes_first(lengths[known], success)
    return Visit(int(known.sum()), float(success.sum()), None, of_known)


def judged(histories: Sequence[PromptHistory], success: Success) -> list[PromptHistory]:
    """Histories with rewards as successes of `success`. Raises InputError if no reward can be judged."""
    read, found = RewardReader(success), []
    for history in histories:
        given = [(visit.rewards, visit.lengths) for visit in history.visits]
        visits = [judged_visit(rewards, lengths, read) for rewards, lengths in given if rewards is not None]
        if visits := [visit for visit in visits if visit.rollouts > 0]:
            found.append(PromptHistory.of(history.id, history.prompt, visits, history.ground_truth))
    if not found:
        raise InputError(f"success is {success!r}, which can judge none of the rewards in the log; set a threshold")
    return found


def deciding_reward(reward: str | None, success: Any) -> tuple[str | None, Success]:
    """The column of the reward that decides, and how `viprl.outcomes.RewardReader` reads it.

    Args:
        reward: "NAME" or "NAME>=0.5"; None if `success` says it or the log has one reward.
        success: as for `viprl.outcomes.RewardReader`, or a text: a threshold, "NAME>=0.5" or "NAME" (a column), or
            "module:function".

    Raises InputError for texts that cannot be read, and if the two contradict each other.
    """
    column, rule = _condition(success, "success")
    if reward is None:
        return column, rule
    name, threshold = _condition(reward, "reward")
    if name is None:  # a column with the name of a number
        name, threshold = reward, None
    if (column is not None and column != name) or (rule is not None and threshold is not None):
        raise InputError(f"reward is {reward!r} and success is {success!r}, which contradict each other; set one")
    return name, rule if threshold is None else threshold


def _condition(text: Any, option: str) -> tuple[str | None, Success]:
    """The column and the rule in the text of an option."""
    if not isinstance(text, str):
        return None, text
    if option == "success" and re.fullmatch(r"[\w.]+:[\w.]+", text):
        return None, import_function(text)
    try:
        name, comparison = read_comparison(text)
    except InputError as error:
        raise InputError(f"{option} is {text!r}: {error}") from error
    if comparison is None:
        return name, None
    return name, comparison.number if comparison.sign == ">=" else comparison
