"""Which prompts were offered and not sampled for long."""

from __future__ import annotations

import math

import pytest

from viprl.allocation.sampling_record import WINDOW, SamplingRecord
from viprl.errors import StateError


def test_the_share_that_is_neglected() -> None:
    record = SamplingRecord()
    assert math.isnan(record.neglected)
    record.add(("a", "b", "c", "d"), ("a",))
    assert record.neglected == 0.75
    record.add(("c", "d"), ("d",))
    assert record.neglected == 0.5
    for _ in range(WINDOW - 2):
        record.add(("e",), ("e",))
    assert record.neglected == pytest.approx(2 / 5)  # a and b were offered and sampled just within the window
    record.add(("e",), ("e",))
    assert record.neglected == pytest.approx(1 / 3)  # of c, d and e; nobody offered the others
    record.add(("e",), ("e",))
    assert record.neglected == 0


def test_the_state() -> None:
    one, other = SamplingRecord(), SamplingRecord()
    for record, keys in ((one, "abcdef"), (one, "bcdefg"), (one, "aaxyz"), (one, "abq")):
        record.add(tuple(dict.fromkeys(keys)), tuple(keys[1:3]) if keys[1] != "a" else ("x",))
    other.load_state_dict(one.state_dict())
    for record in (one, other):
        record.add(("new", "a"), ("new",))
    assert one.neglected == other.neglected
    state = one.state_dict()
    for damaged in ({"step": -1}, {"last": state["last"][:-1]}, {"keys": ["a"]}, {"step": None}):
        with pytest.raises(StateError):
            other.load_state_dict(state | damaged)
    assert one.neglected == other.neglected
