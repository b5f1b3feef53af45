"""History files: the three file types, identity, and errors that name the row."""

from __future__ import annotations

import datetime
import math

import numpy as np
import pytest

from log_files import plain, write_lines, write_parquet
from viprl.errors import DataError
from viprl.runs.history import ground_truth_text, history_of_outcomes, read_history_file, save_history, visits
from viprl.runs.run_log import RunLog

ROWS = [
    {"id": 7, "prompt": "one", "rollouts": 8, "successes": [0, 3, 8], "answer": "ignored"},
    {"id": "b", "prompt": [{"role": "user", "content": "two"}], "rollouts": [4, 2], "successes": [4, 0]},
]


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_json_lines(tmp_path, name):
    found = plain(read_history_file(write_lines(tmp_path / name, ["", *ROWS])))
    assert found == [("7", "one", None, [8, 8, 8], [0, 3, 8]), ("b", ROWS[1]["prompt"], None, [4, 2], [4, 0])]


@pytest.mark.parametrize(("rollouts", "expected"), [(8, [8, 8, 8]), ([8, 6, 8], [8, 6, 8])])
def test_parquet(tmp_path, rollouts, expected):
    row = {"id": 7, "prompt": "one", "rollouts": rollouts, "successes": [0, 3, 8]}
    found = plain(read_history_file(write_parquet(tmp_path / "t.parquet", [row])))
    assert found == [("7", "one", None, expected, [0, 3, 8])]


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_round_trip(tmp_path, name):
    without_id = {"prompt": "three", "rollouts": 2, "successes": [1]}
    with_truth = without_id | {"ground_truth": "3"}
    first = read_history_file(write_lines(tmp_path / "a.jsonl", [*ROWS, without_id, with_truth]))
    save_history(tmp_path / name, first)
    assert plain(read_history_file(tmp_path / name)) == plain(first)


def test_prompt_and_ground_truth_identify_a_prompt_without_id(tmp_path):
    row = {"prompt": "x", "rollouts": 2, "successes": [1]}
    rows = [row, row | {"ground_truth": "1"}, row | {"ground_truth": 2}, row | {"ground_truth": "1", "id": "own"}]
    found = read_history_file(write_lines(tmp_path / "t.jsonl", rows))
    assert len({history.id for history in found}) == 4
    assert [history.ground_truth for history in found] == [None, "1", "2", "1"]
    assert found[3].id == "own" and found[0].id.startswith("sha:")
    with pytest.raises(DataError, match="row 2"):  # 1 and "1" are the same answer
        read_history_file(write_lines(tmp_path / "t.jsonl", [rows[1], row | {"ground_truth": 1}]))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"successes": [1, 9, 0]}, "9 .* 8 .* visit 2"),
        ({"successes": [1, -1]}, "successes .* -1 .* 2"),
        ({"successes": [1, 0.5]}, "successes .* 0.5 .* 2"),
        ({"successes": [True]}, "successes .* True"),
        ({"successes": [float("nan")]}, "successes .* nan"),
        ({"successes": []}, "successes .* list"),
        ({"successes": 3}, "successes .* 3"),
        ({"successes": None}, "successes"),
        ({"rollouts": [8, 8]}, "rollouts .* 2 .* successes .* 3"),
        ({"rollouts": [8, 0, 8]}, "rollouts .* 0 .* 2"),
        ({"rollouts": "eight"}, "rollouts .* 'eight'"),
        ({"rollouts": 10**400}, "rollouts .* huge"),
        ({"rollouts": float("inf")}, "rollouts .* inf"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": float("nan")}, "prompt"),
        ({"prompt": "None"}, "prompt"),
        ({"id": 1.5}, "id"),
        ({"id": 7}, "'7' of row 1"),
    ],
)
def test_a_bad_row_is_named(tmp_path, change, named):
    bad = {"id": 9, "prompt": "x", "rollouts": 8, "successes": [1, 2, 3]} | change
    with pytest.raises(DataError, match=rf"t\.jsonl, row 2.*{named}"):
        read_history_file(write_lines(tmp_path / "t.jsonl", [ROWS[0], bad]))


def test_damaged_and_empty_files(tmp_path):
    cut = write_lines(tmp_path / "cut.jsonl.gz", [ROWS[0] | {"id": i} for i in range(50)])
    cut.write_bytes(cut.read_bytes()[:-20])
    for path in (cut, write_lines(tmp_path / "empty.jsonl", []), write_lines(tmp_path / "list.jsonl", ["[1]"])):
        with pytest.raises(DataError, match=path.name):
            read_history_file(path)


