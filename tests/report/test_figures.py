"""Ranges of axes, labels without overlaps, and styles that differ."""

from __future__ import annotations

import math

import numpy as np
import pytest

from viprl.analysis.statistics import Estimate
from viprl.report import canvas, figures


def test_the_axis_of_ratios_is_made_for_values_near_uniform():
    near = [Estimate(0.8, 4, 0.1, 0.6, 1.1), Estimate(0.5, 4, 0.1, 0.4, 0.6)]
    far, wild = Estimate(3.3, 4, 2.4, 1.8, 4.8), Estimate(1.06, 4, 0.8, -0.2, 2.4)
    assert figures.ratio_range([*near, far]) == figures.ratio_range(near) == pytest.approx((0.344, 1.156))
    low, high = figures.ratio_range([*near, wild])
    assert low == 0.0 and 1.5 < high < 1.7
    low, high = figures.ratio_range([far])
    assert low <= 1.0 and high > 3.3
    assert figures.ratio_range([Estimate(1.9, 1)])[1] > 1.9


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([], []),
        ([3.0], [3.0]),
        ([0, 5], [0, 5]),
        ([1, 1], [0.5, 1.5]),
        ([2, 0, 2.2], [1.6, 0, 2.6]),
        ([0, 0, 0.1], None),
    ],
)
def test_labels_are_spread_apart_in_order(heights, expected):
    placed = canvas.spread_labels(heights, gap=1.0)
    if expected is not None:
        np.testing.assert_allclose(placed, expected)
    assert all(b - a > 1 - 1e-9 for a, b in zip(sorted(placed), sorted(placed)[1:], strict=False))
    assert math.isclose(sum(placed), sum(heights))


def test_colours_differ_by_strategy_and_dashes_by_run():
    pairs = [(run, name) for run in ("a", "b") for name in ("default", "uniform")]
    found = canvas.styles(pairs)
    assert len({(style.colour, style.dash) for style in found.values()}) == 4
    assert found["a", "default"].colour == found["b", "default"].colour
    assert found["a", "default"].label == "a · default"
    by_run = canvas.styles([("a", "default"), ("b", "default")])
    assert by_run["a", "default"].colour != by_run["b", "default"].colour
    assert canvas.styles([("a", "mine"), ("a", "other")])["a", "mine"].label == "mine"


def test_tenths_with_few_points_have_no_mean():
    x = np.array([0.05] * 5 + [0.5] * 4 + [1.0] * 6)
    assert [(centre, estimate.n) for centre, estimate in figures.tenths(x, x)] == [
        (pytest.approx(0.05), 5),
        (pytest.approx(1.0), 6),
    ]


@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0], [0.0, 0.4, 0.1], [0.9, 0.95, 0.9]])
def test_shares_have_no_axis_below_zero_and_labels_that_are_not_rounded(values):
    line = figures.Line(canvas.Style("a", "tab:blue"), np.arange(3.0), np.array(values))
    figure = figures.curves([line], "step", "share", percent=True)
    axes = figure.axes[0]
    figure.canvas.draw()
    low, high = axes.get_ylim()
    ticks = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    shown = [(100 * at, float(label.get_text().removesuffix(" %"))) for at, label in ticks if low <= at <= high]
    assert low >= -0.02 * high and shown[0][0] >= 0
    assert all(number == pytest.approx(at) for at, number in shown)
