"""Writes logs for the tests of the readers."""

from __future__ import annotations

import gzip
import json

import pytest


def write_lines(path, rows):
    """Rows as JSON lines; a row may be a text, which is written as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def write_parquet(path, rows):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def plain(histories):
    return [(h.id, h.prompt, h.ground_truth, h.rollouts.tolist(), h.successes.tolist()) for h in histories]


def visits_of(histories):
    return [(h.prompt, h.rollouts.tolist(), h.successes.tolist()) for h in histories]
