"""From a file, a folder or the hub to an Arrow table, with errors that name the line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from viprl.data.named import NAMED, closest

SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet")


def read_table(source: str, split: str, subset: str | None) -> pa.Table:
    """All rows of `source`: a file of one of `SUFFIXES`, a folder (saved by `datasets`, or a copy of a hub repository),
    or a hub name.

    Raises ValueError for a missing or unreadable source, naming the first line that is no JSON object.
    """
    path = Path(source).expanduser()
    if source.endswith(SUFFIXES) or path.is_file():
        return _read_file(path, source)
    if path.is_dir():
        return _read_folder(path, split, subset)
    return _read_hub(source, split, subset)


def _read_file(path: Path, source: str) -> pa.Table:
    if not path.is_file():
        raise ValueError(f"{source}: no such file")
    if not source.endswith(SUFFIXES):
        raise ValueError(f"{source} is a file of an unknown kind; expected {', '.join(SUFFIXES)}")
    try:
        if path.suffix == ".parquet":
            return pyarrow.parquet.read_table(path)
        return _table_of(list(_json_rows(path)), source)
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"{source} cannot be read: {error}") from error


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file, or of a file that is one JSON list of objects."""
    opened: Any = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        if path.name.removesuffix(".gz").endswith(".json") and file.read(1) == "[":
            file.seek(0)
            yield from _json_list(file.read(), path)
            return
        file.seek(0)
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _json_object(line, f"{path} cannot be read: line {number}")


def _json_list(text: str, path: Path) -> Iterator[dict[str, Any]]:
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"{path}: entry {number} of the list is a {type(row).__name__}; expected an object")
        yield row


def _json_object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where} is not valid JSON ({error})") from error
    if not isinstance(row, dict):
        raise ValueError(f"{where} is no JSON object")
    return row


def _table_of(rows: list[dict[str, Any]], source: str) -> pa.Table:
    """A table with the columns of all rows. Columns whose values have several types become JSON texts."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):  # the last for whole numbers beyond 64 bits
            columns[name] = pa.array([v if v is None or isinstance(v, str) else json.dumps(v) for v in values])
    return pa.table(columns)


def _read_folder(path: Path, split: str, subset: str | None) -> pa.Table:
    from datasets import DatasetDict, load_dataset, load_from_disk

    saved = (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()
    try:
        found = load_from_disk(str(path)) if saved else load_dataset(str(path), subset, split=split)
    except Exception as error:  # `datasets` raises many kinds; the mend is the same
        which = f"the split {split!r}{f' and the subset {subset!r}' if subset else ''}"
        raise ValueError(
            f"{path} cannot be read as a data set with {which} ({_first_line(error)}); name one of its "
            "files instead, or set `split` and `subset`"
        ) from error
    if isinstance(found, DatasetDict):
        if split not in found:
            raise ValueError(f"{path} has the splits {', '.join(found)}, but no {split!r}; set `split`")
        found = found[split]
    return found.with_format("arrow")[:]


def _read_hub(source: str, split: str, subset: str | None) -> pa.Table:
    from datasets import load_dataset

    if "/" not in source and closest(source):
        raise ValueError(f"there is no file, folder or named set {source!r}{closest(source)}")
    try:
        return load_dataset(source, subset, split=split).with_format("arrow")[:]
    except Exception as error:  # the hub fails in many ways; the mend is the same
        reason = f"{type(error).__name__}: {_first_line(error)}"
        if source in {known.hub for known in NAMED.values()}:
            raise ValueError(
                f"{source} cannot be had from the hub ({reason}); name a local copy of it instead, a file or a folder"
            ) from error
        raise ValueError(
            f"{source!r} is neither a named set ({', '.join(NAMED)}), a file ({', '.join(SUFFIXES)}), a folder, nor a "
            f"data set that the hub gives out ({reason})"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