def test_outcome_logs_become_a_history(tmp_path):
    log = RunLog(tmp_path, strategy="default", seed=1)
    for step in (1, 2):
        log.outcomes(step, ["id:a", "id:b"], [3, 5], [1.0, 5.0], [3.0, 4.0])
    log.outcomes(3, ["id:a", "sha:1"], [4, 4], [0.0, 0.0], [0.0, 4.0])  # nothing scorable for a
    found = history_of_outcomes([tmp_path / "outcomes.jsonl"], {"id:a": "first", "id:b": "second"})
    assert plain(found) == [
        ("a", "first", None, [3, 3], [1, 1]),
        ("b", "second", None, [4, 4], [4, 4]),
        ("sha:1", "", None, [4], [0]),
    ]


def test_values_that_pandas_writes(tmp_path):
    pandas = pytest.importorskip("pandas")
    rows = [
        {"id": 7, "prompt": "one", "rollouts": 8, "successes": [3], "ground_truth": "1"},
        {"id": None, "prompt": "two", "rollouts": 8, "successes": [4], "ground_truth": None},
    ]
    pandas.DataFrame(rows).to_parquet(tmp_path / "t.parquet")  # ids become 7.0 and NaN
    write_lines(
        tmp_path / "t.jsonl", [rows[0] | {"id": 7.0}, rows[1] | dict.fromkeys(["id", "ground_truth"], float("nan"))]
    )
    for name in ("t.parquet", "t.jsonl"):
        first, second = read_history_file(tmp_path / name)
        assert (first.id, first.ground_truth, second.ground_truth) == ("7", "1", None)
        assert second.id.startswith("sha:")


@pytest.mark.parametrize("row", [{"step": 1}, {"ids": ["a"], "successes": [1, 2], "scorable": [2]}, {"ids": 3}])
def test_outcome_logs_of_another_form(tmp_path, row):
    path = write_lines(tmp_path / "outcomes.jsonl", [{"successes": ["a"], "scorable": ["b"]} | row])
    with pytest.raises(DataError, match=r"outcomes\.jsonl, row 1"):
        history_of_outcomes([path], {})


@pytest.mark.parametrize(
    "row",
    [{"successes": [-1]}, {"successes": [2**63]}, {"scorable": [10**9]}, {"scorable": [math.inf]},
     {"rewards": [[math.nan, 1]]}, {"lengths": [[-1, 2]]}],
)  # fmt: skip
def test_outcome_logs_with_impossible_outcomes(tmp_path, row):
    path = write_lines(tmp_path / "outcomes.jsonl", [{"ids": ["a"], "successes": [1], "scorable": [2]} | row])
    with pytest.raises(DataError, match=r"outcomes\.jsonl, row 1"):
        history_of_outcomes([path], {})


def test_successes_of_unscorable_rollouts_beside_graded_rewards(tmp_path):
    rows = [{"ids": ["a"], "successes": [3], "scorable": [2]}, {"ids": ["a"], "successes": [0], "scorable": [1]}]
    rows[1]["rewards"] = [[0.5]]
    (found,) = history_of_outcomes([write_lines(tmp_path / "outcomes.jsonl", rows)], {})
    assert [visit.tolist() for visit in found.rewards] == [[1, 1], [0.5]]


def test_a_visit_of_a_billion_rollouts_does_not_fill_the_memory(tmp_path):
    path = write_lines(tmp_path / "t.jsonl", [{"prompt": "p", "rollouts": 10**9, "successes": [1]}])
    with pytest.raises(DataError, match="rollouts"):
        read_history_file(path)


def test_visits_come_in_training_order(tmp_path):
    found = read_history_file(write_lines(tmp_path / "t.jsonl", ROWS))
    batches = [([h.id for h in batch], visit) for batch, visit in visits(found)]
    assert batches == [(["7", "b"], 0), (["7", "b"], 1), (["7"], 2)]
    assert [[h.id for h in batch] for batch, *_ in visits(found, size=1)] == [["7"], ["b"], ["7"], ["b"], ["7"]]


# --- rewards with more than two values --------------------------------------------------------------------------------

REWARDED = {"id": "r", "prompt": "graded", "rewards": [[0.1, 1, None], [0.0, 0.1, 1.0]]}


