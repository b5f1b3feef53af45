"""Reading files that people made: byte order marks, gzip, and limits on what a file may take of memory."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from viprl.errors import DataError, FileError

LONGEST_LINE = 2**27
"""Bytes of a line. Longer ones are not rows of a data set, and would fill the memory."""
LARGEST_TEXT = 2**30
"""Bytes of a file that is read as a whole."""
FREE, RATIO = 2**24, 100
"""A compressed file may grow to FREE bytes in any case, and beyond them to RATIO times its size. JSON grows 3 to 20
times."""

_OTHER_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)


class CutShort(DataError):
    """A compressed file ends too early, or its content is damaged."""


def byte_lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """(number, line) of the lines that are not blank, counted from 1, with their line ends.

    The file is decompressed if it is a gzip file. Byte order marks are removed.

    Raises FileError if it cannot be opened; DataError for text that is not UTF-8 by its mark, for a line longer than
    `LONGEST_LINE`, and for a file that grows too much when it is decompressed; CutShort if that fails.
    """
    parts: list[bytes] = []
    size, number = 0, 1
    for chunk in _chunks(Path(path)):
        if not parts and not chunk.strip(b"\n"):
            number += len(chunk)
            continue
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            if (full := b"".join([*parts, line, b"\n"]).removeprefix(codecs.BOM_UTF8)).strip():
                yield number, full
            parts, size, number = [], 0, number + 1
        if rest:
            parts.append(rest)
            size += len(rest)
        if size > LONGEST_LINE:
            raise DataError(
                f"{path}, row {number} is longer than {LONGEST_LINE // 2**20} MiB; write one row on each line, or use "
                "parquet"
            )
    if (full := b"".join(parts).removeprefix(codecs.BOM_UTF8)).strip():
        yield number, full


def read_text(path: str | Path, limit: int = LARGEST_TEXT) -> str:
    """The text of a file in UTF-8, without a byte order mark, decompressed if it is a gzip file.

    Raises FileError if it cannot be opened; DataError if it is larger than `limit` bytes or not UTF-8.
    """
    parts: list[bytes] = []
    size = 0
    for chunk in _chunks(Path(path)):
        parts.append(chunk)
        size += len(chunk)
        if size > limit or (size == len(chunk) and Path(path).stat().st_size > limit):
            raise DataError(f"{path} is larger than {limit / 2**20:,.0f} MiB, the limit for a file of this kind")
    try:
        return b"".join(parts).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from error


def first_character(path: str | Path) -> bytes:
    """The first byte that is not white space, b"" if there is none; see `byte_lines`."""
    chunks = (chunk.removeprefix(codecs.BOM_UTF8).lstrip() for chunk in _chunks(Path(path)))
    return next((chunk[:1] for chunk in chunks if chunk), b"")


def _chunks(path: Path) -> Iterator[bytes]:
    size = 0
    try:
        with path.open("rb") as packed:
            head = packed.peek(4)[:4]
            if head.startswith(_OTHER_MARKS):
                raise DataError(f"{path} is UTF-16 or UTF-32 text; save it as UTF-8")
            compressed = head.startswith(b"\x1f\x8b")
            file: Any = gzip.GzipFile(fileobj=packed) if compressed else packed
            while chunk := file.read1(2**20):
                if not size and chunk.startswith(_OTHER_MARKS):
                    raise DataError(f"{path} is UTF-16 or UTF-32 text; save it as UTF-8")
                size += len(chunk)
                if compressed and size > FREE and size > RATIO * packed.tell():
                    raise DataError(
                        f"{path} grows to more than {RATIO} times its size when it is decompressed, which no text "
                        "does; check it, and give the decompressed file if it is right"
                    )
                yield chunk
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CutShort(f"{path} cannot be decompressed ({error}); was it cut short? Copy it again") from error
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror or error}); check the path and its permissions") from (
            error
        )
