"""Which reward function raised an exception."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Any


def failed_functions(error: BaseException, functions: Sequence[Any], names: Sequence[str]) -> list[str]:
    """Names of the reward functions in which `error` was raised: one, several that share their code, or none if the
    traceback passes through none of them.

    Args:
        error: an exception that was caught.
        functions: functions, async functions, methods, partials, callable objects and modules.
        names: the engine's name of each.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        found = [name for function, name in zip(functions, names, strict=False) if _runs(frame, function)]
        if found:
            return list(dict.fromkeys(found))
    return []


def _runs(frame: FrameType, function: Any) -> bool:
    """Whether the frame executes the function, or a method of the callable object."""
    while isinstance(function, functools.partial):
        function = function.func
    code, arguments = getattr(function, "__code__", None), frame.f_code.co_varnames[: frame.f_code.co_argcount]
    if code is not None:
        return frame.f_code is code
    return bool(arguments) and frame.f_locals.get(arguments[0]) is function
