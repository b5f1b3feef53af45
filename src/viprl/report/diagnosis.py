"""What stands out in the log of a run: each finding with its number, and what to do about it.

Values of single steps are noisy and depend on each other, so that means have intervals over blocks of consecutive
steps. State that changes in a run, such as trust, is read from its second half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from viprl import metrics as names
from viprl.analysis.statistics import Estimate, difference, over_blocks
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
EVEN = 1.5
"""Mean squared weight of chosen prompts below which more candidates cost little."""


@dataclass(frozen=True)
class Diagnosis:
    """One finding about a strategy of a run."""

    level: str
    name: str
    sentence: str
    """With the number."""
    remedy: str = ""
    value: float = float("nan")
    """The number; NaN if there is none."""


class _Log:
    """The metrics of the steps that one strategy trained."""

    def __init__(self, run: Run, strategy: str) -> None:
        self.rows = [row for row in run.rows_of(strategy) if names.PREFIX + names.COUNTS_MEAN in row]
        alone = len(run.strategies) == 1
        late = [prompt.rollouts[len(prompt.rollouts) // 2 :] for prompt in run.history] if alone else []
        self.sizes = np.concatenate([np.empty(0), *late])
        """Sizes of the groups, in the second half of the visits of each prompt; empty if the log does not say."""

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

    def squared_errors(self) -> FloatArray:
        """[T] unbiased estimates of the mean of (predicted - true success probability)^2: the Brier score without the
        variance of the outcomes, which a perfect prediction has as well. NaN where rewards are not successes, with
        groups of one rollout, whose variance is unknown, and with two waves, where the size of a group depends on its
        rewards."""
        plain = np.isclose(self.all(names.PROMPT_REWARD), self.all(names.SUCCESS_RATE))
        plain &= (self.all(names.COUNTS_MIN) > 1) & ~(self.all(names.LOOKS) > 0)
        return np.where(plain, self.all(names.BRIER) - self.all(names.REWARD_VARIANCE), np.nan)


def diagnose(run: Run, strategy: str) -> list[Diagnosis]:
    """What stands out for one strategy, the most important first; one note if its log says nothing about VIP."""
    log = _Log(run, strategy)
    if not len(log):
        remedy = "train with a trainer of viprl, and log its metrics"
        return [Diagnosis(NOTE, "log", "No step has metrics of VIP.", remedy)]
    checks = [check for check in _CHECKS if strategy != UNIFORM or check not in (_variance, _calibration)]
    found = [one for check in checks for one in check(log)]
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
    value = estimate.mean
    aim = log.late(names.AIM)
    said = f"The gradient variance is {num(estimate.mean)} of that of uniform counts ({ends(estimate)})"
    verdict = estimate.against(1.0)
    if len(log) < ENOUGH:
        few = f"{said}; {len(log)} logged steps are too few to judge."
        yield Diagnosis(NOTE, "variance", few, "train longer", value)
    elif np.isfinite(aim):
        yield Diagnosis(GOOD, "variance", f"{said}, at an aim of {num(aim)}.", value=value)
    elif verdict == "lower":
        yield Diagnosis(GOOD, "variance", f"{said}.", value=value)
    elif verdict == "higher":
        remedy = "set strategy='uniform' with shadow=['default'] and compare; report it if the guard does not react"
        yield Diagnosis(PROBLEM, "variance", f"{said}: the counts do harm.", remedy, value)
    else:
        remedy = "see the other findings; `viprl variance` measures what counts can save for this model and data"
        yield Diagnosis(NOTE, "variance", f"{said}: no clear difference.", remedy, value)


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
            estimate.mean,
        )


def _trust(log: _Log) -> Iterator[Diagnosis]:
    trust = log.late(names.TRUST)
    if trust < 0.9:
        yield Diagnosis(
            PROBLEM if trust < 0.5 else NOTE,
            "trust",
            f"The guard lets {trust:.0%} of the predicted weights through in the second half of the run.",
            "check that rewards are those that train, and that prompts keep their identity; otherwise nothing is lost",
            trust,
        )
    for name, what in ((names.SELECTION_TRUST, "the selection"), (names.SHRINKAGE, "shrunk baselines")):
        if (value := log.late(name)) < 0.5:
            said = f"The guard of {what} is at {num(value)}."
            yield Diagnosis(NOTE, "trust", said, "none: nothing is lost", value)


def _bad_predictions(log: _Log) -> Iterator[Diagnosis]:
    if bad := int((log.all(names.BAD_PREDICTIONS) > 0).sum()):
        said = f"{bad} of {len(log)} logged steps had predictions that cannot be used, and were sampled without them."
        yield Diagnosis(PROBLEM, "predictions", said, "correct the predictor that the warnings of the run name", bad)


def _rewards(log: _Log) -> Iterator[Diagnosis]:
    lost, wasted = log.mean(names.UNSCORABLE), log.late(names.ZERO_ADVANTAGE)
    if np.isnan(log.late(names.SHRINKAGE)):  # with group baselines, equal rewards leave at most a KL penalty
        wasted = float(np.fmax(wasted, log.late(names.UNINFORMATIVE)))
    if lost is not None and lost.mean > 0.01:
        level = PROBLEM if lost.mean > 0.2 else NOTE
        said = f"{lost.mean:.1%} of the rollouts have no reward that can be read."
        yield Diagnosis(level, "rewards", said, "look at what the reward functions return", lost.mean)
    if wasted > 0.5:
        squares = log.late(names.SQUARED_WEIGHTS)
        remedy = "candidates=2 chooses the prompts too; waves=2, where prompts are seen once; leave out solved prompts"
        if np.isfinite(squares):
            more = f"more candidates: the weights of the chosen prompts are even (mean square {num(squares)}); "
            remedy = f"{more if squares < EVEN else ''}leave out solved prompts"
        said = f"{wasted:.0%} of the rollouts add no reward to the gradient in the second half of the run."
        yield Diagnosis(NOTE, "rollouts without gradient", said, remedy, wasted)


def _calibration(log: _Log) -> Iterator[Diagnosis]:
    """How far predicted success probabilities are from the true ones, what they explain, and whether this gets worse.

    One prediction for all prompts has the mean squared error Var(p) = m (1 - m) - E p (1 - p), where m is the mean
    success rate, and E p (1 - p) the mean variance of the rewards.
    """
    squares, half = log.squared_errors(), len(log) // 2
    late = over_blocks(squares[half:][None])
    if late is None or len(log) < ENOUGH:
        return
    error = max(late.mean, 0.0) ** 0.5
    said = f"Predicted success probabilities are off by {num(error)} (root mean square, second half of the run)"
    rate = log.late(names.SUCCESS_RATE)
    spread = rate * (1 - rate) - log.late(names.REWARD_VARIANCE)
    chosen = np.isfinite(log.late(names.SQUARED_WEIGHTS))  # then the rate is that of other prompts
    if chosen or spread <= 0:
        yield Diagnosis(GOOD, "calibration", f"{said}.", value=error)
    elif late.against(spread) == "lower":
        said += f"; one probability for all prompts is off by {num(spread**0.5)}."
        yield Diagnosis(GOOD, "calibration", said, value=error)
    else:
        said += f", no better than one probability for all prompts, which is off by {num(spread**0.5)}."
        remedy = "more epochs, a warm start, or features that describe the prompts; `viprl replay` compares features"
        yield Diagnosis(NOTE, "calibration", said, remedy, error)
    before, after = (over_blocks(part[None], 4) for part in (squares[half // 2 : half], squares[-(half // 2) :]))
    if before is None or after is None or difference(after, before).against(0.0) != "higher":
        return
    if after.mean > max(1.25 * before.mean, 0.01):
        said = (
            f"The mean squared error of the predictions rose from {num(before.mean, 3)} in the second quarter of the "
            f"run to {num(after.mean, 3)} in the last: what was learned, or the features, have become stale."
        )
        remedy = "shadow=['uniform'] or another strategy to compare; `viprl replay RUN --features` compares features"
        yield Diagnosis(NOTE, "stale predictions", said, remedy, after.mean / max(before.mean, 1e-9))


def _bounds(log: _Log) -> Iterator[Diagnosis]:
    largest, mean = log.all(names.COUNTS_MAX), log.all(names.COUNTS_MEAN)
    top, least = np.nanmax(largest), np.nanmin(log.all(names.COUNTS_MIN))
    if not top > 1.5 * np.nanmean(mean):
        return
    at_top = float(np.mean(largest[len(largest) // 2 :] >= top))
    if at_top > 0.8:
        yield Diagnosis(
            NOTE,
            "bounds",
            f"The largest group has {top:g} rollouts, the same number in {at_top:.0%} of the steps of the second half: "
            "the maximum is probably in the way.",
            f"raise max_rollouts above {top:g}",
            at_top,
        )
    low, high = (float(np.mean(log.sizes == end)) if len(log.sizes) else 0.0 for end in (least, top))
    if low + high > 0.9 and min(low, high) > 0.1:
        said = (
            f"{high:.0%} of the groups have {top:g} rollouts and {low:.0%} have {least:g}: few are between the bounds."
        )
        yield Diagnosis(NOTE, "bounds", said, f"raise max_rollouts above {top:g}, or lower min_rollouts", low + high)


def _selection(log: _Log) -> Iterator[Diagnosis]:
    squares, neglected = log.late(names.SQUARED_WEIGHTS), log.late(names.NEGLECTED)
    if squares > 2.5:
        yield Diagnosis(
            NOTE,
            "candidates",
            f"The weights of the chosen prompts have a mean square of {num(squares)}: the gradient has as much noise "
            f"as from {1 / squares:.0%} of them.",
            "fewer candidates, or more prompts in a step",
            squares,
        )
    if neglected > 0.6:
        said = f"{neglected:.0%} of the prompts that were offered lately were not sampled."
        remedy = "fewer candidates, if these prompts should be learned"
        yield Diagnosis(NOTE, "candidates", said, remedy, neglected)


def _noise(log: _Log) -> Iterator[Diagnosis]:
    """With the share f of the second moment that comes from the rollouts and the variance ratio rho of the counts, the
    second moment relative to uniform counts is R = 1/(1 - f + f/rho)."""
    share, rho = log.late(names.ROLLOUT_NOISE), log.late(names.REALISED_RATIO)
    if not np.isfinite(share):
        return
    said = f"{share:.0%} of the second moment of the gradient come from the rollouts"
    if share < 0.3:
        remedy = "candidates=2, or more prompts with smaller groups"
        yield Diagnosis(NOTE, "noise", f"{said}: counts can lower no more.", remedy, share)
    if rho > 0 and share <= 1:
        ratio = 1 / (1 - share + share / rho)
        said += f". With a variance ratio of {num(rho)} it is R = {num(ratio)} of that with uniform counts."
        if ratio < 1:
            yield Diagnosis(GOOD, "second moment", said, value=ratio)
        else:
            yield Diagnosis(NOTE, "second moment", said, "see the other findings", ratio)


def _spending(log: _Log) -> Iterator[Diagnosis]:
    saved = log.late(names.SAVED_ROLLOUTS)
    if np.isfinite(saved) and np.isfinite(log.late(names.AIM)):
        if saved < 0.02:
            remedy = (
                "a larger average group, min_rollouts=2, baseline='expected'; waves=2 for prompts that are seen once"
            )
            said = f"{saved:.0%} of the rollouts are saved in the second half."
            yield Diagnosis(NOTE, "spending", said, remedy, saved)
        else:
            said = f"{saved:.0%} of the rollouts are saved in the second half of the run."
            yield Diagnosis(GOOD, "spending", said, value=saved)


def _waves(log: _Log) -> Iterator[Diagnosis]:
    looks, trust = log.mean(names.LOOKS), log.late(names.WAVES_TRUST)
    if trust < 1:
        said = "Two waves had a larger variance than one, and are not used any more."
        yield Diagnosis(NOTE, "waves", said, "waves=1 saves the planning", trust)
    elif looks is not None and looks.mean == 0:
        said = f"No step of {len(log)} had first looks, although two waves are allowed."
        remedy = "see docs/waves.md: known prompts, small groups and partial credit need none"
        yield Diagnosis(NOTE, "waves", said, remedy, 0.0)


def _overhead(log: _Log) -> Iterator[Diagnosis]:
    seconds, step = log.late(names.OVERHEAD), log.late(names.STEP_TIME, prefix="")
    if seconds > max(0.05 * step, 0.2):
        said = f"VIP takes {num(seconds)} s of a step of {num(step)} s."
        remedy = "features='length' or 'none', if most of it is the embedding of new prompts"
        yield Diagnosis(NOTE, "overhead", said, remedy, seconds / step)


_CHECKS: tuple[Callable[[_Log], Iterator[Diagnosis]], ...] = (
    _variance,
    _prediction,
    _calibration,
    _trust,
    _bad_predictions,
    _rewards,
    _bounds,
    _selection,
    _noise,
    _spending,
    _waves,
    _overhead,
)
