"""The number of environments of a group builder."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from viprl.errors import InputError

FIELDS = ("num_envs", "group_size")


def group_size(builder: Any) -> int:
    """Environments that a builder makes. Raises InputError if it has none of the `FIELDS`."""
    return getattr(builder, _size_field(builder))


def resized(builder: Any, size: int) -> Any:
    """A copy of the builder that makes `size` environments."""
    field = _size_field(builder)
    if dataclasses.is_dataclass(builder):
        return dataclasses.replace(builder, **{field: size})  # type: ignore[type-var]
    other = copy.copy(builder)
    setattr(other, field, size)
    return other


def _size_field(builder: Any) -> str:
    for field in FIELDS:
        if hasattr(builder, field):
            return field
    raise InputError(f"{type(builder).__name__} has neither num_envs nor group_size; wrap it in one that has num_envs")
