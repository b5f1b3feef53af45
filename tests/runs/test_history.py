"""Trajectories: the three file kinds, errors that name the row, and logs of verl and TRL turned into them."""

from __future__ import annotations

import gzip
import json

import pytest

from viprl.runs.engine_logs import from_trl, from_verl, read_history
from viprl.runs.history import save_history

ROWS = [
    {"id": 7, "prompt": "one", "rollouts": 8, "successes": [0, 3, 8], "answer": "ignored"},
    {"id": "b", "prompt": [{"role": "user", "content": "two"}], "rollouts": [4, 2], "successes": [4, 0]},
]


def write_lines(path, rows):
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def write_parquet(path, rows):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def plain(trajectories):
    return [(t.id, t.prompt, t.rollouts.tolist(), t.successes.tolist()) for t in trajectories]


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_json_lines(tmp_path, name):
    found = plain(read_history(write_lines(tmp_path / name, ["", *ROWS])))
    assert found == [("7", "one", [8, 8, 8], [0, 3, 8]), ("b", ROWS[1]["prompt"], [4, 2], [4, 0])]


@pytest.mark.parametrize("rollouts", [8, [8, 6, 8]])
def test_parquet(tmp_path, rollouts):
    row = {"id": 7, "prompt": "one", "rollouts": rollouts, "successes": [0, 3, 8]}
    found = plain(read_history(write_parquet(tmp_path / "t.parquet", [row])))
    assert found == [("7", "one", [8, 6 if isinstance(rollouts, list) else 8, 8], [0, 3, 8])]


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_round_trip(tmp_path, name):
    without_id = {"prompt": "three", "rollouts": 2, "successes": [1]}
    first = read_history(write_lines(tmp_path / "a.jsonl", [*ROWS, without_id]))
    assert first[2].id.startswith("sha:")
    save_history(tmp_path / name, first)
    assert plain(read_history(tmp_path / name)) == plain(first)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"successes": [1, 9, 0]}, "9 successes of 8 rollouts at visit 2"),
        ({"successes": [1, -1]}, r"successes holds -1 \(number 2\)"),
        ({"successes": [1, 0.5]}, r"successes holds 0.5 \(number 2\)"),
        ({"successes": [True]}, "successes holds True"),
        ({"successes": [float("nan")]}, "successes holds nan"),
        ({"successes": []}, "successes is .*a number for each visit"),
        ({"successes": 3}, "successes is 3"),
        ({"successes": None}, "needs `prompt`, `rollouts` and `successes`"),
        ({"rollouts": [8, 8]}, "2 rollouts for 3 successes"),
        ({"rollouts": [8, 0, 8]}, r"rollouts holds 0 \(number 2\).*at least 1"),
        ({"rollouts": "eight"}, "rollouts holds 'eight'"),
        ({"prompt": 5}, "a prompt is a string"),
        ({"id": 1.5}, "an id is a string or an integer"),
    ],
)
def test_a_bad_row_is_named(tmp_path, change, message):
    bad = {"id": 9, "prompt": "x", "rollouts": 8, "successes": [1, 2, 3]} | change
    path = write_lines(tmp_path / "t.jsonl", [ROWS[0], bad])
    with pytest.raises(ValueError, match=rf"t\.jsonl, row 2.*{message}"):
        read_history(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [('{"id": 1, "prom', "row 2 is not JSON"), ("[1]", "row 2 is a list"), (ROWS[0] | {"id": "7"}, "row 2 repeats")],
)
def test_a_row_that_is_none_is_named(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        read_history(write_lines(tmp_path / "t.jsonl", [ROWS[0], row]))


def test_files_that_are_none(tmp_path):
    cut = write_lines(tmp_path / "cut.jsonl.gz", [ROWS[0] | {"id": i} for i in range(50)])
    cut.write_bytes(cut.read_bytes()[:-20])
    with pytest.raises(ValueError, match="cannot be read after row"):
        read_history(cut)
    (tmp_path / "plain.gz").write_text("no gzip")
    with pytest.raises(ValueError, match="cannot be read after row 0"):
        read_history(tmp_path / "plain.gz")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_history(tmp_path / "missing.jsonl")
    with pytest.raises(ValueError, match="unknown kind"):
        read_history(write_lines(tmp_path / "t.csv", ROWS))
    with pytest.raises(ValueError, match="holds no rows"):
        read_history(write_lines(tmp_path / "empty.jsonl", []))
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="holds no trajectories"):
        read_history(tmp_path / "folder")


