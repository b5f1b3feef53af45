"""One thread for the small matrices of a step.

A product of 512 x 386 and 386 x 128 numbers takes a millisecond. Split over two threads it gains half of that on an
idle machine; beside a busy trainer it waits for a core, a hundred times longer. And NumPy and SciPy each bring their
own threads, which spin for a while after each product and get in each other's way.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import ParamSpec, TypeVar

from threadpoolctl import ThreadpoolController

P = ParamSpec("P")
R = TypeVar("R")


def single_threaded(function: Callable[P, R]) -> Callable[P, R]:
    """`function` with the linear algebra of NumPy and SciPy on one thread while it runs."""

    @wraps(function)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        with _controller().limit(limits=1, user_api="blas"):
            return function(*args, **kwargs)

    return alone


@cache
def _controller() -> ThreadpoolController:
    """Looks up the loaded libraries, which takes a millisecond, once."""
    return ThreadpoolController()
