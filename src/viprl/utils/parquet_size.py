"""A limit on what a parquet file may take of memory: a few kilobytes can stand for terabytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from viprl.errors import DataError

FREE, RATIO = 2**30, 100
"""A file may take FREE bytes of memory in any case, and beyond them RATIO times its size."""
VALUE = 64
"""Bytes of a value in memory, besides the content of texts."""
ROWS = 2**16
"""Rows that are looked at together."""


def check_parquet_size(path: Path) -> None:
    """Raise DataError if the rows of a parquet file would take more memory than `FREE` and `RATIO` allow.

    The size is that of all values, repeated ones included. Where the file's own numbers do not bound it, texts are
    read in the form in which the file keeps equal ones once.

    Raises what pyarrow raises for a file that cannot be read. Needs pyarrow.
    """
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        limit = max(FREE, RATIO * path.stat().st_size)
        columns = [file.schema.column(at) for at in range(file.metadata.num_columns)]
        groups = [file.metadata.row_group(at) for at in range(file.metadata.num_row_groups)]
        if VALUE * len(columns) * sum(group.num_rows for group in groups) > limit:
            raise _too_large(path, limit)
        file.scan_contents()  # raises for damaged metadata of columns, which would end the process below
        least = most = 0
        for group in groups:
            for at, column in enumerate(columns):
                chunk = group.column(at)
                values = max(chunk.num_values, group.num_rows)
                least += values * max(VALUE, column.length or 0)
                if column.physical_type == "BYTE_ARRAY":
                    most += values * chunk.total_uncompressed_size
        texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
    if least + most <= limit:
        return
    if least <= limit:
        with parquet.ParquetFile(path, read_dictionary=texts, arrow_extensions_enabled=False) as file:
            for batch in file.iter_batches(batch_size=ROWS, columns=texts):
                least += sum(map(_text_size, _leaves(batch.to_struct_array())))
                if least > limit:
                    break
    if least > limit:
        raise _too_large(path, limit)


def _too_large(path: Path, limit: int) -> DataError:
    return DataError(
        f"{path} grows to more than {limit / 2**30:,.1f} GiB in memory, {RATIO} times its size or {FREE / 2**30:g} "
        "GiB, the most that is read; check it, and if it is right, leave out repeated rows or write several files"
    )


def _leaves(array: Any) -> Iterator[Any]:
    """The arrays inside lists and structs."""
    import pyarrow as pa

    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        yield from _leaves(array.storage)
    elif pa.types.is_struct(kind):
        for part in array.flatten():
            yield from _leaves(part)
    elif pa.types.is_map(kind):
        yield from _leaves(array.keys)
        yield from _leaves(array.items)
    elif pa.types.is_nested(kind):
        yield from _leaves(array.flatten())
    else:
        yield array


def _text_size(array: Any) -> int:
    """Bytes of the texts, each as often as it occurs."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_dictionary(array.type):
        return array.nbytes
    sizes = pc.binary_length(array.dictionary).take(array.indices)
    return pc.sum(sizes, min_count=0).as_py() or 0
