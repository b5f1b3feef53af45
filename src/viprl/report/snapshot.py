"""The numbers of `viprl watch`: where a run is, its last metrics, and what stands out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from viprl import metrics as names
from viprl.analysis.curves import seed_of
from viprl.report.diagnosis import Diagnosis, diagnose
from viprl.report.spent import spent
from viprl.report.words import num
from viprl.runs.logged_rows import PROGRESS, Row, planned_steps
from viprl.runs.reader import Run, strategy_of
from viprl.utils.arrays import FloatArray
from viprl.utils.numerics import number

RECENT = 20
"""Rows of which a value is the mean."""


@dataclass(frozen=True)
class Gauge:
    """One line of numbers."""

    name: str
    value: str
    detail: str
    series: FloatArray
    """[T] for a sparkline; NaN where nothing was logged."""


@dataclass(frozen=True)
class Snapshot:
    """What is shown of one strategy and seed of a run."""

    name: str
    trained: str
    """Strategy and seed."""
    step: int
    steps: int | None
    """Those of the whole run; None if unknown."""
    step_seconds: float
    """Mean of the last steps; NaN if unknown."""
    row_seconds: float
    """The same between two rows of the log."""
    seconds: float
    """Sum of all steps."""
    gauges: Sequence[Gauge]
    findings: Sequence[Diagnosis]

    @classmethod
    def of(cls, run: Run) -> Snapshot:
        """Of the strategy and seed that logged the last row."""
        last = run.rows[-1]
        strategy, seed = strategy_of(last), seed_of(last)
        own = tuple(row for row in run.rows if strategy_of(row) == strategy and seed_of(row) == seed)
        run, log = replace(run, rows=own), _Rows(own)
        step, steps = _progress(run)
        seconds = log.series(names.STEP_TIME)
        mean = _recent(seconds)
        return cls(
            run.name,
            strategy if "seed" not in last else f"{strategy}, seed {seed}",
            step,
            steps,
            mean,
            mean * run.logging_steps,
            float(np.nansum(seconds)) * run.logging_steps,
            list(_gauges(run, strategy, log)),
            diagnose(run, strategy),
        )

    @property
    def seconds_left(self) -> float:
        """NaN if unknown."""
        return np.nan if self.steps is None else max(0, self.steps - self.step) * self.step_seconds


class _Rows:
    """The rows of a snapshot."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def series(self, name: str, prefix: str = "") -> FloatArray:
        """The values of a metric where it was logged."""
        values = np.array([number(row[prefix + name]) for row in self._rows if prefix + name in row])
        return values[np.isfinite(values)]

    def vip(self, name: str) -> FloatArray:
        return self.series(name, names.PREFIX)


def _recent(values: FloatArray) -> float:
    return float(values[-RECENT:].mean()) if len(values) else float("nan")


def _progress(run: Run) -> tuple[int, int | None]:
    """Steps that were made, and those of the whole run."""
    last = run.rows[-1]
    step, share = number(last["step"]), number(last.get(PROGRESS))
    if share > 0:  # tinker-cookbook counts from 0
        return int(step) + 1, round((step + 1) / share)
    epochs = [epoch for row in run.rows[-RECENT:] if np.isfinite(epoch := number(row.get(names.EPOCH)))]
    return int(step), planned_steps(run.settings, epochs[-1] if epochs else None, step)


def _gauges(run: Run, strategy: str, log: _Rows) -> Iterator[Gauge]:
    for part in (_rewards, _spending, _variance, _predictions, _counts, _waves, _time):
        yield from part(run, strategy, log)


def _rewards(run: Run, strategy: str, log: _Rows) -> Iterator[Gauge]:
    own, of_rollouts = log.vip(names.PROMPT_REWARD), log.series(names.REWARD)
    if len(own) or len(of_rollouts):
        values, what = (own, "each prompt counted once") if len(own) else (of_rollouts, "mean over rollouts")
        yield Gauge("reward", num(_recent(values), 3), what, values)
    for name, title, detail in (
        (names.SUCCESS_RATE, "success", "each prompt counted once"),
        (names.UNSCORABLE, "unscorable", "of the rollouts have no reward"),
    ):
        values = log.vip(name)
        if len(values) and (name != names.UNSCORABLE or values.any()):
            yield Gauge(title, _percent(values), detail, values)
    evaluated = log.series(names.EVALUATION_REWARD)
    if len(evaluated):
        yield Gauge("evaluation", num(evaluated[-1], 3), "reward of the last evaluation", evaluated)


