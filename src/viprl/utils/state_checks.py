"""Checked entries of a saved state. The errors name the entry.

A checksum protects a state file against damage, but not against a state that was put together wrongly, whose first
batch would fail with an IndexError or, worse, succeed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from viprl.errors import StateError
from viprl.utils.arrays import FloatArray
from viprl.utils.sequences import short


def check_entries(kind: str, state: Any, names: Sequence[str]) -> None:
    """Raise StateError unless `state` is a dict with these entries; `kind` says what state it is."""
    missing = sorted(set(names) - set(state if isinstance(state, Mapping) else ()))
    if missing:
        raise StateError(f"not a state of {kind}: it lacks {', '.join(missing)}")


def entry(state: Mapping[str, Any], name: str) -> Any:
    """The entry of that name. Raises StateError if there is none."""
    if not isinstance(state, Mapping) or name not in state:
        raise StateError(f"the entry {name!r} is missing")
    return state[name]


def mapping_entry(state: Mapping[str, Any], name: str, *, optional: bool = False) -> Mapping[str, Any]:
    """A dict; an empty one if the entry is missing and `optional`."""
    value = {} if optional and isinstance(state, Mapping) and name not in state else entry(state, name)
    if not isinstance(value, Mapping):
        raise StateError(f"the entry {name!r} is {short(value)}; expected a dict")
    return value


def array_entry(
    state: Mapping[str, Any],
    name: str,
    *shape: int | None,
    least: float = -math.inf,
    most: float = math.inf,
    dtype: type = np.float64,
) -> Any:
    """A copy of an array of finite numbers from `least` to `most`; None in `shape` stands for any length."""
    value = entry(state, name)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise StateError(f"the entry {name!r} is {short(value)}; expected an array") from error
    fits = array.ndim == len(shape) and all(
        want is None or got == want for want, got in zip(shape, array.shape, strict=True)
    )
    if array.dtype.kind not in "fiu" or not fits:
        expected = ", ".join("any" if length is None else str(length) for length in shape)
        raise StateError(
            f"the entry {name!r} has the shape {array.shape} and the type {array.dtype}; expected numbers of the "
            f"shape ({expected})"
        )
    bad = ~(np.isfinite(array) & (array >= least) & (array <= most))
    if bad.any():
        raise StateError(
            f"the entry {name!r} holds {array[bad].flat[0]}; expected finite numbers from {least:g} to {most:g}"
        )
    return array.astype(dtype)


def number_entry(
    state: Mapping[str, Any], name: str, *, least: float = -math.inf, most: float = math.inf, whole: bool = False
) -> Any:
    """A finite number from `least` to `most`; an int if `whole`."""
    value = entry(state, name)
    value = value.item() if isinstance(value, np.generic) else value
    valid = isinstance(value, int) if whole else isinstance(value, int | float)
    if not valid or isinstance(value, bool) or not (math.isfinite(value) and least <= value <= most):
        kind = "a whole number" if whole else "a finite number"
        raise StateError(f"the entry {name!r} is {short(value)}; expected {kind} from {least:g} to {most:g}")
    return value


def flag_entry(state: Mapping[str, Any], name: str) -> bool:
    """True or False."""
    value = entry(state, name)
    if not isinstance(value, bool | np.bool_):
        raise StateError(f"the entry {name!r} is {short(value)}; expected True or False")
    return bool(value)


def keys_entry(state: Mapping[str, Any], name: str = "keys") -> list[str]:
    """Prompt keys: distinct strings."""
    keys = entry(state, name)
    if not isinstance(keys, list) or not {str}.issuperset(map(type, keys)) or len(set(keys)) < len(keys):
        raise StateError(f"the entry {name!r} is {short(keys)}; expected a list of distinct strings")
    return list(keys)


def precision_entry(state: Mapping[str, Any], name: str, size: int) -> FloatArray:
    """A symmetric, positive definite matrix [size, size]."""
    matrix = array_entry(state, name, size, size)
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError as error:
        raise StateError(f"the entry {name!r} is not a positive definite matrix") from error
    return matrix
