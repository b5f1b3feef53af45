"""Errors with the names and values that they must contain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def refused(kind: type[Exception], *parts: object) -> Iterator[None]:
    """Expect an error whose message contains all parts."""
    with pytest.raises(kind) as error:
        yield
    missing = [part for part in map(str, parts) if part not in str(error.value)]
    assert not missing, f"{missing} not in {error.value}"
