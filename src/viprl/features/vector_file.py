"""Vectors by key: in memory, or in files that several processes read and append to.

There are two files. Row i of one belongs to row i of the other, and rows are only added:

    NAME.keys       a header (magic and number of columns), then 16 bytes for each row
    NAME.vectors    for each row a checksum, an exponent, and the columns in float16, divided by 2^exponent

A row exists if its key does. Keys are written last, under a lock: a killed writer leaves vectors without keys or part
of a key, and the next writer overwrites both. The checksum covers key and vector, so a row that is damaged by a power
cut, or by the deletion of one of the files, is recognised and computed again. Rows are read, not mapped into memory:
when another program truncates a mapped file, the next access kills the process.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import compress
from pathlib import Path
from typing import IO

import numpy as np

from viprl.errors import InputError
from viprl.utils.arrays import FloatArray
from viprl.utils.files import locked

KEY = 16
"""Size of a key in bytes."""
MOST_COLUMNS = 2**16
"""Columns of a file. One that claims more was not written by this module."""


class Vectors:
    """Vectors in memory: 2 bytes for each number, about 200 bytes for each key."""

    def __init__(self) -> None:
        self.columns: int | None = None
        self._rows: dict[bytes, int] = {}
        self._records = np.empty(0, dtype=_record(0))
        self._used = 0

    def find(self, keys: Sequence[bytes]) -> np.ndarray:
        """[n] row of each key; -1 for unknown keys."""
        return np.array([self._rows.get(key, -1) for key in keys], dtype=np.int64)

    def load(self, keys: Sequence[bytes], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[n] the records of the rows [n] for `unpacked`, and whether each is an undamaged one of its key."""
        found = rows >= 0
        records = np.zeros(len(rows), dtype=_record(self.columns or 0))
        if found.any():
            records[found] = self._records[rows[found]]
        return records, found

    def append(self, keys: Sequence[bytes], vectors: np.ndarray) -> None:
        """Add finite vectors [n, d]. Raises InputError if earlier vectors have another number of columns."""
        self._check(vectors.shape[1])
        self.columns = vectors.shape[1]
        total = self._used + len(keys)
        if total > len(self._records):
            bigger = np.zeros(max(total, 2 * len(self._records)), dtype=_record(self.columns))
            if self._used:
                bigger[: self._used] = self._records[: self._used]
            self._records = bigger
        self._records[self._used : total] = _packed(keys, vectors)
        self._rows.update(zip(keys, range(self._used, total), strict=True))
        self._used = total

    def _check(self, columns: int) -> None:
        if self.columns not in (None, columns):
            raise InputError(
                f"an encoder returned {columns} columns, but {self.columns} before; give a changed encoder another name"
            )


