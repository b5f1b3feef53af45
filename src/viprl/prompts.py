"""What a prompt is: its identity, and the text of it that is embedded.

A prompt is one of

* a string;
* a chat: a list of messages ``{"role": ..., "content": ...}``, whose content is a string or a list of typed parts such
  as ``{"type": "text", "text": ...}``; tuples and 1-D object arrays, as data loaders make them, count as lists; a turn
  of the assistant that calls tools needs no content;
* a mapping with one of these under ``"prompt"`` and optionally an ``"id"`` (a string or an integer).
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, TypeAlias

import numpy as np

from viprl.errors import InputError, InputTypeError
from viprl.utils.sequences import listed, short

Prompt: TypeAlias = Any  # a str, a list of messages or a mapping with "prompt"; checked when it is used

_EXPECTED = "expected a string, a list of messages {'role', 'content'}, or a mapping with one of these under 'prompt'"
_INSTEAD = ("tool_calls", "function_call", "reasoning_content", "thinking")
"""What a message of the assistant may have in place of content."""
_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def identity(prompt: Prompt) -> str:
    """The key of a prompt's history: ``"id:<id>"`` if it has an id, otherwise ``"sha:<hex>"`` of its content.

    With an id, only the id counts; ``7`` and ``"7"`` are the same. Otherwise the content counts, including parts that
    are not text: two questions about different images are different prompts. Images and audio count by their bytes
    (bytes, arrays and images of PIL), or by their path or URL. The order of keys, keys with the value None, and whether
    a text is a string or a text part make no difference. A string and a chat with the same text differ.

    Raises InputError (a ValueError) if this is not a prompt.
    """
    content, given = _split(prompt)
    if given is not None:
        return f"id:{given}"
    try:
        canonical = _JSON.encode(_canonical(content))
    except RecursionError:
        raise InputError("the prompt is nested too deeply, or contains itself; give it an id") from None
    return f"sha:{hashlib.sha256(canonical.encode('ascii')).hexdigest()}"


def text(prompt: Prompt) -> str:
    """The text to embed: a string as it is; of a chat the user's messages, one below the other.

    Other messages are left out, because a system prompt that all prompts of a data set share would make them look
    alike. A chat without a message of the user gives all its messages. Raises InputError (a ValueError) if this is not
    a prompt.
    """
    content, _ = _split(prompt)
    if isinstance(content, str):
        return content
    users = [message for message in content if message["role"] == "user"]
    return "\n".join(_message_text(message) for message in users or content)


def _split(prompt: Prompt) -> tuple[str | list[Mapping[str, Any]], str | None]:
    """The checked content (a string or messages) and the id, if any."""
    given = None
    if isinstance(prompt, Mapping):
        if "prompt" not in prompt:
            hint = " (put a single message into a list)" if {"role", "content"} <= prompt.keys() else ""
            raise InputError(f"got a mapping with the keys {sorted(map(str, prompt))}{hint}; {_EXPECTED}")
        prompt, given = prompt["prompt"], _checked_id(prompt.get("id"))
    if isinstance(prompt, str):
        return prompt, given
    messages = _as_list(prompt)
    if messages is None:
        raise InputTypeError(f"got a prompt of type {type(prompt).__name__}, {short(prompt)}; {_EXPECTED}")
    if not messages:
        raise InputError(f"got a list without messages; {_EXPECTED}")
    for position, message in enumerate(messages):
        _check_message(message, position)
    return messages, given


def _checked_id(given: Any) -> str | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, str | Integral):
        raise InputTypeError(f"got a prompt id of type {type(given).__name__}; expected a string or an integer")
    if given == "":
        raise InputError("got an empty prompt id; give a unique id, or leave 'id' out")
    return str(given)


def _check_message(message: Any, position: int) -> None:
    where = f"message {position} of the prompt"
    if not isinstance(message, Mapping):
        raise InputTypeError(f"{where} is of type {type(message).__name__}; expected {{'role', 'content'}}")
    if not isinstance(message.get("role"), str):
        raise InputError(f"{where} has the keys {sorted(map(str, message))}; expected a 'role' (a string)")
    content = message.get("content")
    if isinstance(content, str) or (content is None and any(message.get(key) is not None for key in _INSTEAD)):
        return
    parts = _as_list(content)
    if parts is None:
        raise InputTypeError(
            f"the content of {where} is of type {type(content).__name__}; expected a string or a list of typed parts"
        )
    for part in parts:
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            raise InputTypeError(f"{where} has a part without a 'type'; expected {{'type': 'text', 'text': ...}}")
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            given = type(part.get("text")).__name__
            raise InputTypeError(f"{where} has a text part whose 'text' is of type {given}; expected a string")


def _message_text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def _as_list(value: Any) -> list[Any] | None:
    if isinstance(value, np.ndarray):
        return list(value) if value.ndim == 1 else None
    return list(value) if isinstance(value, list | tuple) else None


def _canonical(content: str | list[Mapping[str, Any]]) -> Any:
    if isinstance(content, str):
        return content
    messages = [_plain(message) for message in content]
    for message in messages:
        if isinstance(message.get("content"), str):
            message["content"] = [{"type": "text", "text": message["content"]}]
    return messages


def _plain(value: Any) -> Any:
    """JSON values only. None counts as absent, because tables hold None for the keys that a row lacks.

    Bytes, images and arrays of several dimensions are replaced by their hash.
    """
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | bool | int | float):
        return value
    items = _as_list(value)
    if items is not None:
        return [_plain(item) for item in items]
    content = _bytes(value)
    if content is None:
        raise InputTypeError(
            f"the prompt contains a {type(value).__name__}, which has no canonical content; "
            "give the prompt an id: {'prompt': ..., 'id': ...}"
        )
    return {"sha256": hashlib.sha256(content).hexdigest()}


def _bytes(value: Any) -> bytes | None:
    """The content of bytes, an image of PIL, an array or a tensor, with shape and type; None for anything else."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if all(hasattr(value, name) for name in ("mode", "size", "getpixel", "tobytes")):
        return f"{value.mode} {value.size} ".encode() + value.tobytes()
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        return None if array.dtype.hasobject else f"{array.dtype.str} {array.shape} ".encode() + array.tobytes()
    return None