def _spending(run: Run, strategy: str, log: _Rows) -> Iterator[Gauge]:
    for unit, metric in (("rollouts", names.SAVED_ROLLOUTS), ("tokens", names.SAVED_TOKENS)):
        found = spent(run, strategy, unit)
        if found is not None:
            saved = f"{num(100 * found.saved, 0)} % saved of {found.uniform:,.0f}"
            yield Gauge(unit, f"{found.total:,.0f}", saved, log.vip(metric))
        elif unit == "rollouts" and len(total := log.series("rollouts")):
            yield Gauge(unit, f"{total[-1]:,.0f}", "the whole budget", np.array([]))


def _variance(run: Run, strategy: str, log: _Rows) -> Iterator[Gauge]:
    realised, running = log.vip(names.REALISED_RATIO), log.vip(names.RUNNING_RATIO)
    if len(realised):
        details = [f"last {len(realised[-RECENT:])}: {num(_recent(realised))}"] if len(running) else []
        for metric, words in ((names.PREDICTED_RATIO, "predicted"), (names.AIM, "aim")):
            values = log.vip(metric)
            details += [f"{words} {num(_recent(values))}"] if len(values) else []
        value = num(running[-1] if len(running) else _recent(realised))
        yield Gauge("variance", f"{value}×", ", ".join(details) or "uniform is 1", realised)
    equal, shrunk = log.vip(names.UNINFORMATIVE), log.vip(names.SHRINKAGE)
    if len(equal) and not len(shrunk):
        yield Gauge("no gradient", _percent(equal), "rollouts of equal rewards", equal)
    elif len(zero := log.vip(names.ZERO_ADVANTAGE)):
        yield Gauge("no gradient", _percent(zero), "of the rollouts have advantage 0", zero)
    noise = log.vip(names.ROLLOUT_NOISE)
    if len(noise):
        yield Gauge("noise", _percent(noise), "of the second moment come from rollouts", noise)


def _predictions(run: Run, strategy: str, log: _Rows) -> Iterator[Gauge]:
    trust = log.vip(names.TRUST)
    guards = {
        what: values
        for what, name in (
            ("selection", names.SELECTION_TRUST),
            ("baselines", names.SHRINKAGE),
            ("waves", names.WAVES_TRUST),
        )
        if len(values := log.vip(name))
    }
    words = ", ".join(f"{what} {num(values[-1])}" for what, values in guards.items())
    if len(trust):
        yield Gauge("trust", num(trust[-1]), words or "1: counts as predicted, 0: uniform", trust)
    elif guards:
        first = next(iter(guards.values()))
        yield Gauge("trust", num(first[-1]), words, first)
    brier, loss = log.vip(names.BRIER), log.vip(names.LOG_LOSS)
    if len(brier):
        detail = f"Brier score, log loss {num(_recent(loss), 3)}"
        yield Gauge("calibration", num(_recent(brier), 3), detail, brier)


def _counts(run: Run, strategy: str, log: _Rows) -> Iterator[Gauge]:
    low, mean, high = (log.vip(name) for name in (names.COUNTS_MIN, names.COUNTS_MEAN, names.COUNTS_MAX))
    if len(low) and len(mean) and len(high):
        detail = f"rollouts of a prompt, mean {mean[-1]:.3g}"
        yield Gauge("counts", f"{low[-1]:.3g} to {high[-1]:.3g}", detail, high)
    effective, neglected = log.vip(names.EFFECTIVE_PROMPTS), log.vip(names.NEGLECTED)
    if len(effective):
        detail = f"effective prompts, {_percent(neglected)} of the offered not sampled lately"
        yield Gauge("selection", num(_recent(effective), 1), detail, effective)


def _waves(run: Run, strategy: str, log: _Rows) -> Iterator[Gauge]:
    looks, second = log.vip(names.LOOKS), log.vip(names.SECOND_WAVE)
    if len(looks):
        detail = f"of the rollouts in the second wave, {_percent(looks)} of the prompts with first looks"
        yield Gauge("waves", _percent(second), detail, second)


def _time(run: Run, strategy: str, log: _Rows) -> Iterator[Gauge]:
    overhead = log.vip(names.OVERHEAD)
    if len(overhead):
        yield Gauge("overhead", f"{_recent(overhead):.2g} s", "of a step are spent by VIP", overhead)


def _percent(values: FloatArray) -> str:
    return f"{num(100 * _recent(values), 0)} %"
