"""Curves and estimates of a run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from viprl.analysis.curves import curve, estimates, estimates_by_step, means_by_seed
from viprl.analysis.statistics import Estimate
from viprl.runs.reader import Run


def run_of(rows=(), summary=None):
    return Run("run", Path("run"), tuple(rows), summary or {}, (), ())


def row(step, seed=0, **values):
    return {"strategy": "default", "seed": seed, "step": step} | values


def test_values_that_are_not_finite_numbers_count_as_not_logged():
    values = [0.1, None, math.nan, math.inf, "0.3", True, 0.5]
    run = run_of(row(i, reward=v, brier=None) for i, v in enumerate(values))
    found = curve(run, "default", "reward")
    assert found is not None and found.steps.tolist() == [0, 6] and found.values.tolist() == [[0.1, 0.5]]
    assert curve(run, "default", "brier") is None and curve(run, "uniform", "reward") is None


def test_seeds_are_aligned_and_rollouts_interpolated():
    rows = [row(t, s, rollouts=100 * t, reward=s + t) for s in (0, 1) for t in (1, 3) if (s, t) != (1, 3)]
    run = run_of([*rows, row(2, 1, accuracy=0.5)])
    reward, accuracy = curve(run, "default", "reward"), curve(run, "default", "accuracy")
    assert reward is not None and accuracy is not None
    np.testing.assert_array_equal(reward.values, [[1, 3], [2, np.nan]])
    assert reward.mean.tolist() == [1.5, 3] and reward.last() == {0: 3, 1: 2}
    assert accuracy.rollouts.tolist() == [200] and accuracy.last() == {1: 0.5}


def test_the_last_row_of_a_repeated_step_counts():
    found = curve(run_of([row(1, reward=0.1), row(1, reward=0.9)]), "default", "reward")
    assert found is not None and found.values.tolist() == [[0.9]]


def test_estimates_of_a_summary():
    entry = {"ratio": {"default": {"mean": 0.4, "sd": None, "n": 1}, "broken": 3}}
    summary = entry | {"by_step": {"80": entry, "40": entry, "end": entry, "9": 1}, "by_seed": {"1": entry, "0": entry}}
    run, expected = run_of(summary=summary), Estimate(0.4, 1)
    assert estimates(run, "ratio") == {"default": expected} and estimates(run, "none") == {}
    assert estimates_by_step(run, "ratio") == {"default": [(40.0, expected), (80.0, expected)]}
    assert means_by_seed(run, "ratio") == {"default": {0: 0.4, 1: 0.4}}
