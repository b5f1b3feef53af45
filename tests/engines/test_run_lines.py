"""The lines at the start and the end of a run."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest

from viprl import VIP
from viprl.engines import run_lines
from viprl.engines.run_lines import RunSummary, announce, start_line, uniform_reason
from viprl.engines.success import SuccessCriterion
from viprl.metrics import BAD_PREDICTIONS, SAVED_ROLLOUTS, SECOND_WAVE
from viprl.vip import Observation


@pytest.mark.parametrize(
    ("counts", "keys", "trust", "bounds", "reason"),
    [
        ([2, 6], "ab", 1.0, (2, 8), None),
        ([4, 4], "ab", 1.0, (2, 8), run_lines.EQUAL),
        ([4, 5], "ab", None, None, run_lines.EQUAL),
        ([4, 4], "ab", 0.0, (2, 8), run_lines.GUARD),
        ([4, 4], "ab", 1.0, (4, 4), run_lines.BOUNDS),
        ([4, 4], "ab", 1.0, (2, 4), run_lines.BOUNDS),
        ([4, 4], "ab", 1.0, (4, 8), run_lines.BOUNDS),
        ([8], "a", 0.0, (2, 8), run_lines.ONE_PROMPT),
        ([4, 4], "aa", 1.0, (2, 8), run_lines.ONE_PROMPT),
    ],
)
def test_why_a_step_was_uniform(counts, keys, trust, bounds, reason):
    assert uniform_reason(counts, keys, trust, bounds) == reason


def test_bad_predictions_are_the_reason_whatever_else_may_be():
    assert uniform_reason([4, 4], "aa", 0.0, (4, 4), bad=True) == run_lines.BAD
    made = RunSummary(resumed=True)
    ones = np.ones(2)
    for bad in (1.0, 0.0, 0.0):
        made.add([4, 4], Observation(("a", "b"), ones, ones, ones, ones, ones, (1.0, 1.0)), {BAD_PREDICTIONS: bad})
    assert made.uniform == {run_lines.BAD: 1, run_lines.EQUAL: 2}
    assert "correct the predictor" in made.line("default")


def test_equal_counts_are_no_fault_where_prompts_are_chosen():
    for batch in ("ab", "a"):
        lines = []
        for selects in (False, True):
            made = RunSummary(resumed=True, selects=selects)
            ones = np.ones(len(batch))
            made.add([4] * len(batch), Observation(tuple(batch), ones, ones, ones, ones, ones, (1.0, 1.0)), {})
            lines.append(made.line("default"))
        assert [line.endswith("Next: nothing") for line in lines] == [False, True]
        assert "uniform in 1 batch" in lines[0] and "uniform in 1 batch" not in lines[1]


@pytest.mark.parametrize(
    ("strategy", "resumed", "batches", "reasons", "advice"),
    [
        ("default", False, ["ab", "cd", "ab"], {run_lines.NEW_PROMPTS: 2, run_lines.EQUAL: 1}, "more than one epoch"),
        ("default", False, ["ab", "ab", "ab"], {run_lines.NEW_PROMPTS: 1, run_lines.EQUAL: 2}, "different difficulty"),
        ("default", True, ["ab", "cd"], {run_lines.EQUAL: 2}, "different difficulty"),
        ("uniform", False, ["ab", "cd"], {run_lines.NEW_PROMPTS: 2}, "nothing"),
        ("uniform", False, ["a", "a"], {run_lines.ONE_PROMPT: 2}, "nothing"),
    ],
)
def test_only_prompts_of_a_first_visit_are_new(strategy, resumed, batches, reasons, advice):
    made = RunSummary(resumed=resumed)
    for keys in batches:
        ones = np.ones(len(keys))
        seen = Observation(tuple(keys), 4 * ones, ones, 4 * ones, ones / 4, ones / 5, (1.0, 1.0))
        made.add([4] * len(keys), seen, {})
    assert dict(made.uniform) == reasons
    assert advice in made.line(strategy).partition("Next:")[2]


def summary(variances, counts=(2, 6), **metrics):
    made = RunSummary()
    for variance in variances:
        n = np.array(counts, dtype=float)
        seen = Observation(("a", "b"), n, np.ones(2), n, 1 / n, np.ones(2), variance)
        made.add(counts, seen, {"zero_advantage_rollouts": 0.25, "unscorable": 0.0} | metrics)
    return made


def test_the_error_of_the_ratio_is_that_of_a_ratio_of_sums():
    rng = np.random.default_rng(0)
    runs = []
    for _ in range(400):
        even = rng.gamma(4, 1, 50)
        runs.append(summary(list(zip(even * rng.normal(0.8, 0.2, 50), even, strict=True))).variance_ratio)
    values, errors = np.array(runs).T
    assert values.mean() == pytest.approx(0.8, abs=0.01)
    assert errors.mean() == pytest.approx(values.std(), rel=0.15)


def test_the_verdict_follows_the_ratio_and_its_error():
    clear, harm, unclear = (
        summary([(own * even, even) for own, even in pairs]).line("default")
        for pairs in (
            [(0.5, 1), (0.6, 1), (0.5, 2)] * 4,
            [(1.5, 1), (1.6, 1), (1.5, 2)] * 4,
            [(0.5, 1), (1.4, 1)] * 5,
        )
    )
    assert "helped" in clear and "harm" in harm and "no clear difference" in unclear
    assert "too few" in summary([(0.5, 1), (0.6, 1)]).line("default")
    assert math.isnan(summary([(0.0, 0.0)] * 3).variance_ratio[0])
    assert "25%" in clear
    assert "viprl report" in summary([(0.5, 1)] * 2).line("default", ["viprl report runs/a"])
    assert RunSummary().line("default")
    lost = summary([None] * 3, unscorable=math.nan, zero_advantage_rollouts=math.nan)
    assert lost.rollouts == 24 and lost.line("default")


def test_the_line_at_the_end_says_what_was_saved():
    assert "saved" not in summary([(0.5, 1)]).line("default")
    part = summary([(0.5, 1)] * 3, **{SAVED_ROLLOUTS: 0.2})
    assert part.budget == pytest.approx(30) and "24 rollouts (20% saved)" in part.line("default")


def test_the_line_at_the_start_says_what_is_used():
    vip = VIP(strategy="paper", features="length", cache=None, min_rollouts=3)
    line = start_line(vip, SuccessCriterion("acc>0.5", complete=False), prompts=4, rollouts=16, resumed="checkpoint-3")
    for said in ("paper", "acc >0.5", "16 rollouts of 4 prompts", "3 to 24", "length", "checkpoint-3"):
        assert said in line
    assert "baseline" not in line and "chosen" not in line
    chosen = {"candidates": 2, "unbiased": False, "baseline": "expected"}
    line = start_line(vip, "x", prompts=4, rollouts=16, **chosen)
    assert "4 prompts (chosen from 8, uncorrected)" in line and "baseline: expected" in line
    assert "at most" not in line and "spend" not in line and "waves" not in line
    assert "in a batch in up to two waves, " in start_line(vip, "x", prompts=4, rollouts=16, waves=2)
    line = start_line(VIP(spend="match", cost="tokens", features="none", cache=None), "x", prompts=4, rollouts=16)
    assert "at most 16 rollouts of 4 prompts" in line and "spend: match; cost: tokens" in line
    assert "none (auto)" in start_line(VIP(strategy="uniform", cache=None), "x", prompts=1, rollouts=8)


def test_a_line_is_printed_only_where_logging_would_hide_it(capsys, caplog, monkeypatch):
    with caplog.at_level("INFO", logger="viprl"):
        announce("logged")
    assert [record.getMessage() for record in caplog.records] == ["logged"] and not capsys.readouterr().err
    announce("configured for warnings")  # by the handlers of pytest
    assert not capsys.readouterr().err
    monkeypatch.setattr(run_lines.logger, "hasHandlers", lambda: False)
    announce("shown")
    assert capsys.readouterr().err == "shown\n"
    monkeypatch.setattr(logging.getLogger("viprl"), "level", logging.WARNING)
    announce("silenced")
    assert not capsys.readouterr().err


def test_the_line_at_the_end_says_how_many_batches_had_two_waves():
    assert "two waves" not in summary([(0.5, 1)] * 3).line("default")
    assert "two waves in 0 batches" in summary([(0.5, 1)] * 3, **{SECOND_WAVE: 0.0}).line("default")
    assert "two waves in 3 batches, 25%" in summary([(0.5, 1)] * 3, **{SECOND_WAVE: 0.25}).line("default")
