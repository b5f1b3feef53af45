"""JSON lines: one JSON object a line, compressed if the name ends in .gz."""

from __future__ import annotations

import gzip
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from viprl.errors import DataError
from viprl.utils.files import write_bytes, writing
from viprl.utils.read_files import CutShort, byte_lines

_SURROGATE = re.compile("[\ud800-\udfff]")


def read_json_lines(
    path: str | Path,
    *,
    bad: Callable[[int, str], None] | None = None,
    parse_float: Callable[[str], Any] | None = None,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row, object) of each line, rows counted from 1; empty lines are skipped.

    Args:
        path: a file in UTF-8, with or without a byte order mark, with line ends of Unix or Windows, as it is or
            compressed by gzip.
        bad: called with the row and the reason for a line that cannot be read, which is then left out. Without it
            such a line raises DataError.
        parse_float: see `json.loads`.

    Raises FileError (an OSError) if the file cannot be opened.
    """
    number = 0
    errors = "strict" if bad is None else "replace"
    try:
        for number, raw in byte_lines(path):
            try:
                row = parse_json(raw.decode("utf-8", errors), parse_float)
            except ValueError as error:
                cut = "" if raw.endswith(b"\n") else "was cut short, or "
                why = f"{cut}cannot be read as JSON ({error})"
            else:
                if isinstance(row, dict):
                    yield number, row
                    continue
                why = f"is a JSON {type(row).__name__}, not an object"
            if bad is None:
                raise DataError(f"{path}, row {number} {why}; fix or delete the row")
            bad(number, why)
    except CutShort as error:
        if bad is None:
            raise DataError(f"{error} (read up to row {number})") from error
        bad(number + 1, f"and all that follow cannot be read ({error})")


def parse_json(text: str, parse_float: Callable[[str], Any] | None = None) -> Any:
    """`json.loads` that raises nothing but ValueError, with one line of reason.

    A key that an object has twice, with different values, is such a reason.
    """
    try:
        return json.loads(text, parse_float=parse_float, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        nul = "; it contains NUL bytes: is it UTF-16 or a binary file?" if "\0" in text[:1000] else ""
        raise ValueError(f"{error}{nul}") from None
    except ValueError as error:  # an integer with more digits than Python converts
        raise ValueError(str(error).partition(";")[0]) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        for key, value in pairs:
            if repr(found[key]) != repr(value):  # of NaN, too
                raise ValueError(f"it has the key {key!r} twice, with different values")
    return found


def log_rows(path: str | Path) -> Iterator[dict[str, Any]]:
    """The objects of a log of this package; lines that a killed run cut short are left out."""
    return (row for _, row in read_json_lines(path, bad=lambda *_: None))


def json_line(row: Mapping[str, Any]) -> str:
    """One line. Numbers that JSON cannot express (NaN, infinity) become null."""
    line = json.dumps({key: _plain(value) for key, value in row.items()}, ensure_ascii=False, allow_nan=False)
    # models produce lone surrogates, which UTF-8 cannot express
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", line) + "\n"


def append_json_line(path: str | Path, row: Mapping[str, Any], *, durable: bool = False) -> None:
    """Append one line; with `durable`, wait until it is on the disk. Raises FileError."""
    line = json_line(row)
    with writing(path), Path(path).open("a", encoding="utf-8") as file:
        file.write(line)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def remove_cut_line(path: str | Path) -> None:
    """Remove what a killed process left of a last line: everything after the last line end. Raises FileError."""
    with writing(path), Path(path).open("r+b") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def write_json_lines(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a whole file atomically."""
    payload = "".join(map(json_line, rows)).encode("utf-8")
    write_bytes(path, gzip.compress(payload, mtime=0) if Path(path).suffix == ".gz" else payload)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
