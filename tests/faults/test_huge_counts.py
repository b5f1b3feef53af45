"""Counts of untrusted logs: a few bytes must not fill the memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import viprl
from viprl.errors import DataError
from viprl.runs.history import PromptHistory, read_history_file, save_history
from viprl.runs.reader import PromptTotal, load_run
from viprl.runs.visits import MOST_UNROLLED

VISITS, HUGE = 300, 10**6
COUNTS = {"prompt": "a", "rollouts": [HUGE] * VISITS, "successes": [HUGE // 4] * VISITS}
WITH_LENGTHS = {"prompt": "b", "rollouts": 2, "successes": [1], "lengths": [[10, 20]]}
WITH_REWARDS = {"prompt": "b", "rewards": [[0.1, 0.7]]}


def most_memory(action: Callable[[], Any]) -> float:
    """In MB."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def history(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "other.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_totals_are_computed_from_counts() -> None:
    n, k = np.full(VISITS, float(HUGE)), np.full(VISITS, HUGE / 4)
    found: list[PromptTotal] = []
    used = most_memory(lambda: found.append(PromptTotal.of(PromptHistory("a", "a", n, k))))
    assert used < 1
    assert (found[0].rollouts, found[0].successes, found[0].reward_mean) == (VISITS * HUGE, VISITS * HUGE // 4, 0.25)
    assert found[0].reward_variance == pytest.approx(3 / 16, rel=1e-5)


def test_totals_of_counts_and_rewards_agree() -> None:
    rng = np.random.default_rng(0)
    rewards = tuple((rng.random(n) < 0.3).astype(float) for n in (4, 1, 9, 2))
    n, k = np.array([len(visit) for visit in rewards], dtype=float), np.array([visit.sum() for visit in rewards])
    counted, rewarded = (
        PromptTotal.of(PromptHistory("a", "a", n, k)),
        PromptTotal.of(PromptHistory("a", "a", n, k, rewards=rewards)),
    )
    assert vars(counted) == pytest.approx(vars(rewarded))


def test_a_warm_start_from_counts_does_not_unroll_them(tmp_path: Path) -> None:
    part = {**COUNTS, "rollouts": [HUGE] * 9, "successes": [HUGE // 4] * 9}
    histories = read_history_file(history(tmp_path, part))
    agent = viprl.VIP(features=None, cache=None)
    assert most_memory(lambda: agent.observe_histories(histories)) < 5
    assert agent.predict(["a"])[0] == pytest.approx(0.25, abs=0.02)


def test_a_warm_start_with_some_lengths_learns_from_these(tmp_path: Path) -> None:
    part = {**COUNTS, "rollouts": [HUGE] * 3, "successes": [HUGE // 4] * 3}
    histories = read_history_file(history(tmp_path, part, WITH_LENGTHS))
    agent = viprl.VIP(features=None, cache=None, cost="tokens")
    assert most_memory(lambda: agent.observe_histories(histories)) < 5
    assert agent.state_dict()["spending"]["lengths"] is not None


@pytest.mark.parametrize("other", [WITH_LENGTHS, WITH_REWARDS], ids=["lengths", "rewards"])
def test_counts_that_would_have_to_be_unrolled_are_refused(other: dict[str, Any], tmp_path: Path) -> None:
    path = history(tmp_path, COUNTS, other)
    assert VISITS * HUGE > MOST_UNROLLED

    def refused() -> None:
        with pytest.raises(DataError, match=next(iter(set(other) & {"lengths", "rewards"}))):
            read_history_file(path)

    assert most_memory(refused) < 5


def test_a_report_leaves_them_out_with_a_note(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"strategy": "default", "seed": 0, "step": 1, "reward": 0.5}\n')
    history(tmp_path, COUNTS, WITH_REWARDS).rename(tmp_path / "history.jsonl.gz")
    import gzip

    packed = tmp_path / "history.jsonl.gz"
    packed.write_bytes(gzip.compress(packed.read_bytes()))
    run = load_run(tmp_path)
    assert run.history == () and len(run.notes) == 1


def test_successes_of_unscorable_rollouts_never_exceed_the_rollouts(tmp_path: Path) -> None:
    """What a run logs can be saved as a history, and read again."""
    from viprl.runs.history import history_of_outcomes
    from viprl.runs.run_log import RunLog

    agent = viprl.VIP(features=None, cache=None)
    seen = agent.observe(["a"], [[0.3, None, None]], successes=[[1, 1, 1]])
    log = RunLog(tmp_path, strategy="default", seed=0)
    log.outcomes(1, seen.keys, [3], seen.successes, seen.rollouts, seen.rewards)
    (found,) = history_of_outcomes([tmp_path / "outcomes.jsonl"], {seen.keys[0]: "a"})
    assert (found.successes <= found.rollouts).all()
    save_history(tmp_path / "other.jsonl", [found])
    (again,) = read_history_file(tmp_path / "other.jsonl")
    np.testing.assert_array_equal(again.successes, found.successes)
