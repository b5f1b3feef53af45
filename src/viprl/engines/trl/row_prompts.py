"""The prompt of a row of a TRL data set: its messages, its pictures, and what an environment makes its task from.

TRL keeps pictures in columns of their own, and environments get the columns of a row in `reset`. Rows with the same
messages are different prompts if these differ. Pictures are replaced by a digest of their content, so that a prompt
stays small and can be written to a log.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from viprl.engines.prompt_id import identified
from viprl.errors import InputError
from viprl.prompts import Prompt

OPTION = "vip_id_column"
PICTURES = ("image", "images")
"""Columns in which TRL finds pictures."""


def row_prompt(row: Mapping[str, Any], id_column: str | None, task_columns: Collection[str] | None = ()) -> Prompt:
    """The prompt of a row: identified by its id, otherwise by everything that the policy is shown.

    Args:
        row: column -> value.
        id_column: see `viprl.engines.prompt_id.identified`.
        task_columns: the columns from which an environment makes its task; None for all.

    Raises InputError if a message or such a column holds an object without recognisable content.
    """
    if id_column is not None:
        return identified(_digested(row.get("prompt", ""), strict=False), row, id_column, OPTION)
    prompt = _digested(row.get("prompt", ""))
    pictures = row["images"] if "images" in row else [row.get("image")]
    parts = [{"type": "image", "digest": _digested(one)} for one in _items(pictures) if one is not None]
    task = {name: _digested(row[name]) for name in task_names(row, task_columns)}
    return _with_parts(prompt, [*parts, {"type": "task", "columns": task}] if task else parts)


def task_names(columns: Iterable[str], task_columns: Collection[str] | None) -> list[str]:
    """Those of the columns from which an environment makes its task."""
    held = [name for name in columns if name not in ("prompt", *PICTURES)]
    return held if task_columns is None else [name for name in held if name in task_columns]


def reset_columns(environments: Iterable[Any]) -> set[str] | None:
    """The columns that the environments read in `reset`: its named parameters, and the column `environment`, which
    chooses among several. None, which means all columns, if one of them names no parameter but takes any."""
    names = {"environment"}
    for environment in environments:
        parameters = list(inspect.signature(environment.reset).parameters.values())
        named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not named and any(p.kind is p.VAR_KEYWORD for p in parameters):
            return None
        names |= named
    return names


def _with_parts(prompt: Any, parts: list[dict[str, Any]]) -> Prompt:
    """The prompt with further parts at the end of its last message."""
    if not parts:
        return prompt
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    last = messages[-1]
    content = last.get("content") or []
    content = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    return [*messages[:-1], {**last, "content": [*content, *parts]}]


def _digested(value: Any, *, strict: bool = True) -> Any:
    """The value with digests in place of bytes, pictures and arrays. Other objects stay if not `strict`."""
    if value is None or isinstance(value, str | bool | int | float | np.generic):
        return value
    if isinstance(value, Mapping):  # encoded pictures of `datasets`: a file has other places on other machines
        encoded = isinstance(value.get("bytes"), bytes)
        return {k: _digested(v, strict=strict) for k, v in value.items() if not (encoded and k == "path")}
    if isinstance(value, list | tuple):
        return [_digested(item, strict=strict) for item in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return _digest(b"bytes", bytes(value))
    array = _as_array(value)
    if array is not None and array.dtype != object:
        picture = hasattr(value, "getpalette")  # of Pillow; its array may hold positions in a palette
        colours = f"{value.mode} {value.getpalette()}" if picture else ""
        what = f"{colours} {array.dtype} {array.shape}".encode()
        return _digest(what, np.ascontiguousarray(array).tobytes())
    if array is not None and isinstance(value, np.ndarray):
        return [_digested(item, strict=strict) for item in value.tolist()]
    if not strict or type(value).__repr__ is not object.__repr__:
        return value if not strict else repr(value)
    raise InputError(
        f"a row of the data set has a {type(value).__name__} in its prompt, whose content is unknown; set {OPTION} to "
        "a column that identifies the row"
    )


def _as_array(value: Any) -> Any:
    """A picture or a tensor as an array; None for anything else."""
    if not hasattr(value, "__array__") and not hasattr(value, "__array_interface__"):
        return None
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # such as a tensor of a type that NumPy does not have
        return np.asarray(value.float())


def _digest(*contents: bytes) -> str:
    total = hashlib.sha256()
    for content in contents:
        total.update(len(content).to_bytes(8, "big") + content)
    return f"sha256:{total.hexdigest()}"


def _items(pictures: Any) -> list[Any]:
    if pictures is None:
        return []
    return list(pictures) if isinstance(pictures, list | tuple) else [pictures]
