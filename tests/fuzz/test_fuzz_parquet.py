"""Parquet files of any schema and content, and damaged ones: data sets and histories."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fuzzing import damaged, fuzz, or_refused, some_of
from hypothesis import strategies as st

pa = pytest.importorskip("pyarrow")
pytest.importorskip("datasets")
from pyarrow import parquet  # noqa: E402

from viprl.data.loading import DataSource, load  # noqa: E402
from viprl.errors import DataError  # noqa: E402
from viprl.runs.engine_logs import read_history  # noqa: E402
from viprl.utils.parquet_size import check_parquet_size  # noqa: E402

text, whole = st.text(max_size=4) | st.sampled_from(["4", "nan", "[1]", "{}", "\\boxed{4}"]), st.integers(-9, 9)
time = st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2100, 1, 1))
PLAIN: list[tuple[Any, st.SearchStrategy]] = [
    (pa.string(), text),
    (pa.large_string(), text),
    (pa.string_view(), text),
    (pa.binary(), st.binary(max_size=4)),
    (pa.dictionary(pa.int32(), pa.string()), text),
    (pa.int8(), whole),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.float16(), st.just(0.5)),
    (pa.float32(), st.floats(width=32)),
    (pa.float64(), st.floats()),
    (pa.bool_(), st.booleans()),
    (pa.decimal128(12, 3), st.integers(-999, 999).map(lambda n: Decimal(n) / 1000)),
    (pa.decimal256(60, 0), st.just(Decimal(10**50))),
    (pa.timestamp("ns", "UTC"), time),
    (pa.timestamp("s"), time),
    (pa.date32(), st.dates(datetime.date(1, 1, 1))),
    (pa.time64("us"), st.times()),
    (pa.duration("s"), st.integers(0, 99).map(lambda s: datetime.timedelta(seconds=s))),
    (pa.null(), st.none()),
    (pa.binary(3), st.just(b"abc")),
    (pa.json_(), st.sampled_from(["1", '"a"', "[", "{}", '{"a": 1e999}'])),
]
MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
message = st.fixed_dictionaries({"role": st.sampled_from(["user", "system"]), "content": text})


@st.composite
def column(draw: Any, rows: int) -> Any:
    """A column of some type."""
    kind, values = draw(
        st.sampled_from([*PLAIN, (MESSAGE, message), (pa.list_(MESSAGE), st.lists(message, max_size=2))])
    )
    shape = draw(st.sampled_from(["plain", "plain", "list", "struct", "map", "fixed"]))
    if shape == "list":
        kind, values = pa.list_(kind), st.lists(values, max_size=2)
    elif shape == "fixed":
        kind, values = pa.list_(kind, 2), st.lists(values, min_size=2, max_size=2)
    elif shape == "struct":
        kind, values = pa.struct([("x", kind)]), st.fixed_dictionaries({"x": values})
    elif shape == "map":
        kind, values = pa.map_(pa.string(), kind), st.lists(st.tuples(text, values), max_size=2)
    nullable = st.none() | values
    return pa.array(draw(st.lists(nullable, min_size=rows, max_size=rows)), kind)


def written(table: Any, **how: Any) -> bytes:
    target = pa.BufferOutputStream()
    parquet.write_table(table, target, **how)
    return target.getvalue().to_pybytes()


@st.composite
def files(draw: Any, names: list[str]) -> bytes:
    """A parquet file with columns of some types, which may be damaged."""
    rows = draw(st.integers(0, 3))
    columns, given = {}, draw(st.lists(st.sampled_from(names), max_size=5, unique=True))
    for name in given:
        try:
            columns[name] = draw(column(rows))
        except (pa.ArrowException, ValueError, TypeError, OverflowError):  # a value that the type does not hold
            continue
    packed = st.sampled_from(["zstd", "none"])
    how = draw(some_of(store_schema=st.booleans(), use_dictionary=st.booleans(), compression=packed))
    try:
        data = written(pa.table(columns), **how)
    except pa.ArrowException:  # a type that parquet does not have
        data = written(pa.table({"prompt": ["a"], "solution": ["4"]}))
    return draw(damaged(data)) if draw(st.integers(0, 2)) == 0 else data


def at(factory: pytest.TempPathFactory, data: bytes) -> Path:
    path = factory.getbasetemp() / "rows.parquet"
    path.write_bytes(data)
    return path


@fuzz(
    data=files(["prompt", "solution", "answer", "other", "a.b"]),
    options=some_of(
        skip_bad_rows=st.booleans(), prompt_column=st.sampled_from(["prompt.x", "other"]), chat=st.booleans()
    ),
)
def test_data_sets(tmp_path_factory: pytest.TempPathFactory, data: bytes, options: dict[str, Any]) -> None:
    with or_refused() as refused:
        loaded = load(DataSource(str(at(tmp_path_factory, data)), **options))
    if not refused:
        for row in loaded.dataset:
            assert isinstance(row["solution"], str)
            assert isinstance(row["prompt"], str | list)


@fuzz(data=files(["id", "prompt", "rollouts", "successes", "rewards", "lengths", "ground_truth"]))
def test_histories(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    with or_refused() as refused:
        found = read_history(at(tmp_path_factory, data))
    if not refused:
        assert all((history.rollouts >= 1).all() for history in found)


@fuzz(0.5, data=files(["a", "b"]))
def test_sizes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """A small file is never taken for a large one, whatever its types are. A damaged one may be refused."""
    path = at(tmp_path_factory, data)
    try:
        rows = parquet.read_table(path, partitioning=None).num_rows
    except (pa.ArrowException, OSError, ValueError):
        return
    try:
        check_parquet_size(path)
    except DataError:  # damage can make a file that claims more
        assert rows > 3
    except (pa.ArrowException, OSError, ValueError):
        pass
