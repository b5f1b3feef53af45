"""Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from viprl.errors import DataError, MissingPackageError
from viprl.utils.files import write_bytes
from viprl.utils.parquet_size import check_parquet_size
from viprl.utils.words import first_line


def parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row, object) of each row of a parquet file, counted from 1.

    Raises DataError for a file that cannot be read or is too large for the memory (`viprl.utils.parquet_size`),
    MissingPackageError without pyarrow.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise MissingPackageError(f'reading {path.name} needs pyarrow: pip install "viprl[trl]"') from error
    number = 0
    try:
        check_parquet_size(path)
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except DataError:
        raise
    except (ArrowException, OSError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{path} cannot be read as parquet after row {number} ({type(error).__name__}: {first_line(error)}); "
            "was the file cut short? Copy it again, or delete it"
        ) from error


def write_table(path: Path, table: Any) -> None:
    """Write a table of pyarrow to a parquet file, atomically. Raises FileError."""
    from pyarrow import BufferOutputStream, parquet

    buffer = BufferOutputStream()
    parquet.write_table(table, buffer)
    write_bytes(path, buffer.getvalue().to_pybytes())
