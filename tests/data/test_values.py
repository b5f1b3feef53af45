"""Values of files: they arrive as they were, or the row is bad, from every kind of file."""

from __future__ import annotations

import datetime
import json
import math
import random
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_files import lines
from datasets import Dataset, concatenate_datasets, load_dataset

from refused import refused
from viprl.data import DataSource, load
from viprl.data.answer import read_answer
from viprl.data.export import to_verl_rows, write_parquet
from viprl.data.values import column_of, for_datasets, values_of
from viprl.errors import DataError

ASK = {"role": "user", "content": "a?"}
PARTS = [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "b?"}]}]


def call(**arguments) -> list[dict]:
    function = {"name": "f", "arguments": arguments}
    said = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}
    return [ASK, said, {"role": "tool", "content": "ok"}, {"role": "user", "content": "b?"}]


CHATS = {
    "parts": [PARTS, PARTS],
    "parts and texts": [[ASK], PARTS, [ASK]],
    "other keys": [call(x=1, y=2), call(city="Bern"), call()],
    "other types": [call(q=0), call(q="Bern"), call(q=[1, {"a": 0.1}]), call(q=2.0)],
    "a null of its own": [call(q=None, r=1), call(s=2)],
    "names": [[ASK], [{**ASK, "name": "n"}], [ASK, {"role": "assistant", "content": "x", "thinking": "t"}, ASK]],
}


def places(tmp_path, rows: list[dict]) -> list[str]:
    """The rows as files and folders of every kind that can keep them."""
    lines(tmp_path / "d.jsonl", rows)
    (tmp_path / "d.json").write_text(json.dumps(rows))
    (tmp_path / "copy").mkdir()
    lines(tmp_path / "copy" / "train.jsonl", rows)
    data = Dataset.from_list(rows, on_mixed_types="use_json")
    data.save_to_disk(tmp_path / "saved")
    data.to_parquet(tmp_path / "d.parquet")
    return [str(tmp_path / name) for name in ("d.jsonl", "d.json", "copy", "saved", "d.parquet")]


def without_nulls(value):
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("chats", CHATS.values(), ids=CHATS)
def test_chats_arrive_with_their_own_keys_and_types(tmp_path, chats):
    for place in places(tmp_path, [{"prompt": chat, "solution": str(i)} for i, chat in enumerate(chats)]):
        data = load(DataSource(place)).dataset
        seen = [data[i]["prompt"] for i in range(len(chats))]
        if place.endswith((".jsonl", ".json")):
            assert json.dumps(seen) == json.dumps(chats)
        else:
            assert without_nulls(seen) == without_nulls(chats)
        assert data[:]["prompt"] == list(data["prompt"]) == [row["prompt"] for row in data] == seen
        assert data["solution"][:] == [str(i) for i in range(len(chats))]


def test_keys_that_parquet_added_as_nulls_are_not_in_the_prompt(tmp_path):
    pq.write_table(pa.table({"prompt": [call(x=1), call(city="Bern")], "solution": ["1", "2"]}), tmp_path / "d.parquet")
    data = load(DataSource(str(tmp_path / "d.parquet"))).dataset
    assert data[0]["prompt"] == call(x=1) and data[1]["prompt"] == call(city="Bern")


TESTS = {
    "keys": [[{"in": 1, "out": 2}], [{"stdin": "a", "timeout": None}], []],
    "types": [1, "1", None, 2.5, [1, "a"], {"a": True}],
    "numbers": [[1, 2.0], [3], [0.1 + 0.2]],
    "whole and not": [1, 2.5, 3.0],
    "order of keys": [{"a": 1, "b": 2}, {"b": 1, "a": 2}],
    "floats in mixed values": [[random.Random(1).random() * 10.0**e, "x"] for e in range(-8, 18)],
    "empty": [{}, {"a": {}}, {"a": [{}]}],
    "deep": [json.loads("[" * 100 + "]" * 100)],
    "texts like JSON": ["[1]", "12", {"a": "null"}],
}


@pytest.mark.parametrize("values", TESTS.values(), ids=TESTS)
def test_other_columns_reach_reward_functions_as_they_were(tmp_path, values):
    rows = [{"prompt": f"p{i}", "solution": "1", "tests": value} for i, value in enumerate(values)]
    data = load(DataSource(lines(tmp_path / "d.jsonl", rows))).dataset
    for seen in (
        [row["tests"] for row in data],
        data[:]["tests"],
        [row["tests"] for row in data.__getitems__([*range(len(rows))])],
    ):
        assert json.dumps(seen) == json.dumps(values)
    both = concatenate_datasets([data.select([0]), data.shuffle(seed=0).select([0])])
    assert json.dumps(both[0]["tests"]) == json.dumps(values[0])


