"""Tables from files and folders of every kind."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_files import lines
from datasets import Dataset, DatasetDict

from viprl.data.tables import read_table
from viprl.data.values import values_of
from viprl.errors import DataError

ROWS = [{"problem": f"p{i}", "answer": str(i), "solution": "long"} for i in range(4)]


def test_the_same_rows_from_every_kind_of_file(tmp_path):
    data = Dataset.from_list(ROWS)
    lines(tmp_path / "d.jsonl", ROWS)
    (tmp_path / "d.json").write_text("\n" + json.dumps(ROWS, indent=1))
    lines(tmp_path / "lines.json", ROWS)
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress((tmp_path / "d.jsonl").read_bytes()))
    (tmp_path / "d.json.gz").write_bytes(gzip.compress((tmp_path / "d.json").read_bytes()))
    data.to_parquet(tmp_path / "d.parquet")
    DatasetDict({"test": data}).save_to_disk(tmp_path / "saved")
    (tmp_path / "copy" / "data").mkdir(parents=True)
    data.to_parquet(tmp_path / "copy" / "data" / "test-00000-of-00001.parquet")
    places = ["d.jsonl", "d.json", "lines.json", "d.jsonl.gz", "d.json.gz", "d.parquet", "saved", "copy"]
    assert all(read_table(str(tmp_path / place), "test", None).to_pylist() == ROWS for place in places)


def test_values_of_several_types_in_one_column(tmp_path):
    table = read_table(lines(tmp_path / "d.jsonl", [{"id": 0, "level": 1}, {"id": "t"}]), "train", None)
    assert values_of(table["id"]) == [0, "t"] and table["level"].to_pylist() == [1, None]


@pytest.mark.parametrize(
    ("name", "content", "keys"),
    [
        ("d.jsonl", '{"a": 1}\n{broken\n', "row 2"),
        ("d.jsonl", '{"a": 1}\n[1]\n', "row 2 .*list"),
        ("d.json", '[{"a": 1}, 3]', "row 2 .*int"),
        ("d.json", "[1,", "d.json"),
        ("d.jsonl", '{"a": 1}\n{"a": 1, "b": {"c": 1, "c": 2}}\n', "row 2 .*'c' twice"),
        ("d.json", '[{"a": 1, "a": NaN}]', "'a' twice"),
        ("d.parquet", "text", "d.parquet"),
        ("d.csv", "a,b\n", ".jsonl"),
    ],
)
def test_unusable_files(tmp_path, name, content, keys):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=keys):
        read_table(str(tmp_path / name), "train", None)


def test_a_split_that_does_not_exist(tmp_path):
    DatasetDict({"test": Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match=r"'train'.* test"):
        read_table(str(tmp_path / "saved"), "train", None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="'train'"):
        read_table(str(tmp_path / "empty"), "train", None)


def test_texts_of_arrow_that_are_views(tmp_path):
    pq.write_table(pa.table({"x": pa.array(["a", None], pa.string_view())}), tmp_path / "d.parquet")
    table = read_table(str(tmp_path / "d.parquet"), "train", None)
    assert table.take(pa.array([1, 0])).to_pylist() == [{"x": None}, {"x": "a"}]