class VectorFile(Vectors):
    """Vectors on disk. Only the keys are in memory, about 200 bytes each.

    Files are open only during an operation, so that a forked process inherits none.

    Args:
        stem: path of the files without .keys and .vectors.

    Raises VectorFileError if a file has another format, and if reading, writing or locking fails.
    """

    HEADER = struct.Struct("<8sII")  # magic, columns, checksum of both
    MAGIC = b"viprl-2\n"
    PATIENCE = 60.0  # seconds to wait for another writer

    def __init__(self, stem: Path) -> None:
        super().__init__()
        self.keys_file, self.vectors_file = Path(f"{stem}.keys"), Path(f"{stem}.vectors")
        self._identity: tuple[int, int] | None = None

    def find(self, keys: Sequence[bytes]) -> np.ndarray:
        rows = super().find(keys)
        if (rows < 0).any():
            with _explained():
                if not self.keys_file.exists():
                    return rows
                with self.keys_file.open("rb") as file:
                    self._read(file)
            rows = super().find(keys)
        return rows

    def load(self, keys: Sequence[bytes], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = rows >= 0
        records = np.zeros(len(rows), dtype=_record(self.columns or 0))
        if found.any():
            with _explained():
                records[found] = self._records_at(rows[found])
            found[found] = records["checksum"][found] == _checksums(list(compress(keys, found)), records[found])
        return records, found

    def _records_at(self, rows: np.ndarray) -> np.ndarray:
        """[n] the records of the rows, zeros where the file has none. Adjacent rows are read at once."""
        order = np.argsort(rows)
        ordered = rows[order]
        records = np.zeros(len(rows), dtype=_record(self.columns or 0))
        if not self.vectors_file.exists():
            return records
        size, memory = records.itemsize, memoryview(records.view(np.uint8))  # type: ignore[arg-type]
        first = np.flatnonzero(np.diff(ordered, prepend=-2) != 1).tolist()
        with self.vectors_file.open("rb", buffering=0) as file:
            for start, end in zip(first, [*first[1:], len(rows)], strict=True):
                file.seek(int(ordered[start]) * size)
                file.readinto(memory[start * size : end * size])
        back = np.empty_like(records)
        back[order] = records
        return back

    def append(self, keys: Sequence[bytes], vectors: np.ndarray) -> None:
        with _explained():
            self.keys_file.parent.mkdir(parents=True, exist_ok=True)
            self.keys_file.touch()
            with self.keys_file.open("r+b") as file, locked(file, self.PATIENCE):
                self._read(file)
                self._check(vectors.shape[1])
                self._write(file, keys, vectors)
                self._read(file)
        if not self.load(keys, super().find(keys))[1].all():
            raise VectorFileError(f"{self.vectors_file.name} does not keep what is written")

    def _write(self, file: IO[bytes], keys: Sequence[bytes], vectors: np.ndarray) -> None:
        new = np.flatnonzero(~self.load(keys, super().find(keys))[1]).tolist()  # other processes may have added some
        records = _packed([keys[i] for i in new], vectors[new])
        self.vectors_file.touch()
        with self.vectors_file.open("r+b") as heap:
            heap.seek(self._used * records.itemsize)
            heap.write(records.tobytes())
        if self.columns is None:
            file.seek(0)
            file.write(self._header(vectors.shape[1]))
        file.seek(self.HEADER.size + KEY * self._used)
        file.write(b"".join(keys[i] for i in new))
        file.flush()

    def _read(self, file: IO[bytes]) -> None:
        """Read the keys that were added since the last time."""
        status = os.fstat(file.fileno())
        if self._identity != (status.st_dev, status.st_ino) or self._used > self._whole(status.st_size):
            self._identity, self._used, self.columns = (status.st_dev, status.st_ino), 0, None
            self._rows.clear()
        if status.st_size < self.HEADER.size:  # empty, or a writer was killed at its first bytes
            return
        file.seek(0)
        header = file.read(self.HEADER.size)
        columns = self.HEADER.unpack(header)[1]
        if header != self._header(columns) or not 0 < columns <= MOST_COLUMNS:
            raise VectorFileError(f"{self.keys_file.name} begins with {header!r}; expected {self._header(columns)!r}")
        self.columns = columns
        file.seek(self.HEADER.size + KEY * self._used)
        block = file.read()
        new = len(block) // KEY
        self._rows.update((block[KEY * i : KEY * (i + 1)], self._used + i) for i in range(new))
        self._used += new

    def _header(self, columns: int) -> bytes:
        start = self.MAGIC + columns.to_bytes(4, "little")
        return start + zlib.crc32(start).to_bytes(4, "little")

    def _whole(self, size: int) -> int:
        return max(size - self.HEADER.size, 0) // KEY


class VectorFileError(Exception):
    """The files cannot be used; `FeatureCache` then works in memory."""


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise VectorFileError(str(error)) from error


def unpacked(records: np.ndarray) -> FloatArray:
    """[n, d] the vectors of records, in float64."""
    return records["vector"].astype(np.float64) * np.exp2(records["exponent"].astype(np.float64))[:, None]


def _record(columns: int) -> np.dtype:
    return np.dtype([("checksum", "<u4"), ("exponent", "<i4"), ("vector", "<f2", (columns,))])


def _packed(keys: Sequence[bytes], vectors: np.ndarray) -> np.ndarray:
    """[n] records of vectors [n, d].

    The exponent scales the largest number of a vector to between 1/2 and 1, so that nothing overflows. 11 binary digits
    are kept.
    """
    records = np.zeros(len(keys), dtype=_record(vectors.shape[1]))
    exponent = np.frexp(np.abs(vectors).max(axis=1, initial=0.0))[1]
    records["exponent"] = exponent
    records["vector"] = vectors * np.exp2(-exponent.astype(np.float64))[:, None]
    records["checksum"] = _checksums(keys, records)
    return records


def _checksums(keys: Sequence[bytes], records: np.ndarray) -> np.ndarray:
    """[n] checksum of each key and of its record without the checksum."""
    content = records.view(np.uint8).reshape(len(records), records.itemsize)[:, 4:]
    return np.array([zlib.crc32(row, zlib.crc32(key)) for key, row in zip(keys, content, strict=True)], dtype=np.uint32)
