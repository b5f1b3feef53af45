"""From the single rollouts in the log of a trainer to the history of each prompt."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mode
from typing import Any, NamedTuple

from viprl.errors import DataError, InputError
from viprl.outcomes import RewardReader, Success, tally
from viprl.prompts import Prompt
from viprl.runs.history import PromptHistory, absent, counts_of, ground_truth_text, history_id
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
    counted: bool = False
    """Whether the log holds successes, not rewards, so that `reward` and `success` decide nothing."""


class LoggedRollout(NamedTuple):
    """One rollout in the log of a trainer."""

    key: str
    """Identity of its prompt, see `viprl.runs.history.history_id`."""
    prompt: Prompt
    reward: Any
    ground_truth: str | None = None

    @classmethod
    def read(cls, where: str, prompt: Prompt, reward: Any, ground_truth: Any = None) -> LoggedRollout:
        """Check the prompt. Raises DataError, which begins with `where`, for a missing one and for one of another type.

        A missing or unreadable reward is no error: such a rollout is unscorable.
        """
        if absent(prompt):
            raise DataError(f"{where} has no prompt (it is {prompt!r}); delete the row")
        truth = ground_truth_text(ground_truth)
        try:
            return cls(history_id(prompt, truth), prompt, _number_in(reward), truth)
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(f"{where}: {first_line(error)}") from error


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
    groups: dict[str, tuple[float, float]]
    """Scorable rollouts and successes of each prompt, in the order of the log."""


class StepReader:
    """Reads the rollouts of a log step by step.

    Args:
        where: the log, for errors.
        success: which rewards are a success, see `viprl.outcomes.Success`.
    """

    def __init__(self, where: str, success: Success) -> None:
        self.where = where
        self._read = RewardReader(success)
        self._first: dict[str, LoggedRollout] = {}
        self._last: Any = None
        self._rollouts = 0

    def __call__(self, step: int, rollouts: Sequence[LoggedRollout]) -> LoggedStep:
        """The outcomes of one step. Rollouts whose reward is missing or unreadable do not count."""
        groups: dict[str, list[Any]] = {}
        for rollout in rollouts:
            self._first.setdefault(rollout.key, rollout)
            groups.setdefault(rollout.key, []).append(rollout.reward)
            self._last = rollout.reward
        self._rollouts += len(rollouts)
        successes, scorable = tally([self._read(rewards) for rewards in groups.values()])
        return LoggedStep(step, dict(zip(groups, zip(scorable.tolist(), successes.tolist(), strict=True), strict=True)))

    def prompt(self, key: str) -> Prompt:
        """The prompt with this identity."""
        return self._first[key].prompt

    def run(self, steps: Sequence[LoggedStep]) -> LoggedRun:
        """The histories of these steps, in this order. Raises DataError if they hold no readable reward."""
        visits: dict[str, list[tuple[float, float]]] = {}
        for step in steps:
            for key, (n, k) in step.groups.items():
                if n > 0:
                    visits.setdefault(key, []).append((n, k))
        if not visits:
            raise DataError(
                f"{self.where}: no reward could be read as success or failure (the last one is {self._last!r}); "
                "expected 0/1 or -1/+1; for other rewards set success to a threshold (--success 0.5), for another "
                "column reward (--reward NAME)"
            )
        if self._read.unreadable:
            logger.warning(
                "%s: %d of %d rewards are neither success nor failure and do not count; set success to a threshold "
                "(--success 0.5), or reward to another column (--reward NAME)",
                self.where,
                self._read.unreadable,
                self._rollouts,
            )
        histories = [
            PromptHistory(key, first.prompt, *counts_of(visits[key]), first.ground_truth)
            for key, first in self._first.items()
            if key in visits
        ]
        return LoggedRun(histories, mode(len(step.groups) for step in steps))


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
