"""Functions by import path, as configuration files name them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from viprl.errors import InputError


def import_function(path: str) -> Callable[..., Any]:
    """The function at "module:function". Modules of the working directory are found too.

    Raises InputError if `path` has another form, cannot be imported, or is not callable.
    """
    module, colon, name = path.partition(":")
    if not colon:
        raise InputError(f"{path!r} is not an import path; expected 'module:function'")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # a module can raise anything while it is imported
        raise InputError(f"{path!r} cannot be imported: {error}") from error
    if not callable(found):
        raise InputError(f"{path!r} is of type {type(found).__name__}; expected a function")
    return found
