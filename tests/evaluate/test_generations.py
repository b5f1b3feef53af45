"""Files of completions: read, checked, appended to, and recovered after a kill."""

from __future__ import annotations

import json

import pytest

from refused import refused
from viprl.errors import DataError, FileError
from viprl.evaluate.generations import Generations, Store, check_same_problems, read_generations, seed_of

GOOD = {"id": "a", "answer": "1", "completions": ["x", "y"]}


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", "file.jsonl"),
        (lines(GOOD) + "{oops\n", "row 2"),
        (lines(GOOD) + '{"id": "b", "comp', "row 2"),
        (lines([1]), "row 1 .*list"),
        ("\udcff", "row 1"),
        (lines({"id": "a", "completions": ["x"]}), "row 1 .*answer; .*id, completions"),
        (lines(GOOD, {**GOOD, "id": "b", "answer": None}), "row 2: the answer is empty"),
        (lines({**GOOD, "answer": " "}), "row 1: the answer is empty"),
        (lines({**GOOD, "id": None}), "row 1: id .*None"),
        (lines({**GOOD, "completions": []}), "row 1: completions"),
        (lines({**GOOD, "completions": "xy"}), "row 1: completions .*str"),
        (lines({**GOOD, "completions": ["x", None]}), "row 1: completion 2 .*NoneType"),
        (lines(GOOD, {**GOOD, "answer": "2"}), "rows 1 and 2 .*'a'"),
        (lines(GOOD, {**GOOD, "id": "b", "completions": ["x"]}), "'b' has 1 .*'a' has 2"),
        (lines({**GOOD, "completions": ["", " "]}), "empty"),
    ],
)
def test_unusable_files(tmp_path, text, keys):
    file = tmp_path / "file.jsonl"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=keys):
        read_generations(file)


def test_missing_files(tmp_path):
    for path in (tmp_path / "nothing.jsonl", tmp_path):
        with refused(FileError, path):
            read_generations(path)


@pytest.mark.parametrize(
    ("answers", "keys"),
    [
        ({"a": "1/2", "x": "3"}, "1 of 2 ids .*'b'"),
        ({"a": "1/2", "b": "9"}, "'b' .*'7' .*'9'"),
        ({"a": "1/2", "b": "7", "c": "3"}, "2 of the 3 .*'c'.*--limit"),
    ],
)
def test_problems_of_another_data_set(answers, keys):
    problems = [Generations("a", "1/2", ("x",)), Generations("b", "7", ("x",))]
    check_same_problems(problems, {"a": "1/2 ", "b": "7"}, "file", "data")
    with pytest.raises(DataError, match=keys):
        check_same_problems(problems, answers, "file", "data")


def test_a_cut_last_line_is_removed_and_nothing_else(tmp_path):
    file = tmp_path / "samples.jsonl"
    store = Store(file)
    rows = [Generations(f"p{i}", "1", ("a\n", "\udcff é"), i) for i in range(3)]
    for row in rows:
        store.append(row)
    assert read_generations(file) == rows
    whole = file.read_bytes()
    third = whole[:-1].rfind(b"\n") + 1
    for cut in range(third, len(whole)):
        file.write_bytes(whole[:cut])
        assert list(Store(file).found.values()) == rows[:2]
        assert file.read_bytes() == whole[:third]
    Store(file).append(rows[2])
    assert file.read_bytes() == whole
    file.write_bytes(b"{rubbish}\n" + whole)
    with pytest.raises(DataError, match="row 1"):
        Store(file)


def test_seeds_depend_on_seed_and_id_alone():
    seeds = {seed_of(s, name) for s in (0, 1) for name in ("a", "b", "1", "11")}
    assert len(seeds) == 8 and seed_of(0, "a") == seed_of(0, "a") and max(seeds) < 2**48
