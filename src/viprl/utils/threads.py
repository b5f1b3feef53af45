"""Threads: one for the linear algebra of a step, and a lock for objects that several threads use.

The matrices of a step are small: a product of 512 x 386 and 386 x 128 numbers takes a millisecond. A second thread
saves half of that on an idle machine, but beside a busy trainer the product waits a hundred times longer for a free
core. Moreover, NumPy and SciPy each have their own threads, which keep spinning after a product and slow each other
down.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

from threadpoolctl import ThreadpoolController

P = ParamSpec("P")
R = TypeVar("R")


def single_threaded(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: while `function` runs, the linear algebra of NumPy and SciPy uses one thread."""

    @wraps(function)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        with _controller().limit(limits=1, user_api="blas"):
            return function(*args, **kwargs)

    return alone


class Lock:
    """A re-entrant lock that can be copied and pickled with its object: the copy has a lock of its own."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[Lock], tuple[()]]:
        return Lock, ()


def locked_method(method: Callable[P, R]) -> Callable[P, R]:
    """Decorator of a method: one thread at a time is in the methods of an object. The object has a `Lock` `_lock`."""

    @wraps(method)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        self: Any = args[0]
        with self._lock:
            return method(*args, **kwargs)

    return alone


@cache
def _controller() -> ThreadpoolController:
    """The controller of the loaded libraries. To find them takes a millisecond, so it is done once."""
    return ThreadpoolController()
