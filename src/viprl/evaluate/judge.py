"""What decides whether a completion is right: a built-in comparison with the answer, or a reward function."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from viprl.engines.success import SuccessCriterion
from viprl.errors import DataError, InputError
from viprl.evaluate.generations import Generations
from viprl.evaluate.graded import Graded, grade
from viprl.evaluate.problems import Problem
from viprl.outcomes import RewardReader
from viprl.rewards.calling import call_reward, check_arguments
from viprl.rewards.registry import MODES, require_packages, resolve_rewards
from viprl.utils.words import did_you_mean


@dataclass(frozen=True)
class Judge:
    """How completions are graded."""

    name: str
    """A built-in reward or "module:function"."""
    mode: str | None
    """How a built-in reward reads answers; None for a function."""
    function: Any = None
    success: Any = None
    """What of the function's rewards counts as success, as in `viprl.VIP`."""

    @property
    def votes(self) -> bool:
        """Whether completions have answers that can be counted in a majority vote."""
        return self.mode is not None


def chosen_judge(verify: str, success: Any = None) -> Judge:
    """The judge of an option --verify.

    Args:
        verify: "math", "math_last_number", "exact_match" or "module:function".
        success: for a function, what counts as success: a threshold or "module:function". Default: rewards must be 0/1
            or -1/+1.

    Raises InputError for other values, MissingPackageError if a built-in reward lacks a package.
    """
    if verify in MODES:
        if success is not None:
            raise InputError(f"--success is for a reward function; --verify {verify} gives 0 or 1, leave it out")
        require_packages(verify)
        return Judge(verify, MODES[verify])
    if ":" not in verify:
        hint = did_you_mean(verify, MODES) or f"expected {', '.join(MODES)} or module:function"
        raise InputError(f"--verify is {verify!r}; {hint}")
    (function,) = resolve_rewards([verify])
    return Judge(verify, None, function, SuccessCriterion(success, [function], option="--success").rule)


def graded(found: Sequence[Generations], judge: Judge, problems: Mapping[str, Problem]) -> list[Graded]:
    """The graded completions of some problems.

    Args:
        found: problems with their completions.
        judge: what grades them.
        problems: id -> the problem in the data set, for reward functions; may be empty.

    Raises DataError if a reward function returns a value that is neither success nor failure, InputError if it needs
    columns that are not there. Exceptions of the function are passed on, with a note.
    """
    if judge.mode is not None:
        return grade(found, judge.mode)
    return [_rewarded(some, judge, problems.get(some.id)) for some in found]


def _rewarded(some: Generations, judge: Judge, problem: Problem | None) -> Graded:
    columns = {"solution": some.answer} if problem is None else {**problem.columns, "solution": problem.answer}
    try:
        check_arguments(judge.function, columns)
    except InputError as error:
        hint = "; its columns are those of --dataset, so set it" if problem is None else ""
        raise InputError(f"{error}{hint}") from error
    prompt = "" if problem is None else problem.prompt
    rewards = call_reward(judge.function, prompt, some.completions, columns, f"problem {some.id!r}")
    reader = RewardReader(judge.success)
    outcomes = reader(rewards).tolist()
    if reader.unreadable:
        pairs = zip(rewards, outcomes, strict=True)
        example = next(reward for reward, outcome in pairs if math.isnan(outcome) and not math.isnan(reward))
        raise DataError(
            f"problem {some.id!r}: {judge.name} returned {example:g}, which is neither success nor failure; set "
            "--success to the smallest reward that counts as success"
        )
    missing = sum(map(math.isnan, outcomes))
    correct = tuple(outcome == 1 for outcome in outcomes)
    return Graded(some.id, some.answer, correct, (), missing, some.truncated, missing < len(outcomes))
