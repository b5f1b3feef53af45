"""Arrow tables from a file, a folder or the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from viprl.data.named import NAMED
from viprl.data.values import column_of, exact_float
from viprl.errors import DataError, FileError
from viprl.utils.json_lines import parse_json, read_json_lines
from viprl.utils.parquet_size import check_parquet_size
from viprl.utils.read_files import first_character, read_text
from viprl.utils.words import did_you_mean, first_line

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")


def read_table(source: str, split: str, subset: str | None) -> pa.Table:
    """All rows of a data set.

    Args:
        source: a file with one of `SUFFIXES`, a folder (saved by `datasets`, or a copy of a Hub repository), or a Hub
            name.
        split, subset: of a folder or a data set on the Hub.

    Raises FileError if the source is not found, DataError if its content cannot be read; of a JSON file it gives the
    first bad row, counted from 1.
    """
    path = Path(source).expanduser()
    if source.lower().endswith(SUFFIXES) or path.is_file():
        return _read_file(path, source)
    if path.is_dir():
        return _read_folder(path, split, subset)
    return _read_hub(source, split, subset)


def _read_file(path: Path, source: str) -> pa.Table:
    if not path.is_file():
        raise FileError(f"{source}: no such file")
    name = source.lower()
    if name.endswith((".csv", ".tsv")):
        tab = ", sep='\\t'" if name.endswith(".tsv") else ""
        raise DataError(
            f"{source} is not read, because CSV does not say what is a number and what is missing; convert it: "
            f"pandas.read_csv({str(path)!r}{tab}, dtype=str).to_json('data.jsonl', orient='records', lines=True)"
        )
    if not name.endswith(SUFFIXES):
        raise DataError(f"{source} has an unknown suffix; expected {', '.join(SUFFIXES)}")
    if name.endswith(".parquet"):
        try:
            check_parquet_size(path)
            return _without_views(pyarrow.parquet.read_table(path, partitioning=None))
        except DataError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{source} cannot be read: {first_line(error)}; is it whole, and parquet?") from error
    try:
        return _table_of(list(_json_rows(path)), source)
    except DataError as error:
        if name.endswith(SUFFIXES[2:4]):
            raise DataError(f"{error} (a .json file is one list of objects, or has one object on each line)") from error
        raise
    except MemoryError as error:
        raise DataError(f"{source} does not fit into the memory; use parquet, or split it") from error


def _without_views(table: pa.Table) -> pa.Table:
    """The table without Arrow's view types, which `take` does not know."""
    for at, field in enumerate(table.schema):
        if "_view" in str(field.type):
            table = table.set_column(at, field.name, pa.chunked_array([table.column(at).to_pylist()]))
    return table


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file, or of a .json file that is one list of objects."""
    if not path.name.lower().endswith((".json", ".json.gz")) or first_character(path) != b"[":
        return (row for _, row in read_json_lines(path, parse_float=exact_float))
    try:
        rows = parse_json(read_text(path), exact_float)
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{path}, row {number} is a JSON {type(row).__name__}, not an object")
    return iter(rows)


def _table_of(rows: list[dict[str, Any]], source: str) -> pa.Table:
    """A table with the columns of all rows."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    columns = {}
    for name in names:
        try:
            columns[name] = column_of([row.get(name) for row in rows])
        except RecursionError as error:
            raise DataError(f"{source}: the column {name!r} is nested too deeply; remove it") from error
    try:
        return pa.table(columns)
    except (pa.ArrowException, ValueError) as error:  # a name with half a surrogate pair
        raise DataError(f"{source}: the names of the columns cannot be read ({error}); rename them") from error


def _read_folder(path: Path, split: str, subset: str | None) -> pa.Table:
    from datasets import DatasetDict, load_dataset, load_from_disk

    saved = (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()
    try:
        found = load_from_disk(str(path)) if saved else load_dataset(str(path), subset, split=split)
    except Exception as error:  # `datasets` raises many kinds
        which = f"split {split!r}{f' and subset {subset!r}' if subset else ''}"
        raise DataError(
            f"{path} cannot be read as a data set with {which} ({first_line(error)}); set `split` and `subset`, or "
            "give one of its files"
        ) from error
    if isinstance(found, DatasetDict):
        if split not in found:
            raise DataError(f"{path} has no split {split!r}; set `split` to one of {', '.join(found)}")
        found = found[split]
    return found.with_format("arrow")[:]


def _read_hub(source: str, split: str, subset: str | None) -> pa.Table:
    from datasets import load_dataset

    if "/" not in source and (hint := did_you_mean(source.lower(), NAMED, cutoff=0.5)):
        raise FileError(f"no file, folder or named set {source!r}; {hint}")
    try:
        return load_dataset(source, subset, split=split).with_format("arrow")[:]
    except Exception as error:  # the Hub fails in many ways
        reason = f"{type(error).__name__}: {first_line(error)}"
        if source in {known.hub for known in NAMED.values()}:
            raise FileError(
                f"{source} cannot be downloaded from the Hub ({reason}); give the file or folder of a local copy"
            ) from error
        raise FileError(
            f"{source!r} is not a named set ({', '.join(NAMED)}), a file ({', '.join(SUFFIXES)}) or a folder, and the "
            f"Hub has no such data set ({reason})"
        ) from error
