"""The runs of a page, the style of each series, and curves as lines of a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from viprl.analysis.curves import Curve, curve, estimates_by_step
from viprl.analysis.statistics import Estimate, smooth
from viprl.metrics import COUNTS_MAX, COUNTS_MEAN, COUNTS_MIN, PREFIX
from viprl.report.canvas import Style, styles
from viprl.report.figures import Line
from viprl.report.findings import Measured, second_moments, variance_ratios, wasted_rollouts
from viprl.runs.reader import Run


@dataclass(frozen=True)
class View:
    """The runs of one page and the style of each of their series."""

    runs: Sequence[Run]
    styles: Mapping[tuple[str, str], Style]

    @classmethod
    def of(cls, runs: Sequence[Run]) -> View:
        """The view of these runs, with a different style for each series."""
        trained = [(run.name, name) for run in runs for name in run.strategies]
        return cls(runs, styles(trained, [(run.name, name) for run in runs for name in strategies(run)]))

    def style(self, run: Run, strategy: str) -> Style:
        """The style of a strategy in a run."""
        return self.styles[run.name, strategy]

    def titled(self, run: Run, text: str) -> str:
        """`text` after the name of the run if there are several, otherwise with a capital letter."""
        return f"{run.name}: {text}" if len(self.runs) > 1 else text[:1].upper() + text[1:]

    def curves(self, metric: str) -> list[tuple[Run, str, Curve]]:
        """The curve of every strategy that trained and logged the metric."""
        found = [(run, name, curve(run, name, metric)) for run in self.runs for name in run.strategies]
        return [(run, name, one) for run, name, one in found if one is not None]

    def lines(self, metric: str, *, over_rollouts: bool = False, smoothed: bool = True) -> list[Line]:
        """The same curves as lines."""
        return [line(self.style(run, s), c, over_rollouts, smoothed) for run, s, c in self.curves(metric)]

    def rows(self, measured: Sequence[Measured], without: str = "") -> list[tuple[Style, Estimate]]:
        """Style and estimate of each measured strategy except `without`.

        Args:
            measured: one entry for each run; those from the training log are left out.
            without: a strategy.
        """
        found = [(run, m.estimates) for run, m in zip(self.runs, measured, strict=True) if m.basis != "blocks"]
        series = [(run, name, estimates) for run, estimates in found for name in strategies(run) if name != without]
        return [(self.style(run, name), estimates[name]) for run, name, estimates in series if name in estimates]


def strategies(run: Run) -> list[str]:
    """All strategies of a run: trained, measured or in shadow; references last."""
    shadows = [shadow for name in run.strategies for shadow in run.shadows(name)]
    measured = [name for of in (variance_ratios, second_moments, wasted_rollouts) for name in of(run).estimates]
    stepwise = estimates_by_step(run, "variance_ratio")
    order = ("default", "paper", "oracle", "uniform", "random")
    names = dict.fromkeys([*run.strategies, *measured, *stepwise, *shadows])
    return sorted(names, key=lambda name: order.index(name) if name in order else 1)


def line(style: Style, of: Curve, over_rollouts: bool = False, smoothed: bool = True) -> Line:
    """The mean of a curve over seeds, with a band of one standard deviation; smoothed if wanted."""
    window = max(1, of.steps.size // 10) if smoothed else 1
    seeds = np.array([smooth(row, window) for row in of.values])
    middle, spread = smooth(of.mean, window), np.std(seeds, axis=0, ddof=1) if len(seeds) > 1 else None
    return Line(
        style,
        of.rollouts if over_rollouts else of.steps,
        middle,
        None if spread is None else middle - spread,
        None if spread is None else middle + spread,
        of.mean if smoothed else None,
    )


def count_lines(view: View) -> list[Line]:
    """Mean rollouts of a prompt, with a band from the fewest to the most.

    Strategies that give every prompt the same number are left out unless all do.
    """
    lines = []
    for run, name, mean in view.curves(PREFIX + COUNTS_MEAN):
        least, most = (curve(run, name, PREFIX + metric) for metric in (COUNTS_MIN, COUNTS_MAX))
        matched = least is not None and most is not None and least.steps.size == most.steps.size == mean.steps.size
        low = np.nanmin(least.values, axis=0) if matched and least is not None else None
        high = np.nanmax(most.values, axis=0) if matched and most is not None else None
        window = max(1, mean.steps.size // 10)
        band = [None if edge is None else smooth(edge, window) for edge in (low, high)]
        lines.append(Line(view.style(run, name), mean.steps, smooth(mean.mean, window), *band))
    ragged = [x for x in lines if x.low is None or x.high is None or np.nanmax(x.high - x.low) > 0]
    return ragged or lines
