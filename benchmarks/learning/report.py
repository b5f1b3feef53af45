"""The results as a table, as sentences, as numbers and as a page with figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from learning.arms import ARMS
from learning.curves import (
    FIRST,
    HELD_OUT,
    LEVELS,
    MARGIN,
    POOL,
    Curve,
    Matched,
    area_ratio,
    at,
    by_seed,
    matched,
    mean_speed_up,
    speed_ups,
)
from learning.experiment import REGIMES
from learning.training import Setting
from viprl.analysis.statistics import Estimate
from viprl.report.canvas import Style, save
from viprl.report.figures import Line, curves
from viprl.report.findings import Finding
from viprl.report.page import INTERVAL, Drawing, Section, page, table
from viprl.report.words import ends, num
from viprl.utils.arrays import FloatArray
from viprl.utils.files import write_text

REFERENCE = "uniform"
_SHOWN = {
    "uniform": "#7b848e",
    "counts": "#0072b2",
    "selection": "#e69f00",
    "expected": "#d55e00",
    "oracle expected": "#009e73",
    "dynamic8": "#cc79a7",
}
"""Arms in the figures and their colours."""
STEPS = (30, 60)
"""After which R is shown."""
HEAD = (
    "arm",
    "speed-up",
    *(f"at {level:.0%}" for level in LEVELS),
    "area, pool",
    "area, held-out",
    *(f"R at {step}" for step in STEPS),
)
SHORT_HEAD = ("arm", "speed-up", "area, pool", "area, held-out", *(f"R at {step}" for step in STEPS))
_GLOSSARY = (
    ("Speed-up", "rollouts that uniform sampling needs for the same success on the pool, over those of the arm."),
    ("At 60 %", "the same for one level: 60 % of what uniform sampling gains in the whole run."),
    ("Area", "mean gain in success over the run, relative to uniform sampling."),
    (
        "R",
        "second moment of the batch gradient relative to uniform sampling, measured at the same parameters after 30 "
        "and 60 steps. Adam learns about R^(-1/2) times as fast.",
    ),
    INTERVAL,
)


@dataclass(frozen=True)
class Result:
    """What one arm achieved in one regime, relative to uniform sampling."""

    arm: str
    speed_up: Estimate
    """Mean over the levels."""
    levels: list[Estimate]
    pool: Estimate
    held_out: Estimate
    moments: dict[int, Estimate]
    """R by step."""

    def short_cells(self) -> list[str]:
        """For the terminal."""
        return [self.arm, _with_ends(self.speed_up), num(self.pool.mean), num(self.held_out.mean), *self._ratios()]

    def _ratios(self) -> list[str]:
        return [num(self.moments[step].mean) if step in self.moments else "" for step in STEPS]

    def cells(self) -> list[str]:
        """For a table."""
        levels = [num(level.mean) for level in self.levels]
        areas = (_with_ends(self.pool), _with_ends(self.held_out))
        return [ARMS[self.arm].title, _with_ends(self.speed_up), *levels, *areas, *self._ratios()]


def results(rows: Sequence[Mapping[str, Any]], regime: str) -> list[Result]:
    """Of every arm that ran with the seeds of uniform sampling."""
    reference, budget = by_seed(rows, REFERENCE, regime), _rollouts(regime)
    found = []
    for arm in ARMS:
        own = by_seed(rows, arm, regime)
        speed_up = mean_speed_up(own, reference, budget) if own.keys() & reference.keys() else None
        pool, held_out = (area_ratio(own, reference, budget, column) for column in (POOL, HELD_OUT))
        if speed_up is None or pool is None or held_out is None or ARMS[arm].by_steps:
            continue
        levels = [level for level in speed_ups(own, reference, budget) if level is not None]
        found.append(Result(arm, speed_up, levels, pool, held_out, _ratios(rows, arm, regime)))
    return found


def matched_arms(rows: Sequence[Mapping[str, Any]], regime: str) -> dict[str, Matched]:
    """The arms that spend less than uniform sampling, compared step by step."""
    reference = by_seed(rows, REFERENCE, regime)
    found = {arm: matched(by_seed(rows, arm, regime), reference) for arm, plan in ARMS.items() if plan.by_steps}
    return {arm: result for arm, result in found.items() if result is not None}


def matched_sentences(found: Mapping[str, Matched]) -> list[str]:
    """Whether each arm has the curve of uniform sampling, and what it saves."""
    return [
        f"{ARMS[arm].title}: from step {FIRST} on {num(result.saved.mean)} of the rollouts saved "
        f"({ends(result.saved)}); "
        f"area on the pool {num(result.gain.mean)} of uniform's ({ends(result.gain)}), "
        + (f"within {MARGIN:.0%}" if result.equivalent else f"not shown to be within {MARGIN:.0%}")
        + f" (two one-sided tests); on held-out prompts {num(result.held_out.mean)} ({ends(result.held_out)})."
        for arm, result in found.items()
    ]


def sentences(found: Sequence[Result]) -> list[str]:
    """What is shown, and what is not, about each arm that a user could train with."""
    lines = []
    for result in found:
        plan = ARMS[result.arm]
        if result.arm == REFERENCE or "true p" in plan.title:
            continue
        speed, held = result.speed_up, result.held_out
        verdict = {"higher": "faster", "lower": "slower"}.get(speed.against(1.0), "no clear difference")
        general = {"higher": "it carries over to held-out prompts", "lower": "held-out prompts gain less"}.get(
            held.against(1.0), "no clear difference on held-out prompts"
        )
        lines.append(
            f"{plan.title}: uniform sampling needs {num(speed.mean)} times the rollouts for the same success "
            f"({ends(speed) or 'one seed'}): {verdict}. Area on held-out prompts {num(held.mean)} "
            f"({ends(held) or 'one seed'}): {general}."
        )
    return lines


def write_report(rows: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Write summary.json, report.html and the figures into the folder. Returns the path of the page."""
    regimes = [regime for regime in REGIMES if by_seed(rows, REFERENCE, regime)]
    every = {regime: results(rows, regime) for regime in regimes}
    summary = {
        regime: {
            "arms": {r.arm: asdict(r) for r in found},
            "matched": {arm: asdict(each) for arm, each in matched_arms(rows, regime).items()},
            "second_moment": parts(rows, regime),
        }
        for regime, found in every.items()
    }
    write_text(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    sections, first = [], regimes[0]
    for regime, found in every.items():
        drawings = [_drawing(rows, regime, column) for column in (POOL, HELD_OUT)]
        for drawing in drawings:
            save(drawing.figure, folder, drawing.name)
        seeds = len(by_seed(rows, REFERENCE, regime))
        lead = [f"{seeds} seeds, {_rollouts(regime):,} rollouts in a run.", *sentences(found)]
        lead += matched_sentences(matched_arms(rows, regime))
        html = table(HEAD, [result.cells() for result in found]) + _moments_table(rows, regime)
        sections.append(Section(REGIMES[regime].title, lead, drawings, html))
    path = folder / "report.html"
    subtitle = "The quickstart's tiny model with exact success probabilities, by who is sampled and how often."
    document = page("Learning curves", subtitle, [("", _tiles(every[first]))], sections, _GLOSSARY)
    write_text(path, document)
    return path


def parts(rows: Sequence[Mapping[str, Any]], regime: str) -> list[tuple[str, int, float, float, float, int]]:
    """(arm, step, S, V_b/S, V_w/S, runs): the second moment of uniform sampling at the parameters of an arm."""
    found: dict[tuple[str, int], list[Mapping[str, float]]] = {}
    for row in rows:
        if row["regime"] == regime:
            for measured in row["moments"]:
                found.setdefault((row["arm"], measured["step"]), []).append(measured)
    means = []
    for (arm, step), each in sorted(found.items()):
        signal, prompts, rollouts = (
            float(np.mean([m[name] for m in each])) for name in ("signal", "prompts", "rollouts")
        )
        means.append((arm, step, signal, prompts / signal, rollouts / signal, len(each)))
    return means


def _moments_table(rows: Sequence[Mapping[str, Any]], regime: str) -> str:
    cells = [
        (ARMS[arm].title, str(step), num(signal, 3), num(prompts, 1), num(rollouts, 1), str(runs))
        for arm, step, signal, prompts, rollouts, runs in parts(rows, regime)
    ]
    head = ("run with", "step", "S", "V_b/S of uniform", "V_w/S of uniform", "runs")
    return table(head, cells, "Second moment of uniform sampling at the parameters of each run") if cells else ""


def _tiles(found: Sequence[Result]) -> list[Finding]:
    by_arm = {result.arm: result for result in found}
    tiles = []
    for arm in ("counts", "expected", "oracle expected"):
        if arm in by_arm:
            speed = by_arm[arm].speed_up
            text = f"rollouts that uniform sampling needs, relative to: {ARMS[arm].title}"
            tiles.append(Finding(num(speed.mean), text, "", speed.against(1.0), "higher", ends(speed)))
    return tiles


def _ratios(rows: Sequence[Mapping[str, Any]], arm: str, regime: str) -> dict[int, Estimate]:
    by_step: dict[int, list[float]] = {}
    for row in rows:
        if row["arm"] == arm and row["regime"] == regime:
            for measured in row["moments"]:
                by_step.setdefault(measured["step"], []).append(measured["ratio"])
    estimates = {step: Estimate.of(values) for step, values in sorted(by_step.items())}
    return {step: estimate for step, estimate in estimates.items() if estimate is not None}


def _drawing(rows: Sequence[Mapping[str, Any]], regime: str, column: int) -> Drawing:
    spent = np.linspace(0, _rollouts(regime), 13)
    lines = []
    for arm, colour in _SHOWN.items():
        own = by_seed(rows, arm, regime)
        if own:
            mean, half = _band(own, spent, column)
            lines.append(Line(Style(arm, colour), spent / 1000, mean, mean - half, mean + half))
    where = "pool" if column == POOL else "held-out problems"
    figure = curves(lines, "rollouts in thousands", "mean success", percent=True)
    return Drawing(f"{regime}-{'pool' if column == POOL else 'held-out'}", f"Success on the {where}", figure, _CAPTION)


_CAPTION = "Exact mean success probability; the bands are 95 % intervals of the mean over seeds, not paired."


def _band(own: Mapping[int, Curve], spent: FloatArray, column: int) -> tuple[FloatArray, FloatArray]:
    values = np.array([at(curve, spent, column) for curve in own.values()])
    estimates = [Estimate.of(each) for each in values.T]
    half = [0.0 if e is None or e.high is None else e.high - e.mean for e in estimates]
    return values.mean(axis=0), np.array(half)


def _rollouts(regime: str) -> int:
    """Of a whole run."""
    return REGIMES[regime].budget * Setting.steps


def _with_ends(estimate: Estimate) -> str:
    interval = ends(estimate)
    return f"{num(estimate.mean)} ({interval})" if interval else num(estimate.mean)
