"""Parquet files of a few kilobytes that stand for gigabytes."""

from __future__ import annotations

import contextlib

import pytest

from refused import refused
from viprl.errors import DataError

pa = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

from viprl.runs.engine_logs import read_history  # noqa: E402
from viprl.utils import parquet_size  # noqa: E402
from viprl.utils.parquet_size import FREE, check_parquet_size  # noqa: E402


def repeated(value, times: int):
    """A column of one value, which parquet keeps once."""
    return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), times), value)


BOMBS = {
    "texts": repeated(pa.array(["x" * 100_000]), 20_000),
    "long texts": repeated(pa.array(["x" * 2**24]), 100),
    "missing values": pa.nulls(FREE // 64 + 1, pa.int8()),
    "a long list": pa.ListArray.from_arrays([0, FREE // 64 + 1], pa.nulls(FREE // 64 + 1, pa.int8())),
    "texts in lists": pa.FixedSizeListArray.from_arrays(repeated(pa.array(["x" * 100_000]), 20_000), 2),
    "texts in maps": pa.MapArray.from_arrays(
        [0, 20_000], pa.array(map(str, range(20_000))), repeated(pa.array(["x" * 100_000]), 20_000)
    ),
    "texts in structs": pa.StructArray.from_arrays([repeated(pa.array(["x" * 100_000]), 20_000)], ["a"]),
}


def written(tmp_path, column):
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"prompt": column}), path, compression="zstd")
    return path


@pytest.mark.parametrize("column", BOMBS.values(), ids=BOMBS)
def test_they_are_refused_before_they_are_read(tmp_path, column):
    path = written(tmp_path, column)
    assert path.stat().st_size < 2**20
    usual, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.system_memory_pool())
    pa.set_memory_pool(pool)
    try:
        for read in (check_parquet_size, read_history):
            with refused(DataError, path, "1.0 GiB"):
                read(path)
    finally:
        pa.set_memory_pool(usual)
    assert pool.max_memory() < FREE // 4


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.json_()], ids=str)
def test_the_size_is_that_of_all_texts(tmp_path, monkeypatch, kind):
    path = written(tmp_path, pa.array(['"' + "x" * 998 + '"', None, '"y"'] * 3000, kind))
    exact = 9000 * 64 + 3000 * 1003
    monkeypatch.setattr(parquet_size, "RATIO", 0)
    monkeypatch.setattr(parquet_size, "FREE", exact)
    check_parquet_size(path)
    monkeypatch.setattr(parquet_size, "FREE", exact - 1)
    with refused(DataError, path):
        check_parquet_size(path)


def test_a_large_file_may_take_as_much_as_its_size_explains(tmp_path, monkeypatch):
    path = written(tmp_path, pa.array([str(i) * 50 for i in range(3000)]))
    monkeypatch.setattr(parquet_size, "FREE", 1000)
    check_parquet_size(path)


def test_values_of_a_fixed_size_count_with_it(tmp_path, monkeypatch):
    path = written(tmp_path, pa.array([b"x" * 1000] * 100, pa.binary(1000)))
    for name, value in (("FREE", 99_999), ("RATIO", 0)):
        monkeypatch.setattr(parquet_size, name, value)
    with refused(DataError, path):
        check_parquet_size(path)


def test_damaged_metadata_raise_and_do_not_end_the_process(tmp_path):
    whole = written(tmp_path, pa.array(["a", None, "b"])).read_bytes()
    path = tmp_path / "damaged.parquet"
    for at in range(len(whole)):
        for byte in (0, whole[at] ^ 1, 255):
            path.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
            with contextlib.suppress(pa.ArrowException, OSError, ValueError):
                check_parquet_size(path)
