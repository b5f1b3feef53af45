"""The figures of the report: functions from numbers to matplotlib figures.

In figures of a ratio to uniform, a value above twice that of uniform is drawn as an arrow at the edge, with its number.
So one bad strategy does not compress the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from viprl.analysis.statistics import Estimate
from viprl.report.canvas import GRID, HEIGHT, INK, MUTED, Style, canvas, finish, fitting, name_ends, write
from viprl.utils.arrays import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_POINTS = 1500
FEWEST_OF_A_MEAN = 5
"""A mean over a tenth of the probabilities is drawn only if it has at least this many points."""

GUIDE: dict[str, Any] = {"color": MUTED, "linewidth": 0.9, "linestyle": (0, (4, 3)), "zorder": 1}
"""The look of a line to compare with."""

Reference = tuple[float, str]
"""The value that means "no difference", and its label."""


@dataclass(frozen=True, eq=False)
class Line:
    """One line of a figure; all arrays have the shape of `x`."""

    style: Style
    x: FloatArray
    y: FloatArray
    low: FloatArray | None = None
    high: FloatArray | None = None
    raw: FloatArray | None = None
    """Values before smoothing, drawn faintly behind the line."""


def interval_dots(
    rows: Sequence[tuple[Style, Estimate]], xlabel: str, reference: Reference | None = None, percent: bool = False
) -> Figure:
    """A dot with its 95 % interval for each row, the numbers at the right, and the reference as a line."""
    figure, axes = canvas(height=max(HEIGHT if len(rows) > 3 else 0.0, 0.95 + 0.36 * len(rows)))
    scaled = [(style, estimate.scaled(100.0) if percent else estimate) for style, estimate in rows]
    if reference is not None:
        axes.set_xlim(ratio_range([estimate for _, estimate in scaled], reference[0]))
        axes.axvline(reference[0], **GUIDE)
        write(axes, reference[0], -0.62, reference[1], color=MUTED, ha="center", va="bottom")
    edge = axes.get_xlim()[1] if reference is not None else np.inf
    for y, (style, estimate) in enumerate(scaled):
        if (ends := estimate.interval) and estimate.mean <= edge:
            axes.plot(ends, [y, y], color=style.colour, linewidth=2.2, solid_capstyle="round", alpha=0.55)
        if estimate.mean <= edge:
            axes.plot([estimate.mean], [y], "o", color=style.colour, markersize=6.5, zorder=3)
        if max(estimate.mean, estimate.high or 0.0) > edge:
            axes.plot([edge], [y], ">", color=style.colour, markersize=6.5, zorder=3, clip_on=False)
        value = f"{estimate.mean:.0f} %" if percent else f"{estimate.mean:.2f}"
        write(axes, 1.04, y, value, axes_x=True, weight="bold")
    axes.set_ylim(len(rows) - 0.5, -0.62)
    axes.set_yticks(range(len(rows)), [fitting(style.label) for style, _ in rows], color=INK, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.06)
    axes.set_xlabel(xlabel, color=MUTED, fontsize=9.5, parse_math=False)
    return figure


def estimates_by_step(
    series: Sequence[tuple[Style, Sequence[tuple[float, Estimate]]]], ylabel: str, reference: Reference
) -> Figure:
    """Ratios with their intervals at a few steps, connected by lines with a label at the end."""
    figure, axes = canvas()
    axes.axhline(reference[0], **GUIDE)
    axes.set_ylim(ratio_range([estimate for _, points in series for _, estimate in points], reference[0]))
    edge = axes.get_ylim()[1]
    steps = sorted({step for _, points in series for step, _ in points})
    gap = min(np.diff(steps), default=10.0)
    for i, (style, points) in enumerate(series):
        x = np.array([step for step, _ in points]) + 0.06 * gap * (i - (len(series) - 1) / 2)
        y = np.array([estimate.mean for _, estimate in points])
        axes.plot(x, y, color=style.colour, linestyle=style.dash, linewidth=1.3, alpha=0.7)
        axes.plot(x, y, "o", color=style.colour, markersize=5.5)
        for at, (_, estimate) in zip(x, points, strict=True):
            if (ends := estimate.interval) and estimate.mean <= edge:
                axes.plot([at, at], ends, color=style.colour, linewidth=1.8, alpha=0.55)
            if max(estimate.mean, estimate.high or 0.0) > edge:
                axes.plot([at], [edge], "^", color=style.colour, markersize=5.5, clip_on=False)
    axes.set_xticks(steps)
    axes.margins(x=0.08)
    name_ends(axes, [(style, points[-1][1].mean) for style, points in series], reference)
    return finish(figure, axes, "training step", ylabel)


def ratio_range(estimates: Iterable[Estimate], reference: float = 1.0) -> tuple[float, float]:
    """Limits of an axis of ratios. They include all means up to twice the reference and most of the intervals.

    Larger means count only if there are no others. The lower limit is at least 0, as no ratio of variances is negative.
    """
    drawn = list(estimates)
    near = [estimate for estimate in drawn if estimate.mean <= 2 * reference] or drawn
    means = [reference, *(estimate.mean for estimate in near)]
    cap = max(1.5 * reference, 1.1 * max(means))
    ends = [min(max(end, 0.0), cap) for estimate in near for end in estimate.interval or ()]
    low, high = min(means + ends), max(means + ends)
    margin = 0.08 * (high - low) or 0.1 * reference
    return max(0.0, low - margin), high + margin


def curves(
    lines: Sequence[Line], xlabel: str, ylabel: str, reference: Reference | None = None, percent: bool = False
) -> Figure:
    """Lines with bands and faint raw values, each with a label at its end.

    The vertical range includes lines and bands, but not every raw value, so that one outlier does not compress the
    rest. With a reference it includes half the reference, so that small differences do not look large, and no lines
    whose median is above twice the reference.
    """
    figure, axes = canvas()
    if reference is not None:
        axes.axhline(reference[0], **GUIDE)
    near = _near(lines, reference)
    for line in lines:
        colour = line.style.colour
        if line.raw is not None and line in near:
            axes.plot(line.x, line.raw, color=colour, linewidth=0.7, alpha=0.28, zorder=1)
        if line.low is not None and line.high is not None:
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.13, linewidth=0)
        marker = "o" if line.raw is None and line.x.size <= 40 else ""
        known = np.isfinite(line.y)
        axes.plot(
            line.x[known],
            line.y[known],
            color=colour,
            linestyle=line.style.dash,
            linewidth=1.8,
            marker=marker,
            markersize=4,
        )
    _range_of_lines(axes, near, reference, positive=percent)
    ends = [(line.style, _last(line.y)) for line in lines if np.isfinite(line.y).any()]
    name_ends(axes, ends, reference)
    if percent:
        axes.yaxis.set_major_formatter(lambda y, _: f"{100 * y:.3g} %")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k" if abs(x) >= 1000 else f"{x:g}")
    return finish(figure, axes, xlabel, ylabel)


def calibration(predicted: FloatArray, true: FloatArray, seen: NDArray[np.bool_], colour: str) -> Figure:
    """True against predicted success probability: a point for each prompt, and the mean of each tenth."""
    figure, axes = canvas(height=3.7)
    axes.plot([0, 1], [0, 1], **GUIDE)
    keep = _thin(predicted.size)
    for at, fill, alpha in ((~seen, "none", 0.45), (seen, colour, 0.3)):
        shown = keep & at
        axes.scatter(
            predicted[shown],
            true[shown],
            s=11,
            facecolors=fill,
            edgecolors=colour if fill == "none" else "none",
            linewidths=0.7,
            alpha=alpha,
        )
    for centre, estimate in tenths(predicted, true):
        if ends := estimate.interval:
            axes.plot([centre, centre], np.clip(ends, 0.0, 1.0), color=INK, linewidth=1.4, zorder=4)
        axes.plot([centre], [estimate.mean], "o", color=INK, markersize=4.5, zorder=4)
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)
    return finish(figure, axes, "predicted success probability", "true success probability")


def counts_by_probability(
    probability: FloatArray, counts: FloatArray, even: float | None, colour: str, xlabel: str
) -> Figure:
    """Rollouts of each prompt against its success probability; a line connects the means of the tenths."""
    figure, axes = canvas(height=3.7)
    keep = _thin(probability.size)
    axes.scatter(probability[keep], counts[keep], s=11, color=colour, alpha=0.28, linewidths=0)
    means = tenths(probability, counts)
    x, y = [centre for centre, _ in means], [estimate.mean for _, estimate in means]
    axes.plot(x, y, color=INK, linewidth=1.5, marker="o", markersize=4)
    if even is not None:
        axes.axhline(even, **GUIDE | {"zorder": 2})
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(bottom=0)
    mean = [(Style("mean", INK), y[-1])] if y else []
    name_ends(axes, mean, None if even is None else (even, f"uniform: {even:.3g}"))
    return finish(figure, axes, xlabel, "rollouts of the prompt")


def tenths(x: FloatArray, y: FloatArray) -> list[tuple[float, Estimate]]:
    """Mean x and the estimate of y for each tenth of [0, 1] that has enough points."""
    bins = np.clip((10 * x).astype(int), 0, 9)
    inside = [bins == b for b in range(10)]
    pairs = [(float(np.mean(x[at])), Estimate.of(y[at])) for at in inside if at.sum() >= FEWEST_OF_A_MEAN]
    return [(centre, estimate) for centre, estimate in pairs if estimate is not None]


def _near(lines: Sequence[Line], reference: Reference | None) -> list[Line]:
    """The lines that determine the range: all without a reference, otherwise those not far above it."""
    if reference is None:
        return list(lines)
    return [line for line in lines if np.nanmedian(line.y) <= 2 * reference[0]] or list(lines)


def _range_of_lines(axes: Axes, lines: Sequence[Line], reference: Reference | None, positive: bool) -> None:
    """Set the vertical range. `positive`: the values cannot be below 0, and hardly any space is shown there."""
    drawn = [part for line in lines for part in (line.y, line.low, line.high) if part is not None]
    values = np.concatenate([*drawn, [] if reference is None else [0.5 * reference[0], reference[0]]])
    values = values[np.isfinite(values)]
    if values.size:
        low, high = float(np.min(values)), float(np.max(values))
        margin = 0.12 * (high - low) or 0.05 * abs(high) or 0.1
        axes.set_ylim(max(low - margin, -0.02 * (high + margin)) if positive else low - margin, high + margin)


def _last(values: FloatArray) -> float:
    return float(values[np.isfinite(values)][-1])


def _thin(size: int) -> NDArray[np.bool_]:
    """Which of `size` points to draw: all, or every so many if there are too many for a page."""
    return np.isin(np.arange(size), np.linspace(0, size - 1, min(size, _MOST_POINTS)).astype(int))
