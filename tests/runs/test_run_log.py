"""Logs of a run: append, cut back to a checkpoint, survive a line that was cut short."""

from __future__ import annotations

import math

import numpy as np
import pytest

from refused import refused
from viprl.errors import DataError, FileError
from viprl.runs.prompt_texts import PromptTexts
from viprl.runs.run_log import RunLog, only_writer
from viprl.utils.json_lines import log_rows, write_json_lines


def filled(folder, steps=4):
    log = RunLog(folder, strategy="default", seed=1)
    for step in range(1, steps + 1):
        log.outcomes(step, ["id:a", "id:b"], [3, 5], [1.0, 5.0], [3.0, 4.0])
        log.metrics(step, {"reward": 0.5, "bad": math.nan, "worse": math.inf, "note": "x", "odd": object()})
    return log


def test_rows_have_strategy_seed_step_and_rollouts_so_far(tmp_path):
    filled(tmp_path)
    rows = list(log_rows(tmp_path / "metrics.jsonl"))
    assert [row["rollouts"] for row in rows] == [8, 16, 24, 32]
    assert rows[0] == {
        "strategy": "default", "seed": 1, "step": 1, "rollouts": 8,
        "reward": 0.5, "bad": None, "worse": None, "note": "x", "odd": None,
    }  # fmt: skip


def test_a_resumed_run_logs_every_step_once(tmp_path):
    filled(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"strategy": "default", "se')  # killed while writing
    log = RunLog(tmp_path, strategy="default", seed=1)
    log.rewind(2)
    assert log.rollouts == 16
    log.outcomes(3, ["id:a"], [8], [8], [8])
    log.metrics(3, {})
    assert [row["step"] for row in log_rows(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    assert [row["step"] for row in log_rows(tmp_path / "outcomes.jsonl")] == [1, 2, 3]
    assert list(log_rows(tmp_path / "metrics.jsonl"))[-1]["rollouts"] == 24
    log.rewind(0)
    assert list(log_rows(tmp_path / "metrics.jsonl")) == [] and log.rollouts == 0


def test_logs_that_a_full_disk_cut_inside_a_character_can_be_resumed(tmp_path):
    RunLog(tmp_path, strategy="default", seed=1).outcomes(1, ["id:問題"], [8], [4], [8])
    PromptTexts(tmp_path).add(1, ["id:問題"], ["数字"])
    for name in ("outcomes.jsonl", "prompts.jsonl"):
        path = tmp_path / name
        line = path.read_bytes().replace(b'"step": 1', b'"step": 2')
        whole = path.read_bytes()
        inside = [end for end, byte in enumerate(line) if 0x80 <= byte < 0xC0]  # bytes that continue a character
        for end in inside[::2]:
            path.write_bytes(whole + line[:end])
            log, texts = RunLog(tmp_path, strategy="default", seed=1), PromptTexts(tmp_path)
            log.rewind(2)
            texts.rewind(2)
            assert log.rollouts == 8 and texts.read() == {"id:問題": "数字"}


def test_texts_of_prompts_are_written_once_and_cut_back(tmp_path):
    texts = PromptTexts(tmp_path)
    assert texts.read() == {}
    texts.add(1, ["id:a", "sha:b"], [{"prompt": "first", "id": "a"}, "second"])
    texts.add(2, ["id:a", "sha:c"], [{"prompt": "changed", "id": "a"}, "third"])
    resumed = PromptTexts(tmp_path)
    resumed.rewind(1)
    assert resumed.read() == {"id:a": "first", "sha:b": "second"}


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("metrics.jsonl", {"a": 1}),
        ("metrics.jsonl", {"step": None}),
        ("outcomes.jsonl", {"step": 1, "counts": 3}),
        ("outcomes.jsonl", {"step": "1", "counts": []}),
        ("prompts.jsonl", {"step": 1, "id": []}),
    ],
)
def test_rows_of_another_form_are_named_when_a_run_is_resumed(tmp_path, name, row):
    write_json_lines(tmp_path / name, [row])
    with refused(DataError, name, "row 1"):
        RunLog(tmp_path, strategy="default", seed=1).rewind(1)
        PromptTexts(tmp_path).rewind(1)


@pytest.mark.parametrize("prompt", [[None], [{"role": "user"}], 3, None])
def test_prompts_of_another_form_are_named(tmp_path, prompt):
    write_json_lines(tmp_path / "prompts.jsonl", [{"step": 1, "id": "id:7", "prompt": prompt}])
    with refused(DataError, "prompts.jsonl", "row 1"):
        PromptTexts(tmp_path).read()


def test_a_prompt_without_messages_has_no_text(tmp_path):
    write_json_lines(tmp_path / "prompts.jsonl", [{"step": 1, "id": "id:7", "prompt": []}])
    assert PromptTexts(tmp_path).read() == {"id:7": ""}


def test_a_folder_has_one_writer(tmp_path):
    with only_writer(tmp_path / "run"), pytest.raises(FileError, match="run"), only_writer(tmp_path / "run"):
        pass
    with only_writer(tmp_path / "run"):
        pass


NAN = math.nan


@pytest.mark.parametrize(
    ("successes", "rewards", "expected"),
    [
        ([1, 0], [[1.0, 0.0], [0.0]], {"successes": [1, 0]}),
        ([1, 0], [[1.0, -1.0], [-1.0]], {"successes": [1, 0]}),
        ([1, NAN], [[1.0, 0.0], []], {"successes": [1, 0]}),
        (
            [NAN, NAN],
            [[0.5, 1e6 + 1], [np.float32(0.1)]],
            {"successes": [None, None], "rewards": [[0.5, 1e6 + 1], [0.1]]},
        ),
        ([1, 1], [[1.0, 0.2], [0.7]], {"successes": [1, 1], "rewards": [[1.0, 0.2], [0.7]]}),
        ([0, 1], [[1.0, 0.0], [0.0]], {"successes": [0, 1], "rewards": [[1.0, 0.0], [0.0]]}),  # of another reward
    ],
)
def test_rewards_are_logged_where_successes_do_not_say_them(tmp_path, successes, rewards, expected):
    log = RunLog(tmp_path, strategy="default", seed=1)
    groups = [np.array(group, dtype=float) for group in rewards]
    log.outcomes(1, ["a", "b"], [2, 1], successes, [len(group) for group in groups], groups)
    (row,) = log_rows(tmp_path / "outcomes.jsonl")
    scorable = [len(group) for group in rewards]
    assert row == {"step": 1, "ids": ["a", "b"], "counts": [2, 1], "scorable": scorable} | expected


def test_rewards_of_minus_one_are_logged_after_rewards_of_another_kind(tmp_path):
    log = RunLog(tmp_path, strategy="default", seed=1)
    for step, rewards in enumerate([[1.0, -1.0], [0.5, -1.0], [1.0, -1.0]], start=1):
        log.outcomes(step, ["a"], [2], [1], [2], [np.array(rewards)])
    resumed = RunLog(tmp_path, strategy="default", seed=1)
    resumed.rewind(2)
    resumed.outcomes(3, ["a"], [2], [1], [2], [np.array([1.0, -1.0])])
    assert [row.get("rewards") for row in log_rows(tmp_path / "outcomes.jsonl")] == [
        None, [[0.5, -1.0]], [[1.0, -1.0]],
    ]  # fmt: skip
