"""Copies of rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from viprl.data.layout import equal_values, first_copies


def test_copies_are_those_of_a_plain_loop():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 5, (200, 2))
    columns = [
        pa.chunked_array([[str(v) if v else None for v in part] for part in np.split(col, 4)]) for col in values.T
    ]
    first, copy_of = first_copies(columns)
    pairs = list(zip(*(column.to_pylist() for column in columns), strict=True))
    assert first.tolist() == [pairs.index(pair) for pair in dict.fromkeys(pairs)]
    assert all(pairs[first[u]] == pair for u, pair in zip(copy_of, pairs, strict=True))


def test_equal_chats():
    chats = [[{"role": r, "content": c}] for r, c in [("user", "a"), ("user", "b"), ("tool", "a"), ("user", "a")]]
    numbers = equal_values(pa.chunked_array([chats])).tolist()
    assert numbers[0] == numbers[3] and len(set(numbers)) == 3
    longer = equal_values(pa.chunked_array([[*chats, [{"role": "user", "content": "a"}] * 2]])).tolist()
    assert longer[0] == longer[3] and len(set(longer)) == 4