def test_a_run_folder(tmp_path):
    write_lines(tmp_path / "metrics.jsonl", [{"step": 1}])
    write_lines(tmp_path / "trajectories.jsonl.gz", ROWS)
    assert [t.id for t in read_history(tmp_path)] == ["7", "b"]


def verl(prompt, score, step, **more):
    return {"input": prompt, "output": "o", "gts": "g", "score": score, "step": step} | more


def test_verl_steps_become_visits_in_the_order_of_their_numbers(tmp_path):
    for step in (11, 3, 10, 2, 12, 1, 9):
        write_lines(tmp_path / f"{step}.jsonl", [verl("p", float(i > 0), step) for i in range(step)])
    write_lines(tmp_path / "4.jsonl", [verl("p", 0.0, 4), verl("q", -1.0, 4), verl("p", 1.0, 4)])
    write_lines(tmp_path / "notes.jsonl", ["is not read"])
    found = read_history(tmp_path)
    assert [(t.prompt, t.rollouts.tolist(), t.successes.tolist()) for t in found] == [
        ("p", [1, 2, 3, 2, 9, 10, 11, 12], [0, 1, 2, 1, 8, 9, 10, 11]),
        ("q", [1], [0]),
    ]
    save_history(tmp_path / "t.jsonl.gz", found)
    assert plain(read_history(tmp_path / "t.jsonl.gz")) == plain(found)


def test_verl_rewards_that_are_not_binary_need_a_threshold_or_another_field(tmp_path):
    rows = [verl("p", 0.2, 1, acc=True), verl("p", 0.7, 1, acc=False), verl("p", None, 1, acc=True)]
    write_lines(tmp_path / "1.jsonl", rows)
    with pytest.raises(ValueError, match="no reward could be read"):
        from_verl(tmp_path)
    (threshold,) = read_history(tmp_path, success=0.5)
    assert (threshold.rollouts.tolist(), threshold.successes.tolist()) == ([2], [1])  # null is unscorable
    (field,) = read_history(tmp_path, reward="acc")
    assert (field.rollouts.tolist(), field.successes.tolist()) == ([3], [2])
    with pytest.raises(ValueError, match=r"1\.jsonl, row 1 has the fields .* but no 'quality'"):
        from_verl(tmp_path, reward="quality")
    with pytest.raises(FileNotFoundError, match="rollout_data_dir"):
        from_verl(tmp_path / "nowhere")


def test_verl_outputs_of_one_rollout_count_once(tmp_path):
    turns = [
        verl("p", 0.0, 1, uid="s-1_0_0"),
        verl("p and more", 1.0, 1, uid="s-1_0_1"),  # the end of the first rollout
        verl("p", 0.0, 1, uid="s-1_1_0"),
    ]
    write_lines(tmp_path / "1.jsonl", turns)
    assert [(t.prompt, t.rollouts.tolist(), t.successes.tolist()) for t in from_verl(tmp_path)] == [("p", [2], [1])]


def test_verl_uids_of_the_data_set_do_not_merge_rollouts(tmp_path):
    write_lines(tmp_path / "1.jsonl", [verl("p", score, 1, uid="math_3_12") for score in (1.0, 0.0, 1.0)])
    assert [(t.rollouts.tolist(), t.successes.tolist()) for t in from_verl(tmp_path)] == [([3], [2])]


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
        (found,) = read_history(place)
        assert (found.prompt, found.rollouts.tolist(), found.successes.tolist()) == (chat, [2, 2], [1, 2])
    save_history(tmp_path / "t.jsonl", [found])
    assert plain(read_history(tmp_path / "t.jsonl")) == plain([found])


def test_trl_with_several_rewards_needs_a_choice(tmp_path):
    write_parquet(tmp_path / "completions_00001.parquet", completions(1, [0.0, 1.0], brevity=0.3))
    with pytest.raises(ValueError, match="one of correct, brevity"):
        read_history(tmp_path)
    with pytest.raises(ValueError, match="not 'length'"):
        from_trl(tmp_path, reward="length")
    (found,) = read_history(tmp_path, reward="correct")
    assert (found.rollouts.tolist(), found.successes.tolist()) == ([2], [1])
    with pytest.raises(FileNotFoundError, match="log_completions"):
        from_trl(tmp_path / "nowhere")