@pytest.mark.parametrize("value", [2**70, "cut \ud83d", [{"a": "x\ud83d"}]], ids=str)
def test_values_that_datasets_cannot_keep_are_named(tmp_path, value):
    rows = [{"prompt": "p", "solution": "1", "tests": 1.5}, {"prompt": "q", "solution": "1", "tests": value}]
    with refused(DataError, "row 2", "tests"):
        load(DataSource(lines(tmp_path / "d.jsonl", rows)))


def test_floats_survive_the_reader_of_datasets():
    rng = random.Random(0)
    values = [[rng.random() * 10.0 ** rng.randint(-8, 18), ""] for _ in range(300)]
    column = for_datasets(pa.chunked_array([column_of(values)]), "x", range(300))
    assert Dataset(pa.table({"x": column}))[:]["x"] == values == values_of(column)


ANSWERS = [
    ("3e-05", "0.00003"), ("1e16", "10000000000000000"), ("1.5e3", "1500"), ("1e-7", "0.0000001"), ("5.0", "5"),
    ("100000000000000000000000", "100000000000000000000000"), ("0.30000000000000004", "0.30000000000000004"),
    ("-0.0", "0"), ("-2.50", "-2.5"), ("3.14159265358979323846", "3.14159265358979323846"), ("1E+2", "100"),
    ("123456789012345678.25", "123456789012345678.25"), ("1e22", "10000000000000000000000"), ("7", "7"),
    ('["$2n$"]', "$2n$"), ("[0.5]", "0.5"), ('" 1/2 "', "1/2"), ('"1e5"', "1e5"), ('"007"', "007"), ('"None"', "None"),
]  # fmt: skip
BAD_ANSWERS = [
    ("null", "empty"), ("NaN", "empty"), ("[null]", "empty"), ('"nan"', "'nan'"), ('"<NA>"', "'<NA>'"),
    ('"NaT"', "'NaT'"), ('" "', "empty"), ("Infinity", "Infinity"), ("1e999", "1E+999"), ("true", "true"),
    ("[]", "list of 0"), ('["a", "b"]', "list of 2"), ('[["a"]]', "list of 1"), ('{"target": ["Paris"]}', "target"),
    ("1.2345678901234567890e-5000", "E-5000"), ('"\\ud83d"', "ud83d"), ("[true]", "true"), ("{}", "mapping"),
]  # fmt: skip


@pytest.mark.parametrize("others", [["1"], ['"a"', "2", "2.5"]], ids=["alone", "mixed"])
@pytest.mark.parametrize(("written", "answer"), ANSWERS)
def test_answers_in_json(tmp_path, written, answer, others):
    rows = [f'{{"prompt": "p{i}", "solution": {value}}}' for i, value in enumerate([*others, written])]
    assert load(DataSource(lines(tmp_path / "d.jsonl", rows))).dataset["solution"][-1] == answer
    rows = [f'{{"prompt": "p{i}", "r": {{"a": {value}}}}}' for i, value in enumerate([*others, written])]
    found = load(DataSource(lines(tmp_path / "d.jsonl", rows), solution_column="r.a"))
    assert found.dataset["solution"][-1] == answer


@pytest.mark.parametrize(("written", "reason"), BAD_ANSWERS)
def test_bad_answers_in_json(tmp_path, written, reason):
    rows = [f'{{"prompt": "p{i}", "solution": {value}}}' for i, value in enumerate(["1", written])]
    with refused(DataError, "row 2: the answer", reason):
        load(DataSource(lines(tmp_path / "d.jsonl", rows)))


