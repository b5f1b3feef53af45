"""Histories from run folders and from the logs of verl and TRL."""

from __future__ import annotations

import json

import pytest

from log_files import plain, visits_of, write_lines, write_parquet
from viprl.errors import DataError, FileError
from viprl.runs.engine_logs import from_trl, from_verl, read_history
from viprl.runs.history import save_history

ROW = {"id": "a", "prompt": "p", "rollouts": 4, "successes": [1]}


@pytest.mark.parametrize("name", ["history.jsonl.gz", "trajectories.jsonl.gz"])
def test_a_run_folder(tmp_path, name):
    write_lines(tmp_path / "metrics.jsonl", [{"step": 1}])
    write_lines(tmp_path / name, [ROW])
    assert plain(read_history(tmp_path)) == [("a", "p", None, [4], [1])]
    assert plain(read_history(tmp_path / name)) == plain(read_history(tmp_path))


def test_the_new_name_wins_in_a_folder_with_both(tmp_path):
    write_lines(tmp_path / "trajectories.jsonl.gz", [ROW])
    write_lines(tmp_path / "history.jsonl.gz", [ROW | {"id": "new"}])
    assert [history.id for history in read_history(tmp_path)] == ["new"]


def test_paths_without_a_history(tmp_path):
    with pytest.raises(FileError, match=r"missing\.jsonl"):
        read_history(tmp_path / "missing.jsonl")
    with pytest.raises(DataError, match=r"t\.csv"):
        read_history(write_lines(tmp_path / "t.csv", [ROW]))
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"folder .*history\.jsonl\.gz"):
        read_history(tmp_path / "folder")
    with pytest.raises(FileError, match="rollout_data_dir"):
        from_verl(tmp_path / "folder")
    with pytest.raises(FileError, match="log_completions"):
        from_trl(tmp_path / "folder")


# --- verl -------------------------------------------------------------------------------------------------------------


def verl(prompt, score, **more):
    return {"input": prompt, "output": "o", "gts": "g", "score": score, "step": 1} | more


def test_verl_steps_become_visits_in_the_order_of_their_numbers(tmp_path):
    for step in (11, 3, 10, 2, 12, 1, 9):
        write_lines(tmp_path / f"{step}.jsonl", [verl("p", float(i > 0)) for i in range(step)])
    write_lines(tmp_path / "4.jsonl", [verl("p", 0.0), verl("q", -1.0), verl("p", 1.0)])
    write_lines(tmp_path / "notes.jsonl", ["is not read"])
    found = read_history(tmp_path)
    assert visits_of(found) == [("p", [1, 2, 3, 2, 9, 10, 11, 12], [0, 1, 2, 1, 8, 9, 10, 11]), ("q", [1], [0])]
    save_history(tmp_path / "t.jsonl.gz", found)
    assert plain(read_history(tmp_path / "t.jsonl.gz")) == plain(found)


@pytest.mark.parametrize(
    ("first", "second", "texts"),
    [
        ("1", "2", ["1", "2"]),
        (1, 2.5, ["1", "2.5"]),
        ('{"target": 24, "numbers": [1, 2]}', '{"target": 3, "numbers": [1, 2]}', None),
        ({"b": 1, "a": 2}, {"b": 1, "a": 3}, ['{"a": 2, "b": 1}', '{"a": 3, "b": 1}']),
    ],
)
def test_equal_inputs_with_different_answers_are_different_prompts(tmp_path, first, second, texts):
    more = {"acc": True, "pred": "x"}
    for step in (1, 2):
        rollouts = ((1.0, first), (0.0, second), (0.0, first))
        write_lines(tmp_path / f"{step}.jsonl", [verl("p", score, gts=gts, **more) for score, gts in rollouts])
    found = read_history(tmp_path)
    assert visits_of(found) == [("p", [2, 2], [1, 1]), ("p", [1, 1], [0, 0])]
    assert len({history.id for history in found}) == 2
    assert [history.ground_truth for history in found] == (texts or [first, second])
    save_history(tmp_path / "t.jsonl", found)
    assert plain(read_history(tmp_path / "t.jsonl")) == plain(found)


