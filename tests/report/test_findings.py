"""Findings: which numbers they give, what the intervals rest on, and whether they are within noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from viprl.report.findings import between_series, findings, variance_ratios, wasted_rollouts
from viprl.runs.reader import Run


def run_with(summary=None, rows=None):
    rows = [{"strategy": "default", "seed": 0, "step": 1}] if rows is None else rows
    return Run("run", Path("run"), tuple(rows), summary or {}, (), ())


def only(run: Run):
    (finding,) = findings(run)
    return finding


@pytest.mark.parametrize(
    ("mean", "sd", "n", "verdict"),
    [
        (0.71, 0.12, 12, "lower"),
        (0.95, 0.12, 12, "within noise"),
        (1.30, 0.12, 12, "higher"),
        # t(.975; 3) = 3.182: the half width of sd .2 and n = 4 is .318
        (0.69, 0.20, 4, "within noise"),
        (0.68, 0.20, 4, "lower"),
        (0.71, None, 1, "unknown"),
    ],
)
def test_variance_is_within_noise_if_the_interval_includes_one(mean, sd, n, verdict):
    finding = only(run_with({"variance_ratio": {"default": {"mean": mean, "sd": sd, "n": n}}}))
    assert finding.value == f"{mean:.2f}×" and finding.verdict == verdict and finding.better == "lower"
    assert f"{mean:.2f} times" in finding.sentence
    assert ("within noise" in finding.sentence) == (verdict == "within noise")


def by_seed(key, means):
    """Twelve batches of each seed that agree closely, however the seeds differ."""
    seeds = range(len(next(iter(means.values()))))
    return {str(s): {key: {n: {"mean": v[s], "sd": 0.01, "n": 12} for n, v in means.items()}} for s in seeds}


def test_with_several_seeds_the_interval_is_over_their_means():
    pooled = {"default": {"mean": 0.8, "sd": 0.17, "n": 36}, "uniform": {"mean": 1.0, "sd": 0.0, "n": 36}}
    seeds = by_seed("variance_ratio", {"default": [0.6, 0.8, 1.0], "uniform": [1.0, 1.0, 1.0]})
    run = run_with({"variance_ratio": pooled, "by_seed": seeds, "settings": {"seeds": 3}})
    # t(.975; 2) = 4.303, half width 4.303 * .2 / sqrt(3) = .497; over the 36 batches it would have been .058
    assert "(sd 0.20, n = 3 seeds; 95 % interval 0.30 to 1.30)" in only(run).sentence
    assert only(run).verdict == "within noise" and variance_ratios(run).basis == "seeds"


def test_with_one_seed_the_interval_is_over_dependent_batches():
    ratios = {"default": {"mean": 0.71, "sd": 0.12, "n": 12}}
    seeds = by_seed("variance_ratio", {"default": [0.71]})
    run = run_with({"variance_ratio": ratios, "by_seed": seeds, "settings": {"seeds": 1}})
    finding = only(run)
    # t(.975; 11) = 2.201, half width .0762
    assert "(sd 0.12, n = 12 batches from 1 seed; 95 % interval 0.63 to 0.79)" in finding.sentence
    assert "0.63 to 0.79" in finding.basis and variance_ratios(run).basis == "batches"
    assert "not independent" in finding.basis and "not independent" in finding.sentence


def test_wasted_rollouts_of_several_seeds_are_compared_seed_by_seed():
    # seeds differ by far more than strategies: only pairing shows the difference
    shares = {"default": [0.40, 0.59, 0.81], "uniform": [0.50, 0.70, 0.90]}
    pooled = {name: {"mean": float(np.mean(v)), "sd": 0.2, "n": 36} for name, v in shares.items()}
    seeds = by_seed("zero_advantage_rollouts", shares)
    finding = only(run_with({"zero_advantage_rollouts": pooled, "by_seed": seeds}))
    # differences -10, -11, -9: sd 1, half width 4.303 / sqrt(3) = 2.5
    assert "−10.0 percentage points; 95 % interval −12.5 to −7.5" in finding.sentence
    assert finding.verdict == "lower" and "70\u00a0%" in finding.label


@pytest.mark.parametrize(("sd", "verdict"), [(0.05, "lower"), (0.5, "within noise")])
def test_wasted_rollouts_are_within_noise_if_the_difference_includes_zero(sd, verdict):
    shares = {"default": {"mean": 0.59, "sd": sd, "n": 12}, "uniform": {"mean": 0.80, "sd": sd, "n": 12}}
    finding = only(run_with({"zero_advantage_rollouts": shares}))
    assert finding.verdict == verdict and "−21.0 percentage points" in finding.sentence


@pytest.mark.parametrize(("low", "verdict"), [(-0.004, "within noise"), (0.001, "higher")])
def test_learning_is_within_noise_if_the_paired_difference_includes_zero(low, verdict):
    means = {"default": 0.68, "uniform": 0.66}
    final = {name: {"final_eval": {"mean": mean, "sd": 0.01, "n": 3}} for name, mean in means.items()}
    finding = only(
        run_with({"learning": final | {"paired_difference": {"mean": 0.02, "low": low, "high": 0.04, "n": 3}}})
    )
    assert finding.value == "+0.020" and finding.verdict == verdict and finding.better == "higher"
    assert "0.680" in finding.sentence and "n = 3 seeds" in finding.sentence


def test_a_difference_over_the_prompts_of_one_seed_is_not_one_over_seeds():
    final = {name: {"final_eval": {"mean": 0.6, "sd": None, "n": 1}} for name in ("default", "uniform")}
    gap = {"mean": -0.003, "low": -0.007, "high": -0.001, "n": 256, "basis": "held-out prompts of one seed"}
    finding = only(run_with({"learning": final | {"paired_difference": gap}}))
    assert "(n = 256 held-out prompts of one seed; 95 % interval −0.007 to −0.001)" in finding.sentence
    assert "256 seeds" not in finding.sentence + finding.basis


def test_without_a_summary_the_paired_difference_is_computed_from_the_log():
    # seeds differ by far more than strategies: only pairing shows the difference
    rows = [
        {"strategy": name, "seed": seed, "step": 5, "eval/held_out_success": 0.2 * seed + gain + 0.001 * (seed == 1)}
        for seed in range(3)
        for name, gain in (("default", 0.02 + 0.001 * seed), ("uniform", 0.0))
    ]
    finding = only(run_with(rows=rows))
    assert finding.verdict == "higher"
    assert "+0.021 (n = 3 seeds; 95 % interval +0.019 to +0.023)" in finding.sentence


def test_without_a_measurement_the_variance_is_estimated_from_the_log():
    rows = [{"strategy": "default", "seed": 0, "step": s, "vip/variance_ratio/realised": 0.7} for s in range(40)]
    run = run_with(rows=rows)
    assert variance_ratios(run).basis == "blocks" and wasted_rollouts(run).subject is None
    assert only(run).value == "0.70×" and "8 blocks of steps" in only(run).basis


def test_a_uniform_run_reports_its_shadow_strategy():
    values = np.random.default_rng(0).normal(0.7, 0.1, size=40)
    rows = [
        {"strategy": "uniform", "seed": 0, "step": i, "vip/shadow/default/variance_ratio": v}
        for i, v in enumerate(values.tolist())
    ]
    finding = only(run_with(rows=rows))
    assert finding.value == f"{np.mean(values):.2f}×" and "default" in finding.label


def test_series_are_compared_with_uniform_or_the_first():
    ends = [("one", "default", {0: 0.5, 1: 0.7}), ("two", "uniform", {0: 0.4, 1: 0.5})]
    (sentence,) = between_series(ends)
    assert "one minus two" in sentence and "+0.150 (n = 2 seeds" in sentence
    (sentence,) = between_series([ends[0], ("two", "paper", {0: 0.4})])
    assert "two minus one" in sentence and "−0.100 (n = 1 seed)" in sentence
    assert between_series(ends[:1]) == []
