"""Intervals cover the truth as often as they should; smoothing and differences by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from viprl.analysis.statistics import Estimate, difference, over_blocks, paired_difference, smooth


def test_an_estimate_by_hand():
    # t(.975; 3) = 3.182
    estimate = Estimate.of([1.0, 2.0, math.nan, 3.0, math.inf, 4.0])
    assert estimate is not None and (estimate.mean, estimate.n) == (2.5, 4)
    assert estimate.sd == pytest.approx(1.2910, abs=1e-4)
    assert [estimate.low, estimate.high] == pytest.approx([2.5 - 2.0543, 2.5 + 2.0543], abs=1e-4)
    assert Estimate.of([2.0]) == Estimate(2.0, 1)
    assert Estimate.of([math.nan]) is None
    assert estimate.scaled(100).low == pytest.approx(100 * estimate.low)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.5, 0.9, "lower"), (0.5, 1.0, "within noise"), (1.1, 2, "higher"), (None, None, "unknown")],
)
def test_verdicts(low, high, verdict):
    assert Estimate(1.0, 3, None, low, high).against(1.0) == verdict


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"mean": 0.5, "sd": None, "n": 1}, Estimate(0.5, 1)),
        ({"mean": 0.5, "low": 0.4, "high": 0.7, "n": 3}, Estimate(0.5, 3, None, 0.4, 0.7)),
        ({"mean": 0.5, "sd": math.nan}, Estimate(0.5, 1)),
        ({"mean": None}, None),
        ({"mean": True}, None),
        (3, None),
    ],
)
def test_entries_of_a_summary(entry, expected):
    assert Estimate.read(entry) == expected


def test_the_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    estimates = [Estimate.of(rng.normal(1, 2, size=4)) for _ in range(4000)]
    covered = np.mean([e is not None and e.against(1.0) == "within noise" for e in estimates])
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 4000)


def test_welch_interval_covers_a_difference_of_unequal_spreads():
    rng = np.random.default_rng(1)
    pairs = [(Estimate.of(rng.normal(2, 1, size=5)), Estimate.of(rng.normal(2, 4, size=12))) for _ in range(4000)]
    inside = [difference(a, b).against(0.0) == "within noise" for a, b in pairs if a and b]
    assert abs(np.mean(inside) - 0.95) < 0.015


def test_only_seeds_that_both_have_are_paired():
    gap = paired_difference({0: 1.0, 1: 3.0, 2: 9.0}, {1: 1.0, 0: 0.0})
    assert gap is not None and (gap.mean, gap.n) == (1.5, 2)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_blocks_widen_the_interval_of_correlated_steps():
    noise = np.random.default_rng(2).normal(size=(1, 2000))
    correlated = smooth(noise[0], 40)[None]
    naive, blocks = Estimate.of(correlated), over_blocks(correlated)
    assert naive is not None and blocks is not None and naive.high is not None and blocks.high is not None
    assert math.isclose(naive.mean, blocks.mean)
    assert blocks.high - blocks.mean > 3 * (naive.high - naive.mean)


def test_smoothing_leaves_gaps_out():
    values = np.array([1.0, np.nan, 3.0, 5.0, np.nan, np.nan, np.nan])
    np.testing.assert_allclose(smooth(values, 3), [1, 2, 4, 4, 5, np.nan, np.nan])
    np.testing.assert_array_equal(smooth(np.array([2.0]), 9), [2.0])