def rewards_of(history):
    return None if history.rewards is None else [visit.tolist() for visit in history.rewards]


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz", "t.parquet"])
@pytest.mark.parametrize("more", [{}, {"rollouts": [2, 3]}, {"successes": [1, None]}])
def test_rewards_are_read_and_written(tmp_path, name, more):
    write = write_parquet if name.endswith("parquet") else write_lines
    (found,) = read_history_file(write(tmp_path / name, [REWARDED | more]))
    assert rewards_of(found) == [[0.1, 1.0], [0.0, 0.1, 1.0]] and found.rollouts.tolist() == [2, 3]
    np.testing.assert_equal(found.successes, [1.0 if "successes" in more else np.nan, np.nan])
    save_history(tmp_path / "again.jsonl", [found])
    (again,) = read_history_file(tmp_path / "again.jsonl")
    assert rewards_of(again) == rewards_of(found) and again.rollouts.tolist() == [2, 3]
    np.testing.assert_equal(again.successes, found.successes)


def test_rewards_of_success_and_failure_are_counts(tmp_path):
    rows = [REWARDED | {"rewards": [[-1, 1, 1], [-1.0]]}, ROWS[0]]
    first, second = read_history_file(write_lines(tmp_path / "t.jsonl", rows))
    assert (
        plain([first]) == [("r", "graded", None, [3, 1], [2, 0])] and first.rewards is None and second.rewards is None
    )


def test_a_file_with_counts_and_rewards(tmp_path):
    _, counted = read_history_file(write_lines(tmp_path / "t.jsonl", [REWARDED, ROWS[1]]))
    assert rewards_of(counted) == [[1.0] * 4, [0.0] * 2] and counted.successes.tolist() == [4, 0]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rewards": 3}, "rewards"),
        ({"rewards": []}, "rewards"),
        ({"rewards": [[1.0], 2.0]}, "rewards .* 2"),
        ({"rewards": [[1.0], [None]]}, "rewards .* 2"),
        ({"rewards": [[1.0], ["high"]]}, "rewards .* 2"),
        ({"rewards": [[1.0], [float("inf")]]}, "rewards .* 2"),
        ({"rewards": [[1.0], [10**400]]}, "rewards .* 2"),
        ({"rollouts": 3}, "rollouts is 3 at visit 1"),
        ({"rollouts": [2]}, "rollouts has 1"),
        ({"successes": [1]}, "successes .* 2 visits"),
        ({"successes": [3, None]}, "3 successes of 2"),
        ({"prompt": None}, "prompt"),
    ],
)
def test_a_bad_row_with_rewards_is_named(tmp_path, change, named):
    with pytest.raises(DataError, match=rf"t\.jsonl, row 2.*{named}"):
        read_history_file(write_lines(tmp_path / "t.jsonl", [ROWS[0], REWARDED | change]))


def test_outcome_logs_with_rewards(tmp_path):
    log, nan = RunLog(tmp_path, strategy="default", seed=1), float("nan")
    log.outcomes(1, ["id:a"], [3], [1], [3], [np.array([1.0, 0.0, 0.0])])
    log.outcomes(2, ["id:a", "id:b"], [3, 2], [nan, nan], [2, 0], [np.array([0.1, 1.0]), np.empty(0)])
    (found,) = history_of_outcomes([tmp_path / "outcomes.jsonl"], {})
    assert rewards_of(found) == [[1.0, 0.0, 0.0], [0.1, 1.0]] and found.rollouts.tolist() == [3, 2]
    assert found.id == "a" and found.successes[0] == 1 and np.isnan(found.successes[1])


@pytest.mark.parametrize("more", [{}, {"rewards": [[0.1]]}, {"rewards": []}, {"rewards": [["high", 1.0]]}])
def test_an_outcome_log_with_nulls_and_other_rewards_is_named(tmp_path, more):
    path = write_lines(tmp_path / "outcomes.jsonl", [{"ids": ["a"], "successes": [None], "scorable": [2]} | more])
    with pytest.raises(DataError, match=r"outcomes\.jsonl, row 1"):
        history_of_outcomes([path], {})


@pytest.mark.parametrize(
    ("given", "text"), [(datetime.time(1, 2), '"01:02:00"'), ([datetime.date(2026, 1, 2)], '["2026-01-02"]')]
)
def test_ground_truths_that_json_lacks_become_text(given, text):
    assert ground_truth_text(given) == text
