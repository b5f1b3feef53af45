"""Lengths of rollouts: from logs to histories, files, outcome logs and warm starts."""

from __future__ import annotations

import json

import numpy as np
import pytest

from log_files import write_lines, write_parquet
from viprl import VIP
from viprl.errors import DataError
from viprl.runs.engine_logs import read_history
from viprl.runs.history import history_of_outcomes, read_history_file, save_history
from viprl.runs.logged_rollouts import characters, judged
from viprl.runs.run_log import RunLog

TARGET = {"variance_target": 1.5, "max_rollouts": 48}


def lengths_of(history):
    return [[None if x != x else x for x in visit.tolist()] for visit in history.lengths]


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_history_files_keep_them(tmp_path, name):
    rows = [
        {"id": "a", "prompt": "p", "rollouts": 2, "successes": [1, 0], "lengths": [[5, 7], [8.5, None]]},
        {"id": "b", "prompt": "q", "rollouts": 2, "successes": [1, 0]},
    ]
    save_history(tmp_path / name, read_history_file(write_lines(tmp_path / "a.jsonl", rows)))
    first, second = read_history_file(tmp_path / name)
    assert lengths_of(first) == [[5, 7], [8.5, None]] and second.lengths is None
    if name == "t.jsonl":
        written = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        assert written[0]["lengths"] == rows[0]["lengths"] and "lengths" not in written[1]


def test_unscorable_rollouts_do_not_count(tmp_path):
    row = {"id": "a", "prompt": "p", "rewards": [[0.5, None, 2.0]], "lengths": [[5, 6, 7]]}
    (history,) = read_history_file(write_lines(tmp_path / "a.jsonl", [row]))
    assert lengths_of(history) == [[5, 7]]
    (success,) = judged([history], 1.0)
    assert lengths_of(success) == [[7, 5]]  # the success first


@pytest.mark.parametrize("lengths", [[[1, 2]], [[1, 2], [3]], [[1, -2], [3, 4]], [[1, "2"], [3, 4]], 7])
def test_bad_lengths_name_the_row(tmp_path, lengths):
    row = {"id": "a", "prompt": "p", "rollouts": 2, "successes": [1, 0], "lengths": lengths}
    with pytest.raises(DataError, match="row 1: lengths"):
        read_history_file(write_lines(tmp_path / "a.jsonl", [row]))


@pytest.mark.parametrize(
    ("completion", "length"),
    [("äbc", 3), ("", 0), ([{"role": "assistant", "content": "ab"}, {"content": "c"}], 3), (None, None), ([{}], None)],
)
def test_characters(completion, length):
    found = characters(completion)
    assert found == length if length is not None else np.isnan(found)


def test_trl_counts_characters_and_puts_successes_first(tmp_path):
    texts = [[{"role": "assistant", "content": text}] for text in ("long wrong answer", "right")]
    rows = [{"step": 1, "prompt": "p", "completion": c, "r": i} for i, c in enumerate(texts)]
    write_parquet(tmp_path / "completions_00001.parquet", [row | {"r": float(row["r"])} for row in rows])
    (history,) = read_history(tmp_path)
    assert lengths_of(history) == [[5, 17]] and history.successes.tolist() == [1]


def test_verl_counts_tokens_where_the_dump_says_them(tmp_path):
    rows = [{"input": "p", "output": "four", "score": s, "step": 1} for s in (0.3, 0.7)]
    write_lines(tmp_path / "1.jsonl", [rows[0], rows[1] | {"response_length": 2.0}])
    (history,) = read_history(tmp_path)
    assert lengths_of(history) == [[4, 2]]
    outputs = [row | {"uid": f"a_0_{i}"} for i, row in enumerate(rows)]
    write_lines(tmp_path / "1.jsonl", outputs)  # two outputs of one rollout
    assert lengths_of(read_history(tmp_path)[0]) == [[8]]


def test_outcome_logs_keep_them(tmp_path):
    log = RunLog(tmp_path, strategy="default", seed=0)
    rewards = [np.array([0.0, 1.0]), np.array([1.0])]
    log.outcomes(1, ["a", "b"], [2, 2], [1, 1], [2, 1], rewards, [np.array([9.0, 4.0]), np.array([np.nan])])
    log.outcomes(2, ["a"], [2], [1], [2], rewards[:1])
    first, second = history_of_outcomes([tmp_path / "outcomes.jsonl"], {})
    assert lengths_of(first) == [[4, 9], [None, None]] and lengths_of(second) == [[None]]
    log.outcomes(3, ["a"], [2], [np.nan], [2], [np.array([0.5, 1.0])], [np.array([9.0, 4.0])])
    first, _ = history_of_outcomes([tmp_path / "outcomes.jsonl"], {})
    assert lengths_of(first)[2] == [9, 4] and first.rewards[2].tolist() == [0.5, 1.0]


def tokens_of(vip, prompts, rng, factor=1.0, **counts):
    """One step of `vip`; the second half of the prompts is four times as long. Returns the counts."""
    plan = vip.allocate(prompts, 8 * len(prompts))
    scale = np.where(np.arange(len(prompts)) < len(prompts) / 2, 100.0, 400.0) * factor
    rewards = [(rng.random(n) < 0.5).astype(float).tolist() for n in plan.counts]
    lengths = [(s * rng.lognormal(0, 0.2, n)).tolist() for s, n in zip(scale, plan.counts, strict=True)]
    vip.observe(prompts, rewards, lengths=lengths)
    return plan.counts


@pytest.mark.parametrize("rewarded", [False, True])
def test_a_warm_start_knows_the_lengths_in_another_unit(tmp_path, rewarded):
    """The log counts characters, four for a token."""
    rng, prompts = np.random.default_rng(0), [f"p {i}" for i in range(32)]
    rows = []
    for i, prompt in enumerate(prompts):
        lengths = [(400.0 * (1 if i < 16 else 4) * rng.lognormal(0, 0.2, 8)).tolist() for _ in range(4)]
        outcomes = {"rollouts": 8, "successes": rng.binomial(8, 0.5, 4).tolist()}
        if rewarded:
            outcomes = {"rewards": [rng.choice([0.0, 0.5, 1.0], 8).tolist() for _ in range(4)]}
        rows.append({"id": str(i), "prompt": prompt, "lengths": lengths} | outcomes)
    log = write_lines(tmp_path / "h.jsonl", rows)
    vip = VIP.from_log(log, features="none", cache=None, cost="tokens", spend="match", **TARGET)
    counts = tokens_of(vip, prompts, rng)
    assert counts[:16].mean() > 1.4 * counts[16:].mean()  # short prompts get more rollouts from the first step on
    tokens_of(vip, prompts, rng)
    assert vip.metrics()["spending/tokens_predicted"] == pytest.approx(vip.metrics()["spending/tokens"], rel=0.1)
    again = VIP(features="none", cache=None, cost="tokens", spend="match", **TARGET)
    again.load_state_dict(vip.state_dict())
    assert (again.allocate(prompts, 256).counts == vip.allocate(prompts, 256).counts).all()