class PromptBatch:
    """A batch of prompts for predictors: distinct keys and texts, and the row of each prompt among them.

    Args:
        prompts: Q prompts; the same prompt may occur several times.
        text: the text of a prompt, see `viprl.prompts.text`.
    """

    def __init__(self, prompts: Sequence[Prompt], text: Callable[[Prompt], str]) -> None:
        prompts = listed("prompts", prompts, "of prompts")
        self.keys = tuple(_identity_at(position, prompt) for position, prompt in enumerate(prompts))
        first = {key: position for position, key in reversed(list(enumerate(self.keys)))}
        self.distinct = tuple(dict.fromkeys(self.keys))
        self.texts = [_checked_text(text(prompts[first[key]])) for key in self.distinct]
        row = {key: index for index, key in enumerate(self.distinct)}
        self.rows: np.ndarray = np.array([row[key] for key in self.keys], dtype=np.int64)

    def at(self, positions: np.ndarray) -> PromptBatch:
        """The batch of the prompts at these positions."""
        part = copy.copy(self)
        text = dict(zip(self.distinct, self.texts, strict=True))
        part.keys = tuple(self.keys[position] for position in positions)
        part.distinct = tuple(dict.fromkeys(part.keys))
        part.texts = [text[key] for key in part.distinct]
        row = {key: index for index, key in enumerate(part.distinct)}
        part.rows = np.array([row[key] for key in part.keys], dtype=np.int64)
        return part

    def summed(self, values: np.ndarray) -> np.ndarray:
        """[D] sums of `values` [Q] over the positions of each distinct prompt."""
        return np.bincount(self.rows, values, minlength=len(self.distinct)).astype(float)

    def merged(self, groups: Sequence[Any]) -> list[np.ndarray]:
        """[D] the Q groups of numbers, joined for each distinct prompt."""
        together: list[list[Any]] = [[] for _ in self.distinct]
        for row, group in zip(self.rows, groups, strict=True):
            together[row].extend(group)
        return [np.array(group, dtype=float) for group in together]


def _identity_at(position: int, prompt: Prompt) -> str:
    try:
        return identity(prompt)
    except InputError as error:
        raise type(error)(f"prompt {position} of the batch: {error}") from error


def _checked_text(text: Any) -> str:
    if not isinstance(text, str):
        raise InputTypeError(f"text gave {short(text)} of type {type(text).__name__} for a prompt; expected a string")
    return text
