"""What stands out in the log of a run: each finding with its number, and what to do about it.

Values of single steps are noisy and depend on each other, so that means have intervals over blocks of consecutive
steps. State that changes in a run, such as trust, is read from its second half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from viprl import metrics as names
from viprl.analysis.statistics import Estimate, over_blocks
from viprl.report.findings import UNIFORM
from viprl.report.uniform_steps import uniform_steps_and_advice
from viprl.report.words import ends, num
from viprl.runs.reader import Run
from viprl.utils.arrays import FloatArray
from viprl.utils.numerics import number

GOOD, NOTE, PROBLEM = "good", "note", "problem"
"""How bad a finding is. A problem is something that costs the run, or that makes its numbers wrong."""
ENOUGH = 10
"""Logged steps that a verdict needs."""


@dataclass(frozen=True)
class Diagnosis:
    """One finding about a strategy of a run."""

    level: str
    name: str
    sentence: str
    """With the number."""
    remedy: str = ""


class _Log:
    """The metrics of the steps that one strategy trained."""

    def __init__(self, run: Run, strategy: str) -> None:
        self.rows = [row for row in run.rows_of(strategy) if names.PREFIX + names.COUNTS_MEAN in row]

    def __len__(self) -> int:
        return len(self.rows)

    def all(self, name: str, prefix: str = names.PREFIX) -> FloatArray:
        """[T] a metric; NaN where it was not logged."""
        return np.array([number(row.get(prefix + name)) for row in self.rows])

    def late(self, name: str, prefix: str = names.PREFIX) -> float:
        """Its mean over the second half; NaN if it was not logged there."""
        values = self.all(name, prefix)[len(self.rows) // 2 :]
        known = values[np.isfinite(values)]
        return float(known.mean()) if len(known) else float("nan")

    def mean(self, name: str) -> Estimate | None:
        """Its mean over the run, with an interval."""
        return over_blocks(self.all(name)[None])


def diagnose(run: Run, strategy: str) -> list[Diagnosis]:
    """What stands out for one strategy, the most important first; one note if its log says nothing about VIP."""
    log = _Log(run, strategy)
    if not len(log):
        remedy = "train with a trainer of viprl, and log its metrics"
        return [Diagnosis(NOTE, "log", "No step has metrics of VIP.", remedy)]
    found = [one for check in _CHECKS if strategy != UNIFORM or check is not _variance for one in check(log)]
    equal, advice = uniform_steps_and_advice(run, strategy)
    if strategy == UNIFORM:
        remedy = "shadow=['default'] logs what it would have achieved"
        found.append(Diagnosis(NOTE, "variance", "All prompts have the same rollouts, as without VIP.", remedy))
    elif advice:
        found.append(Diagnosis(NOTE, "equal counts", equal, advice))
    return sorted(found, key=lambda one: (PROBLEM, NOTE, GOOD).index(one.level))


def _variance(log: _Log) -> Iterator[Diagnosis]:
    estimate = log.mean(names.REALISED_RATIO)
    if estimate is None:
        yield Diagnosis(
            PROBLEM,
            "variance",
            "No step had a group whose rewards differ, so that nothing was learned from them.",
            "check the rewards, and whether the prompts are too hard or too easy",
        )
        return
    aim = log.late(names.AIM)
    said = f"The gradient variance is {num(estimate.mean)} of that of uniform counts ({ends(estimate)})"
    verdict = estimate.against(1.0)
    if len(log) < ENOUGH:
        yield Diagnosis(NOTE, "variance", f"{said}; {len(log)} logged steps are too few to judge.", "train longer")
    elif np.isfinite(aim):
        yield Diagnosis(GOOD, "variance", f"{said}, at an aim of {num(aim)}.")
    elif verdict == "lower":
        yield Diagnosis(GOOD, "variance", f"{said}.")
    elif verdict == "higher":
        remedy = "set strategy='uniform' with shadow=['default'] and compare; report it if the guard does not react"
        yield Diagnosis(PROBLEM, "variance", f"{said}: the counts do harm.", remedy)
    else:
        remedy = "see the other findings; `viprl variance` measures what counts can save for this model and data"
        yield Diagnosis(NOTE, "variance", f"{said}: no clear difference.", remedy)


def _prediction(log: _Log) -> Iterator[Diagnosis]:
    predicted, gap = log.late(names.PREDICTED_RATIO), log.all(names.REALISED_RATIO) - log.all(names.PREDICTED_RATIO)
    estimate = over_blocks(gap[len(gap) // 2 :][None])
    if estimate is None or len(log) < ENOUGH or np.isfinite(log.late(names.LOOKS)):
        return  # with two waves the prediction has a part that the groups do not show
    if estimate.against(0.0) == "higher" and estimate.mean > 0.1:
        yield Diagnosis(
            NOTE,
            "prediction",
            f"The variance is {num(estimate.mean)} ({ends(estimate)}) above the predicted {num(predicted)} in the "
            "second half of the run: success changes faster than is learned, or prompts do not keep their identity.",
            "check `id_column`, and that prompts keep their identity from epoch to epoch",
        )


def _trust(log: _Log) -> Iterator[Diagnosis]:
    trust = log.late(names.TRUST)
    if trust < 0.9:
        yield Diagnosis(
            PROBLEM if trust < 0.5 else NOTE,
            "trust",
            f"The guard lets {trust:.0%} of the predicted weights through in the second half of the run.",
            "check that rewards are those that train, and that prompts keep their identity; otherwise nothing is lost",
        )
    for name, what in ((names.SELECTION_TRUST, "the selection"), (names.SHRINKAGE, "shrunk baselines")):
        if log.late(name) < 0.5:
            yield Diagnosis(NOTE, "trust", f"The guard of {what} is at {num(log.late(name))}.", "none: nothing is lost")


def _rewards(log: _Log) -> Iterator[Diagnosis]:
    lost, wasted = log.mean(names.UNSCORABLE), log.late(names.ZERO_ADVANTAGE)
    if lost is not None and lost.mean > 0.01:
        level = PROBLEM if lost.mean > 0.2 else NOTE
        said = f"{lost.mean:.1%} of the rollouts have no reward that can be read."
        yield Diagnosis(level, "rewards", said, "look at what the reward functions return")
    if wasted > 0.5:
        yield Diagnosis(
            NOTE,
            "rollouts without gradient",
            f"{wasted:.0%} of the rollouts have an advantage of 0 in the second half of the run.",
            "leave out solved prompts"
            if np.isfinite(log.late(names.SQUARED_WEIGHTS))
            else "candidates=2 chooses the prompts too; waves=2, where prompts are seen once; leave out solved prompts",
        )


def _bounds(log: _Log) -> Iterator[Diagnosis]:
    largest, mean = log.all(names.COUNTS_MAX), log.all(names.COUNTS_MEAN)
    top = np.nanmax(largest)
    at_top = float(np.mean(largest[len(largest) // 2 :] >= top))
    if at_top > 0.8 and top > 1.5 * np.nanmean(mean):
        yield Diagnosis(
            NOTE,
            "bounds",
            f"The largest group has {top:g} rollouts, the same number in {at_top:.0%} of the steps of the second half: "
            "the maximum is probably in the way.",
            f"raise max_rollouts above {top:g}",
        )


def _selection(log: _Log) -> Iterator[Diagnosis]:
    squares, neglected = log.late(names.SQUARED_WEIGHTS), log.late(names.NEGLECTED)
    if squares > 2.5:
        yield Diagnosis(
            NOTE,
            "candidates",
            f"The weights of the chosen prompts have a mean square of {num(squares)}: the gradient has as much noise "
            f"as from {1 / squares:.0%} of them.",
            "fewer candidates, or more prompts in a step",
        )
    if neglected > 0.6:
        said = f"{neglected:.0%} of the prompts that were offered lately were not sampled."
        yield Diagnosis(NOTE, "candidates", said, "fewer candidates, if these prompts should be learned")


def _noise(log: _Log) -> Iterator[Diagnosis]:
    share = log.late(names.ROLLOUT_NOISE)
    if share < 0.3:
        said = f"{share:.0%} of the second moment of the gradient come from the rollouts: counts can lower no more."
        yield Diagnosis(NOTE, "noise", said, "candidates=2, or more prompts with smaller groups")


def _spending(log: _Log) -> Iterator[Diagnosis]:
    saved = log.late(names.SAVED_ROLLOUTS)
    if np.isfinite(saved) and np.isfinite(log.late(names.AIM)):
        if saved < 0.02:
            remedy = (
                "a larger average group, min_rollouts=2, baseline='expected'; waves=2 for prompts that are seen once"
            )
            yield Diagnosis(NOTE, "spending", f"{saved:.0%} of the rollouts are saved in the second half.", remedy)
        else:
            yield Diagnosis(GOOD, "spending", f"{saved:.0%} of the rollouts are saved in the second half of the run.")


def _waves(log: _Log) -> Iterator[Diagnosis]:
    looks, trust = log.mean(names.LOOKS), log.late(names.WAVES_TRUST)
    if trust < 1:
        said = "Two waves had a larger variance than one, and are not used any more."
        yield Diagnosis(NOTE, "waves", said, "waves=1 saves the planning")
    elif looks is not None and looks.mean == 0:
        said = f"No step of {len(log)} had first looks, although two waves are allowed."
        yield Diagnosis(
            NOTE, "waves", said, "see docs/waves.md: known prompts, small groups and partial credit need none"
        )


def _overhead(log: _Log) -> Iterator[Diagnosis]:
    seconds, step = log.late(names.OVERHEAD), log.late("step_time", prefix="")  # TRL's name
    if seconds > max(0.05 * step, 0.2):
        said = f"VIP takes {num(seconds)} s of a step of {num(step)} s."
        yield Diagnosis(
            NOTE, "overhead", said, "features='length' or 'none', if most of it is the embedding of new prompts"
        )


_CHECKS: tuple[Callable[[_Log], Iterator[Diagnosis]], ...] = (
    _variance,
    _prediction,
    _trust,
    _rewards,
    _bounds,
    _selection,
    _noise,
    _spending,
    _waves,
    _overhead,
)