@pytest.mark.parametrize(
    ("column", "answers"),
    [
        (pa.array([0.1, 3e-5, 1e7], pa.float32()), ["0.1", "0.00003", "10000000"]),
        (pa.array(np.array([0.1, 5], np.float16)), ["0.1", "5"]),
        (pa.array([Decimal("0.50"), Decimal("12.00")]), ["0.5", "12"]),
        (pa.array([2**64 - 1], pa.uint64()), [str(2**64 - 1)]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
        (pa.array(pd.Series([5, 7], dtype="Int64")), ["5", "7"]),
        (pa.array([["2"], ["3"]]), ["2", "3"]),
        (pa.array([[np.float32(0.1)]], pa.list_(pa.float32())), ["0.1"]),
        (pa.array(["1", '"a"'], pa.json_()), ["1", "a"]),
    ],
)
def test_answers_in_parquet(tmp_path, column, answers):
    table = pa.table({"prompt": [f"p{i}" for i in range(len(column))], "reward_model": [None] * len(column)})
    pq.write_table(table.append_column("solution", column), tmp_path / "d.parquet")
    assert load(DataSource(str(tmp_path / "d.parquet"))).dataset["solution"][:] == answers
    nested = pa.StructArray.from_arrays([column], ["ground_truth"])
    pq.write_table(pa.table({"prompt": table["prompt"], "reward_model": nested}), tmp_path / "d.parquet")
    assert load(DataSource(str(tmp_path / "d.parquet"))).dataset["solution"][:] == answers


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (pa.array([b"1"]), "bytes"),
        (pa.array([datetime.datetime(2024, 1, 1)]), "2024-01-01"),
        (pa.array([datetime.timedelta(1)]), "1 day"),
        (pa.array([True]), "true"),
        (pa.array([math.inf]), "Infinity"),
        (pa.array([math.nan]), "empty"),
        (pa.array([{"a": "1", "b": None}]), "keys a"),
        (pa.array([None], pa.timestamp("ns")), "empty"),
        (pa.array([None], pa.null()), "empty"),
        (pa.array([["a", "b"]]), "list of 2"),
    ],
)
def test_bad_answers_in_parquet(tmp_path, bad, reason):
    pq.write_table(pa.table({"prompt": ["p"], "solution": bad}), tmp_path / "d.parquet")
    with refused(DataError, "the answer", reason):
        load(DataSource(str(tmp_path / "d.parquet")))


@pytest.mark.parametrize("value", [None, math.nan, np.float32("nan"), pd.NA, pd.NaT, Decimal("NaN"), "", " NaN "])
def test_missing_answers_in_python(value):
    with pytest.raises(DataError):
        read_answer(value)
    with refused(DataError, "row 1"):
        to_verl_rows([{"prompt": "p", "solution": value}])


NO_PROMPTS = [
    12, 1.5, True, {"a": 1}, ASK, ["a"], [["a"]], [], "NaN", "None", None, "cut \ud83d",
    [{"from": "human", "value": "q"}], "[{'role': 'user', 'content': 'q'}]",
    [{**ASK, "content": "\ud83d"}], [{**ASK, "content": " "}], [{**ASK, "content": "nan"}], [{**ASK, "content": None}],
]  # fmt: skip


@pytest.mark.parametrize("value", NO_PROMPTS, ids=repr)
@pytest.mark.parametrize("other", ["text", [ASK]], ids=["texts", "chats"])
def test_prompts_that_are_none(tmp_path, value, other):
    rows = [{"prompt": other, "solution": "1"}, {"prompt": value, "solution": "1"}]
    with refused(DataError, "row 2: "):
        load(DataSource(lines(tmp_path / "d.jsonl", rows)))


@pytest.mark.parametrize("name", CHATS)
def test_chats_go_through_the_export_for_verl(tmp_path, name):
    rows = to_verl_rows([{"prompt": chat, "solution": "1"} for chat in CHATS[name]])
    file = str(write_parquet(tmp_path / "d.parquet", rows))
    seen = load_dataset("parquet", data_files=file, split="train")[:]["prompt"]
    assert json.dumps(seen) == json.dumps(CHATS[name])
    assert json.dumps(load(DataSource(file)).dataset[:]["prompt"]) == json.dumps(CHATS[name])


def test_verl_rows_whose_answers_differ_in_type(tmp_path):
    rows = [{"prompt": [ASK], "reward_model": {"ground_truth": value}} for value in (1, "x", [0.5])]
    assert load(DataSource(lines(tmp_path / "d.jsonl", rows))).dataset["solution"][:] == ["1", "x", "0.5"]
    pq.write_table(pa.table({"prompt": ["p"], "reward_model": ['{"ground_truth": 3}']}), tmp_path / "d.parquet")
    assert load(DataSource(str(tmp_path / "d.parquet"))).dataset["solution"][:] == ["3"]
