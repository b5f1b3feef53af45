"""What the sections of a page share: its runs, how each series is drawn, and curves as lines of a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from viprl.analysis.run_reader import Curve, Run
from viprl.analysis.statistics import Estimate, smooth
from viprl.report.canvas import Style, styles
from viprl.report.figures import Line
from viprl.report.findings import Measured, variance_ratios, wasted_rollouts


@dataclass(frozen=True)
class View:
    """The runs of one page and how each of their series is drawn."""

    runs: Sequence[Run]
    styles: Mapping[tuple[str, str], Style]

    @classmethod
    def of(cls, runs: Sequence[Run]) -> View:
        """The view of these runs, with styles that tell all their series apart."""
        trained = [(run.name, name) for run in runs for name in run.strategies]
        return cls(runs, styles(trained, [(run.name, name) for run in runs for name in strategies(run)]))

    def style(self, run: Run, strategy: str) -> Style:
        return self.styles[run.name, strategy]

    def titled(self, run: Run, text: str) -> str:
        """`text` as a title, after the run's name where there are several."""
        return f"{run.name}: {text}" if len(self.runs) > 1 else text[:1].upper() + text[1:]

    def curves(self, key: str) -> list[tuple[Run, str, Curve]]:
        """Every trained series that logged `key`."""
        found = [(run, name, run.curve(name, key)) for run in self.runs for name in run.strategies]
        return [(run, name, curve) for run, name, curve in found if curve is not None]

    def lines(self, key: str, *, over_rollouts: bool = False, smoothed: bool = True) -> list[Line]:
        """`line` of every trained series that logged `key`."""
        return [line(self.style(run, s), c, over_rollouts, smoothed) for run, s, c in self.curves(key)]

    def rows(self, measured: Sequence[Measured], without: str = "") -> list[tuple[Style, Estimate]]:
        """What each run measured (one entry a run) but of `without`; nothing of what was only logged."""
        found = [(run, m.estimates) for run, m in zip(self.runs, measured, strict=True) if m.basis != "blocks"]
        series = [(run, name, estimates) for run, estimates in found for name in strategies(run) if name != without]
        return [(self.style(run, name), estimates[name]) for run, name, estimates in series if name in estimates]


def strategies(run: Run) -> list[str]:
    """Every strategy that the page may draw: trained, measured or in shadow; yardsticks last."""
    shadows = [shadow for name in run.strategies for shadow in run.shadows(name)]
    measured = [*variance_ratios(run).estimates, *wasted_rollouts(run).estimates]
    stepwise = run.estimates_by_step("variance_ratio")
    order = ("default", "paper", "oracle", "uniform", "random")
    names = dict.fromkeys([*run.strategies, *measured, *stepwise, *shadows])
    return sorted(names, key=lambda name: order.index(name) if name in order else 1)


def line(style: Style, curve: Curve, over_rollouts: bool = False, smoothed: bool = True) -> Line:
    """The curve's mean over seeds with a band of one sd; smoothed, with the unsmoothed mean behind it."""
    window = max(1, curve.steps.size // 10) if smoothed else 1
    seeds = np.array([smooth(row, window) for row in curve.values])
    middle, spread = smooth(curve.mean, window), np.std(seeds, axis=0, ddof=1) if len(seeds) > 1 else None
    return Line(
        style,
        curve.rollouts if over_rollouts else curve.steps,
        middle,
        None if spread is None else middle - spread,
        None if spread is None else middle + spread,
        curve.mean if smoothed else None,
    )


def count_lines(view: View) -> list[Line]:
    """Mean rollouts of a prompt with the band from the fewest to the most; flat ones only where all are."""
    lines = []
    for run, name, mean in view.curves("vip/counts/mean"):
        least, most = run.curve(name, "vip/counts/min"), run.curve(name, "vip/counts/max")
        matched = least is not None and most is not None and least.steps.size == most.steps.size == mean.steps.size
        low = np.nanmin(least.values, axis=0) if matched and least is not None else None
        high = np.nanmax(most.values, axis=0) if matched and most is not None else None
        window = max(1, mean.steps.size // 10)
        band = [None if edge is None else smooth(edge, window) for edge in (low, high)]
        lines.append(Line(view.style(run, name), mean.steps, smooth(mean.mean, window), *band))
    ragged = [x for x in lines if x.low is None or x.high is None or np.nanmax(x.high - x.low) > 0]
    return ragged or lines
