"""Why a variance ratio is 1, in reports of runs and of replays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from report_data import Page

from viprl.analysis.pool import Pool
from viprl.analysis.protocol import Protocol
from viprl.analysis.replay import replay
from viprl.report.chosen_prompts import chosen_prompts
from viprl.report.replay_page import write_replay_page
from viprl.report.replay_reasons import cautions, empty_cells, no_capture
from viprl.report.uniform_steps import BAD, BOUNDS, EQUAL, FIRST_EPOCH, GUARD, ONE_PROMPT, uniform_steps
from viprl.runs.history import PromptHistory
from viprl.runs.reader import Run

EVEN = {"vip/counts/min": 8, "vip/counts/mean": 8, "vip/counts/max": 8, "epoch": 2.0}
RAGGED = EVEN | {"vip/counts/min": 2, "vip/counts/max": 20}


def run_of(rows, settings=None, prompts=4):
    numbered = [
        {"strategy": "default", "step": step, "rollouts": 8 * prompts * step, **row} for step, row in enumerate(rows, 1)
    ]
    return Run("run", Path("run"), tuple(numbered), {}, (), (), settings or {})


@pytest.mark.parametrize(
    ("rows", "settings", "prompts", "reason", "share"),
    [
        ([RAGGED] * 4, {}, 4, None, ""),
        ([EVEN] * 4, {}, 1, ONE_PROMPT, "100"),
        ([EVEN] * 4, {"vip_max_rollouts": 8}, 4, BOUNDS, "100"),
        ([EVEN | {"vip/trust": 0.0}, RAGGED], {}, 4, GUARD, "50"),
        ([EVEN | {"vip/bad_predictions": 1.0, "vip/trust": 0.0}, RAGGED], {}, 1, BAD, "50"),
        ([EVEN | {"epoch": 0.5, "vip/trust": 1.0}, RAGGED, RAGGED, RAGGED], {}, 4, FIRST_EPOCH, "25"),
        ([EVEN, EVEN, RAGGED, {"eval_reward": 1.0}], {}, 4, EQUAL, "67"),
        ([{"reward": 1.0}], {}, 4, None, ""),
    ],
)
def test_steps_with_equal_counts_and_why(rows, settings, prompts, reason, share):
    words = uniform_steps(run_of(rows, settings, prompts), "default")
    assert (reason is None) == (words == "")
    assert (reason or "") in words and share in words


def test_equal_counts_of_chosen_prompts_are_no_fault():
    rows = [EVEN | {"vip/selection/squared_weights": 1.2}, RAGGED | {"vip/selection/squared_weights": 1.2}]
    words = uniform_steps(run_of(rows), "default")
    assert "50" in words and not any(reason in words for reason in (EQUAL, FIRST_EPOCH, GUARD, BOUNDS, ONE_PROMPT))


def test_weights_of_chosen_prompts_and_shrunk_baselines():
    selection = {"vip/selection/effective_prompts": 3.25, "vip/selection/neglected": 0.125, "reward": 0.5}
    rows = [RAGGED | selection, RAGGED | selection | {"vip/shrinkage": 0.5}]
    weights, baseline = chosen_prompts(run_of(rows), "default")
    assert "3.2" in weights and "12" in weights and "50" in baseline
    assert chosen_prompts(run_of([RAGGED] * 2), "default") == []


def pool(p, visits=2, prompts=16):
    rng = np.random.default_rng(0)
    chance = np.resize(np.array(p, dtype=float), prompts)
    return [
        PromptHistory(str(i), f"p {i}", np.full(visits, 8.0), rng.binomial(8, chance[i], visits).astype(float))
        for i in range(prompts)
    ]


@pytest.mark.parametrize(
    ("p", "change", "advice"),
    [
        ([0.1, 0.5, 1.0], {"batch_size": 1}, "--batch-size 8"),
        ([0.1, 0.5, 1.0], {"min_rollouts": 8, "max_rollouts": 8}, "--min-rollouts 2 --max-rollouts 48"),
        ([0.1, 0.5, 1.0], {"max_rollouts": 8}, "--max-rollouts 48"),
        ([0.1, 0.5, 1.0], {"rollouts": 2}, "--rollouts 4"),
        ([0.0, 1.0], {}, "--success"),
        ([1.0], {}, "--success"),
    ],
)
def test_empty_cells_of_a_replay_are_explained_and_the_advice_helps(p, change, advice):
    protocol = Protocol(**{"batch_size": 8, "min_rollouts": 2, "max_rollouts": 48, "visits": 2, "seeds": 1} | change)
    histories = pool(p)
    results = replay(histories, ["uniform", "oracle"], protocol, features="none")
    (words,) = empty_cells(results, Pool.of(histories, protocol), protocol)
    assert advice in words
    if advice.startswith("--") and advice != "--success":  # the advice, applied
        options = dict(zip(advice.split()[::2], advice.split()[1::2], strict=True))
        fixed = {name.removeprefix("--").replace("-", "_"): int(value) for name, value in options.items()}
        better = Protocol(**{**protocol.__dict__, **fixed})
        found = replay(histories, ["uniform", "oracle"], better, features="none")
        assert empty_cells(found, Pool.of(histories, better), better) == []


def test_a_page_without_any_capture(tmp_path):
    pytest.importorskip("matplotlib")
    histories, protocol = pool([0.1, 0.5]), Protocol(batch_size=1, min_rollouts=2, visits=2, seeds=2)
    results = replay(histories, ["uniform"], protocol, features="none")
    notes = empty_cells(results, Pool.of(histories, protocol), protocol)
    page = Page(write_replay_page(results, tmp_path, protocol, {}, notes).read_text())
    assert page.tags.count("svg") == 2 and not (tmp_path / "replay_capture.png").exists()


def test_prompts_of_one_difficulty():
    protocol = Protocol(batch_size=8, visits=2)
    assert "differ" in no_capture(Pool.of(pool([0.5]), protocol), slice(None), protocol)


def test_cautions():
    histories = pool([0.1, 0.5], prompts=80)
    protocol = Protocol(batch_size=8, visits=2)
    assert cautions(Pool.of(histories, protocol), protocol) == []
    protocol = Protocol(batch_size=8, visits=1, seeds=1)
    assert len(cautions(Pool.of(histories[:8], protocol), protocol)) == 3
