"""One thread for the linear algebra of a step.

The matrices of a step are small: a product of 512 x 386 and 386 x 128 numbers takes a millisecond. A second thread
saves half of that on an idle machine, but beside a busy trainer the product waits a hundred times longer for a free
core. Moreover, NumPy and SciPy each have their own threads, which keep spinning after a product and slow each other
down.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import ParamSpec, TypeVar

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


@cache
def _controller() -> ThreadpoolController:
    """The controller of the loaded libraries. To find them takes a millisecond, so it is done once."""
    return ThreadpoolController()
