"""Fail at start-up if an installed package lacks an API that its adapter uses."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from viprl.errors import MissingPackageError


@dataclass(frozen=True)
class VersionContract:
    """The part of another package that an adapter uses.

    Args:
        requirement: the versions that the adapter supports, as pip reads them: "verl==0.9.1".
        used: module -> class, function or "Class.method" -> attributes of the class, or arguments of the function.
    """

    requirement: str
    used: Mapping[str, Mapping[str, tuple[str, ...]]]

    def check(self) -> None:
        """Raise MissingPackageError (an ImportError) that names everything that the installed package lacks."""
        missing = [line for name, entries in self.used.items() for line in _missing(name, entries)]
        if missing:
            package = re.split(r"[<>=]", self.requirement)[0]
            raise MissingPackageError(
                f"{package} {_installed(package)} lacks what viprl uses: {'; '.join(missing)}. Install a supported "
                f'version: pip install "{self.requirement}"'
            )


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(unknown version)"


def _missing(name: str, entries: Mapping[str, tuple[str, ...]]) -> list[str]:
    """One line for each thing that the module `name` lacks."""
    try:
        module: Any = importlib.import_module(name)
    except ImportError:
        return [f"module {name} not found"]
    lines = []
    for path, expected in entries.items():
        thing = reduce(lambda owner, part: getattr(owner, part, None), path.split("."), module)
        if thing is None:
            lines.append(f"{name}.{path} not found")
        elif inspect.isclass(thing):
            lines += [f"{name}.{path} has no {what}" for what in expected if what not in _attributes(thing)]
        else:
            taken = inspect.signature(thing).parameters
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
                lines += [f"{name}.{path} has no argument {what}" for what in expected if what not in taken]
    return lines


def _attributes(owner: type) -> set[str]:
    """Methods, and fields with or without a default."""
    return set(dir(owner)).union(*(getattr(base, "__annotations__", {}) for base in owner.__mro__))
