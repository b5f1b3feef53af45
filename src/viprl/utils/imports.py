"""Functions by import path, as configuration files name them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from viprl.errors import InputError
from viprl.utils.words import did_you_mean


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
        imported = importlib.import_module(module)
    except Exception as error:  # a module can raise anything while it is imported
        missing = isinstance(error, ModuleNotFoundError) and error.name == module
        hint = f"; expected {module}.py in {Path.cwd()}, or an installed module" if missing else ""
        raise InputError(f"{path!r} cannot be imported: {error}{hint}") from error
    try:
        found = getattr(imported, name)
    except Exception as error:
        near = did_you_mean(name, [other for other, value in vars(imported).items() if callable(value)])
        raise InputError(f"{path!r} cannot be imported: {error}{near and f'; {near}'}") from error
    if not callable(found):
        raise InputError(f"{path!r} is of type {type(found).__name__}; expected a function")
    return found
