"""What a prompt is, which prompts are the same one, and which of their text is worth embedding.

A prompt is one of

* a string,
* a chat: a list of messages ``{"role": ..., "content": ...}``; the content is a string or a list of typed
  parts such as ``{"type": "text", "text": ...}`` (what data loaders turn lists into, tuples and 1-D object
  arrays, is welcome too),
* a mapping with one of these under ``"prompt"`` and, if you like, an ``"id"`` (a string or an integer).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, TypeAlias

import numpy as np

Prompt: TypeAlias = Any  # a str, a list of messages or a mapping with "prompt": checked when it is used

_EXPECTED = (
    "a prompt is a string, a list of messages {'role', 'content'}, or a mapping with one of these under 'prompt'"
)


_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def identity(prompt: Prompt) -> str:
    """The name under which a prompt's history is kept: ``"id:<id>"``, or ``"sha:<hex>"`` of its content.

    With an id, the id alone decides (``7`` and ``"7"`` are the same). Without one, the content does: the
    order of keys, keys whose value is None, and whether a text stands as a string or as a text part make no
    difference; a string and a chat that says the same differ. Parts that are not text (an image's address)
    count as well, or two questions about different pictures would share their history.

    Raises TypeError or ValueError when this is no prompt.
    """
    content, given = _split(prompt)
    if given is not None:
        return f"id:{given}"
    canonical = _JSON.encode(_canonical(content))
    return f"sha:{hashlib.sha256(canonical.encode('ascii')).hexdigest()}"


def text(prompt: Prompt) -> str:
    """The text to embed: a string as it is; of a chat the user's turns, one below the other.

    The other turns are left out because a system prompt shared by a data set makes all its prompts look
    alike; a chat without a user turn gives all of its turns. Raises TypeError or ValueError when this is no
    prompt.
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
            raise ValueError(f"got a mapping with the keys {sorted(map(str, prompt))}{hint}; {_EXPECTED}")
        prompt, given = prompt["prompt"], _checked_id(prompt.get("id"))
    if isinstance(prompt, str):
        return prompt, given
    messages = _as_list(prompt)
    if messages is None:
        raise TypeError(f"got a prompt of type {type(prompt).__name__}; {_EXPECTED}")
    if not messages:
        raise ValueError(f"got a list without messages; {_EXPECTED}")
    for position, message in enumerate(messages):
        _check_message(message, position)
    return messages, given


def _checked_id(given: Any) -> str | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, str | Integral):
        raise TypeError(f"got a prompt id of type {type(given).__name__}; an id is a string or an integer")
    if given == "":
        raise ValueError("got an empty prompt id; give a unique one or leave 'id' out")
    return str(given)


def _check_message(message: Any, position: int) -> None:
    where = f"message {position} of the prompt"
    if not isinstance(message, Mapping):
        raise TypeError(f"{where} is of type {type(message).__name__}; expected {{'role', 'content'}}")
    if not isinstance(message.get("role"), str):
        raise ValueError(f"{where} has the keys {sorted(map(str, message))}; it needs a 'role' (a string)")
    content = message.get("content")
    # A turn of the assistant that only calls a tool has no content.
    if isinstance(content, str) or (content is None and message.get("tool_calls") is not None):
        return
    parts = _as_list(content)
    if parts is None:
        raise TypeError(
            f"the content of {where} is of type {type(content).__name__}; expected a string or a list of typed parts"
        )
    for part in parts:
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            raise TypeError(f"{where} has a part without a 'type'; expected {{'type': 'text', 'text': ...}}")
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            given = type(part.get("text")).__name__
            raise TypeError(f"{where} has a text part whose 'text' is of type {given}; expected a string")


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
    """JSON values only. Tables fill the keys that a row lacks with None, so None counts as absent."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, str | bool | int | float):
        return value
    items = _as_list(value)
    if items is None:
        raise TypeError(
            f"the prompt holds a {type(value).__name__}, whose content cannot be told apart; "
            "give the prompt as {'prompt': ..., 'id': ...}"
        )
    return [_plain(item) for item in items]


class PromptBatch:
    """A batch of prompts as predictors need it: distinct keys and texts, and the row of each prompt among them."""

    def __init__(self, prompts: Sequence[Prompt], text: Callable[[Prompt], str]) -> None:
        if isinstance(prompts, str):
            raise TypeError("expected a sequence of prompts; got one string")
        self.keys = tuple(identity(prompt) for prompt in prompts)
        first = {key: position for position, key in reversed(list(enumerate(self.keys)))}
        self.distinct = tuple(dict.fromkeys(self.keys))
        self.texts = [text(prompts[first[key]]) for key in self.distinct]
        row = {key: index for index, key in enumerate(self.distinct)}
        self.rows: np.ndarray = np.array([row[key] for key in self.keys], dtype=np.int64)

    def summed(self, values: np.ndarray) -> np.ndarray:
        """[distinct] sums over the positions of the same prompt."""
        return np.bincount(self.rows, values, minlength=len(self.distinct)).astype(float)

    def merged(self, groups: Sequence[Any]) -> list[np.ndarray]:
        """Groups of the same prompt put together; None becomes NaN."""
        together: list[list[Any]] = [[] for _ in self.distinct]
        for row, group in zip(self.rows, groups, strict=True):
            together[row].extend(group)
        return [np.array(group, dtype=float) for group in together]