def test_without_answers_the_input_alone_identifies_a_prompt(tmp_path):
    rows = [{"input": prompt, "output": "o", "score": score} for prompt, score in (("p", 1.0), ("p", 0.0), ("q", 0.0))]
    write_lines(tmp_path / "1.jsonl", rows)
    write_lines(tmp_path / "2.jsonl", [verl("p", 1.0, gts=None)])
    found = read_history(tmp_path)
    assert visits_of(found) == [("p", [2, 1], [1, 1]), ("q", [1], [0])]
    assert [history.ground_truth for history in found] == [None, None]


def test_verl_rewards_that_are_not_binary_need_a_threshold_or_another_field(tmp_path):
    rows = [verl("p", 0.2, acc=True), verl("p", 0.7, acc=False), verl("p", None, acc=True)]
    write_lines(tmp_path / "1.jsonl", rows)
    with pytest.raises(DataError, match="success"):
        from_verl(tmp_path)
    assert visits_of(read_history(tmp_path, success=0.5)) == [("p", [2], [1])]  # null is unscorable
    assert visits_of(read_history(tmp_path, reward="acc")) == [("p", [3], [2])]
    with pytest.raises(DataError, match=r"1\.jsonl, row 1 .*'quality'"):
        from_verl(tmp_path, reward="quality")


def test_verl_outputs_of_one_rollout_count_once(tmp_path):
    turns = [
        verl("p", 0.0, uid="s-1_0_0"),
        verl("p and more", 1.0, uid="s-1_0_1"),  # the end of the first rollout
        verl("p", 0.0, uid="s-1_1_0"),
        verl("", 0.0, uid="pad" + "0" * 32 + "_0_0"),  # padding
    ]
    write_lines(tmp_path / "1.jsonl", turns)
    assert visits_of(from_verl(tmp_path)) == [("p", [2], [1])]
    write_lines(tmp_path / "1.jsonl", [verl("p", score, uid="math_3_12") for score in (1.0, 0.0, 1.0)])
    assert visits_of(from_verl(tmp_path)) == [("p", [3], [2])]  # uids of the data set do not merge rollouts


# --- TRL --------------------------------------------------------------------------------------------------------------


def completions(step, rewards, prompt="p", **more):
    return [
        {"step": step, "prompt": prompt, "completion": f"{step}-{i}", "correct": r, **more, "advantage": 0.0}
        for i, r in enumerate(rewards)
    ]


def test_trl_files_become_visits(tmp_path):
    chat = [{"role": "user", "content": "q"}]
    folder = tmp_path / "completions"
    write_parquet(folder / "completions_00012.parquet", completions(12, [1.0, 1.0], chat))
    write_parquet(folder / "completions_00002.parquet", completions(2, [1.0, 0.0, float("nan")], chat))
    repeated = [row | {"step": 13} for row in completions(12, [1.0, 1.0], chat)]  # a second step on one generation
    write_parquet(folder / "completions_00013.parquet", repeated)
    for place in (tmp_path, folder):
        found = read_history(place)
        assert visits_of(found) == [(chat, [2, 2], [1, 2])]
    save_history(tmp_path / "t.jsonl", found)
    assert json.loads((tmp_path / "t.jsonl").read_text()).keys() == {"id", "prompt", "rollouts", "successes"}


def test_trl_with_several_rewards_needs_a_choice(tmp_path):
    write_parquet(tmp_path / "completions_00001.parquet", completions(1, [0.0, 1.0], brevity=0.3))
    with pytest.raises(DataError, match="correct, brevity"):
        read_history(tmp_path)
    with pytest.raises(DataError, match=r"'length'.*correct, brevity"):
        from_trl(tmp_path, reward="length")
    assert visits_of(read_history(tmp_path, reward="correct")) == [("p", [2], [1])]
