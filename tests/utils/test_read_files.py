"""Files that people made: marks, line ends, compression, limits."""

from __future__ import annotations

import codecs
import gzip
import json

import pytest

from refused import refused
from viprl.errors import DataError, FileError
from viprl.utils import read_files
from viprl.utils.json_lines import read_json_lines
from viprl.utils.read_files import byte_lines, first_character, read_text

MARK = codecs.BOM_UTF8


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", ["f.jsonl", "f.jsonl.gz"])
@pytest.mark.parametrize(
    "content",
    [
        b'{"a": 1}\n{"a": 2}\n',
        MARK + b'{"a": 1}\n{"a": 2}',
        b'{"a": 1}\r\n{"a": 2}\r\n',
        MARK + b'{"a": 1}\n' + MARK + b'{"a": 2}',
    ],
)
def test_the_same_rows(tmp_path, pack, name, content):
    (tmp_path / name).write_bytes(pack(content))
    assert list(read_json_lines(tmp_path / name)) == [(1, {"a": 1}), (2, {"a": 2})]
    assert read_text(tmp_path / name).startswith("{") and first_character(tmp_path / name) == b"{"


@pytest.mark.parametrize(
    "content", [b'\n\n{"a": 1}', b'\r\n \n{"a": 1}\n\n', MARK + b'\n\n{"a": 1}', b"\n" * 2 + b'{"a": 1}\n']
)
def test_blank_lines_are_counted(tmp_path, content):
    (tmp_path / "f").write_bytes(content)
    assert list(read_json_lines(tmp_path / "f")) == [(3, {"a": 1})]


def test_lines_across_chunks(tmp_path):
    rows = [{"a": "x" * n} for n in (0, 2**20 - 9, 2**20, 3 * 2**20, 5)]
    (tmp_path / "f").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [row for _, row in read_json_lines(tmp_path / "f")] == rows


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"a": 1}'.encode("utf-16"), ["UTF-16"]),
        (gzip.compress('{"a": 1}'.encode("utf-16"), mtime=0), ["UTF-16"]),
        ('{"a": 1}'.encode("utf-16-le"), ["row 1", "UTF-16"]),
        (b'{"a": 1}\n{"a": ' + b"[" * 5000, ["row 2", "nested"]),
        (b'{"a": ' + b"9" * 5000 + b"}", ["row 1", "4300"]),
        (b'{"a": "\xff"}\n', ["row 1", "utf-8"]),
        (gzip.compress(b'{"a": 1}\n' * 9, mtime=0)[:-9], ["row", "cut short"]),
        (gzip.compress(b'{"a": 1}\n', mtime=0)[:12] + b"rubbish" * 9, ["decompressed"]),
        (gzip.compress(b'{"a": 1}\n', mtime=0) + b"rubbish", ["decompressed"]),
    ],
)
def test_unusable_content(tmp_path, content, words):
    (tmp_path / "f").write_bytes(content)
    with refused(DataError, tmp_path / "f", *words):
        list(read_json_lines(tmp_path / "f"))


@pytest.mark.parametrize("unit", [b"\0", b"\n", b" ", b'{"a": 1}\n'])
def test_a_compressed_file_may_not_fill_the_memory(tmp_path, monkeypatch, unit):
    monkeypatch.setattr(read_files, "FREE", 2**16)
    (tmp_path / "f").write_bytes(gzip.compress(unit * (2**22 // len(unit))))
    for read in (byte_lines, read_text):
        with refused(DataError, "decompressed"):
            list(read(tmp_path / "f"))


def test_long_lines_and_large_files(tmp_path, monkeypatch):
    monkeypatch.setattr(read_files, "LONGEST_LINE", 2**21)
    (tmp_path / "f").write_bytes(b'{"a": 1}\n' + b"x" * 2**22)
    with refused(DataError, "row 2 is longer"):
        list(byte_lines(tmp_path / "f"))
    with refused(DataError, "larger"):
        read_text(tmp_path / "f", 2**20)


def test_files_that_cannot_be_opened(tmp_path):
    for path in (tmp_path, tmp_path / "nothing"):
        with refused(FileError, path):
            read_text(path)
