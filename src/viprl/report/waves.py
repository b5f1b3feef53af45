"""The section about steps that were sampled in two waves."""

from __future__ import annotations

import numpy as np

from viprl.analysis.curves import curve
from viprl.analysis.statistics import over_blocks
from viprl.metrics import LOOKS, PREFIX, REALISED_RATIO, SECOND_WAVE, WAVES_TRUST
from viprl.report import figures
from viprl.report.page import Drawing, Section
from viprl.report.view import View
from viprl.report.words import interval, num
from viprl.runs.reader import Run

_LEAD = (
    "With waves=2 prompts that may be hopeless, or solved, get a few rollouts first, and the rest of the step is "
    "placed by what these showed. Where one wave is better, a step has one."
)
_CHARTS = (
    (LOOKS, "first_looks", "First looks", "prompts with a first look", "Share of the prompts of a step."),
    (SECOND_WAVE, "second_wave", "Second wave", "rollouts in the second wave", "Share of the rollouts of a step."),
)


def waves(view: View) -> Section | None:
    """How much of the run was sampled in two waves, and with which variance; None for a run without waves."""
    drawings = []
    for metric, name, title, ylabel, caption in _CHARTS:
        if lines := view.lines(PREFIX + metric):
            figure = figures.curves(lines, "training step", ylabel, percent=True)
            how = f"{caption} 0 in a step of one wave. Faint: each step. Line: moving mean."
            drawings.append(Drawing(name, title, figure, how))
    every = [(run, name) for run in view.runs for name in run.strategies]
    words = [view.titled(run, f"{name}: {said}") for run, name in every if (said := _words(run, name))]
    return Section("Two waves", [_LEAD, *words], drawings) if drawings else None


def _words(run: Run, strategy: str) -> str:
    """How many steps had two waves, and what they achieved; empty for a strategy without waves."""
    found = [curve(run, strategy, PREFIX + name) for name in (LOOKS, SECOND_WAVE, WAVES_TRUST)]
    looks, second, trust = (np.array([]) if one is None else one.values[np.isfinite(one.values)] for one in found)
    if not len(looks):
        return ""
    two, shares = looks[looks > 0], second[second > 0]
    said = f"{num(100 * len(two) / len(looks), 0)}\u00a0% of the logged steps had two waves"
    if len(two):
        said += (
            f", with first looks at {num(100 * float(two.mean()), 0)}\u00a0% of their prompts and "
            f"{num(100 * float(shares.mean()) if len(shares) else 0.0, 0)}\u00a0% of their rollouts in the second wave"
        )
    said += "."
    if len(trust) and trust[-1] < 1:
        said += " They had a larger variance than one wave, so the guard does not use them any more."
    ratio = curve(run, strategy, PREFIX + REALISED_RATIO)
    if ratio is not None and (estimate := over_blocks(ratio.values)) is not None:
        said += f" The realised variance ratio of all steps is {num(estimate.mean)}{interval(estimate)}."
    return said
