"""Functions by import path, as configurations name them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def import_function(path: str) -> Callable[..., Any]:
    """The function at "module:function"; modules of the working directory are found too. ValueError otherwise."""
    module, colon, name = path.partition(":")
    if not colon:
        raise ValueError(f"{path!r} is no import path; expected 'module:function'")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever a module does wrong when it is loaded
        raise ValueError(f"{path!r} cannot be imported: {error}") from error
    if not callable(found):
        raise ValueError(f"{path!r} is a {type(found).__name__}; expected a function")
    return found
