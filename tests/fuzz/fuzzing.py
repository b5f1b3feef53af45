"""What the property tests of this folder share: the number of cases, and values that nobody should pass."""

from __future__ import annotations

import copy
import datetime
import faulthandler
import functools
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import given as given_
from hypothesis import strategies as st

from viprl.errors import ViprlError

CASES = int(os.environ.get("VIPRL_FUZZ_CASES", "0"))
"""Cases of a test of weight 1 (`make fuzz`). 0: a few, the same ones every time, as in the usual run of the tests."""
FEW = 50


SLOWEST = 10.0
"""CPU seconds after which a case counts as one that hangs. Wall-clock time depends on how busy the machine is."""
ENDLESS = 300
"""Seconds after which a case that does not end is ended, with the whole process and a traceback."""


def fuzz(weight: float = 1.0, **strategies: Any) -> Callable[[Callable], Callable]:
    """A property test. `weight`: its cases relative to those of the others, smaller for slow ones."""
    how = settings(
        max_examples=max(int((CASES or FEW) * weight), 1),
        deadline=None,
        derandomize=not CASES,
        database=None,
        suppress_health_check=list(HealthCheck),
    )

    def decorate(test: Callable) -> Callable:
        @functools.wraps(test)
        def timed(*given: Any, **named: Any) -> None:
            faulthandler.dump_traceback_later(ENDLESS, exit=True, file=sys.__stderr__)
            began = time.process_time()
            try:
                test(*given, **named)
            finally:
                faulthandler.cancel_dump_traceback_later()
            seconds = time.process_time() - began
            assert seconds < SLOWEST, f"the case took {seconds:.1f} seconds"

        return how(given_(**strategies)(timed))

    return decorate


class Refused:
    """Whether the call in `or_refused` was refused."""

    def __init__(self) -> None:
        self.error: ViprlError | None = None

    def __bool__(self) -> bool:
        return self.error is not None


@contextmanager
def or_refused() -> Iterator[Refused]:
    """Let the errors that a user can fix pass, which must have a message of limited length, and no others."""
    refused = Refused()
    try:
        yield refused
    except ViprlError as error:
        refused.error = error
        assert 0 < len(str(error)) < 20_000


class Hostile:
    """Raises an error of its own when it is read as a number or a sequence."""

    def __float__(self) -> float:
        raise RuntimeError("hostile")

    __int__ = __index__ = __len__ = __float__


HUGE = [0, 1, -1, 2, 2**31, -(2**31), 2**53 + 1, 2**63, 2**64, -(2**70), 10**400]
numbers = st.sampled_from(HUGE) | st.integers(-5, 40) | st.floats() | st.floats(0, 1)
json_leaves = st.none() | st.booleans() | numbers | st.text(max_size=6) | st.sampled_from(["NaN", "1", "\ud800", "\0"])
json_values = st.recursive(
    json_leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
_OBJECTS: list[Callable[[], Any]] = [
    object,
    Hostile,
    set,
    lambda: {1, 2},
    lambda: range(3),
    lambda: iter([1, 2]),
    lambda: b"12",
    lambda: bytearray(b"12"),
    lambda: 1j,
    lambda: Decimal("0.5"),
    lambda: Decimal("NaN"),
    lambda: Decimal("sNaN"),
    lambda: Decimal("1e999"),
    lambda: Fraction(1, 3),
    lambda: np.float32(0.5),
    lambda: np.float64("nan"),
    lambda: np.int8(-3),
    lambda: np.bool_(True),
    lambda: np.datetime64("NaT"),
    lambda: datetime.date(2026, 1, 1),
    lambda: np.zeros(0),
    lambda: np.zeros(()),
    lambda: np.ones((2, 2)),
    lambda: np.array([0.5, math.nan]),
    lambda: np.array(["a", "b"]),
    lambda: np.array([None, object()], dtype=object),
    lambda: np.array([1 + 1j]),
    lambda: np.ma.masked_array([1.0, 2.0], [True, False]),
    lambda: np.array([2, 3], dtype=np.uint64),
    lambda: int,
    lambda: len,
    lambda: NotImplemented,
    lambda: ...,
]
objects = st.sampled_from(_OBJECTS).map(lambda make: make())
anything = json_values | objects | st.lists(objects, max_size=3)


def mostly(usual: st.SearchStrategy, odd: st.SearchStrategy = anything, among: int = 8) -> st.SearchStrategy:
    """`usual`, but one time in `among` something else."""
    return st.integers(1, among).flatmap(lambda drawn: odd if drawn == among else usual)


def some_of(**strategies: st.SearchStrategy) -> st.SearchStrategy[dict[str, Any]]:
    """Some of the keyword arguments."""
    return st.fixed_dictionaries({}, optional=strategies)


@st.composite
def mutated(draw: Callable, value: Any, leaves: st.SearchStrategy = json_values, most: int = 2) -> Any:
    """A copy of nested dicts and lists in which up to `most` entries are replaced, removed, repeated or renamed."""
    root = [copy.deepcopy(value)]
    for _ in range(draw(st.integers(1, most))):
        places = list(_places(root, root=True))
        holder, key = places[draw(st.integers(0, len(places) - 1))]
        change = draw(st.sampled_from(["replace", "replace", "replace", "remove", "other"]))
        if change == "replace" or holder is root:
            holder[key] = draw(leaves)
        elif change == "remove":
            del holder[key]
        elif isinstance(holder, dict):
            holder[draw(st.text(max_size=4))] = holder.pop(key)
        else:
            holder.insert(key, copy.deepcopy(holder[key]))
    return root[0]


def _places(node: Any, *, root: bool = False) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every entry."""
    for key in list(node) if isinstance(node, dict) else range(len(node)):
        yield node, key
        if isinstance(node[key], dict | list):
            yield from _places(node[key])


@st.composite
def damaged(draw: Callable, content: bytes) -> bytes:
    """Bytes with some of them changed, a part cut out or put in; or other bytes altogether."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(found) - 1, 0)))
        change = draw(st.sampled_from(["byte", "byte", "cut", "end", "insert"]))
        if change == "byte" and found:
            found[at] = draw(st.integers(0, 255))
        elif change == "cut":
            del found[at : at + draw(st.integers(1, 40))]
        elif change == "end":
            del found[at:]
        else:
            found[at:at] = draw(st.binary(max_size=20))
    return bytes(found)
