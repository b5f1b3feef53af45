"""From the cells of a row to a prompt and an answer: instruction, system message, chat or plain text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from viprl.data.answer import check_characters, described
from viprl.data.named import DAPO_WRAPPER
from viprl.errors import DataError, InputError
from viprl.prompts import Prompt, identity, text
from viprl.utils.missing import is_missing, names_missing
from viprl.utils.words import did_you_mean

INSTRUCTIONS = {
    "none": "{question}",
    "boxed": "{question}\n\nPlease reason step by step, and put your final answer within \\boxed{}.",
    "answer_line": "{question}".join(DAPO_WRAPPER),
    "answer_tags": "{question}\n\nGive your final answer between <answer> and </answer>.",
}
"""Answer instructions by name. Any other text is a template if it contains `{question}`; otherwise it is put below the
question."""


@dataclass(frozen=True)
class Format:
    """How a question becomes a prompt.

    Raises InputError for a system message with `chat=False`, and for a misspelt name of an instruction.
    """

    instruction: str | None = None
    """A name of `INSTRUCTIONS`, a template or a text; None leaves the question as it is."""
    system: str | None = None
    """System message; makes every prompt a chat."""
    chat: bool | None = None
    """True: a chat, so that the model's chat template is used. False: plain text. None: as in the data."""

    def __post_init__(self) -> None:
        if self.system is not None and self.chat is False:
            raise InputError("system is a message of a chat, but chat is false; remove one of the two")
        word = self.instruction or ""
        hint = did_you_mean(word, INSTRUCTIONS, n=1, cutoff=0.7)
        if hint and word not in INSTRUCTIONS and " " not in word:
            raise InputError(
                f"instruction is {word!r}; {hint} The names are {', '.join(INSTRUCTIONS)}; a text of your own needs "
                "more than one word"
            )

    def __call__(self, question: Prompt) -> Prompt:
        """The prompt of a question, which is a text, or a chat whose last message of the user is the question.

        Raises DataError for a chat that cannot take the instruction or cannot be written as plain text.
        """
        chat = None if isinstance(question, str) else [dict(message) for message in question]
        if chat is None and not (self.chat or self.system):
            return self._instructed(question)
        messages = chat if chat is not None else [{"role": "user", "content": question}]
        if self.instruction is not None:
            asked = last_of_user(messages)
            if asked is None or _text_at(messages[asked]) is None:
                raise DataError("the chat has no single text of a user to which the instruction can be added")
            messages[asked] = _with_text(messages[asked], self._instructed)
        if self.chat is False:
            only = _words(messages[0]) if len(messages) == 1 else None
            if only is None:
                raise DataError(f"chat is false, but the prompt is a chat of {len(messages)} messages")
            return only
        if self.system is not None:
            messages = [{"role": "system", "content": self.system}, *(m for m in messages if m["role"] != "system")]
        return messages

    def _instructed(self, question: str) -> str:
        if self.instruction is None:
            return question
        template = INSTRUCTIONS.get(self.instruction, self.instruction)
        if "{question}" not in template:
            template = "{question}\n\n" + template
        return template.replace("{question}", question)


def read_question(value: Any, *, strip: bool = False) -> Prompt:
    """The question of a row: a text, or messages. With `strip`, DAPO's instruction around it is removed.

    A text that holds the JSON of messages is read as these messages. A message of the assistant that calls a tool and
    has no content gets an empty one, because templates would write None.

    Raises DataError, with what the prompt is, if it is missing, empty or not a prompt.
    """
    if is_missing(value):
        raise DataError("the prompt is empty")
    if isinstance(value, str):
        value = _messages_in(value)
    if not isinstance(value, str | list):
        hint = " (put a single message into a list)" if isinstance(value, Mapping) and "role" in value else ""
        raise DataError(f"the prompt is {described(value)}; expected a text or a list of messages{hint}")
    if not isinstance(value, str):
        if any(isinstance(message, Mapping) and "from" in message and "role" not in message for message in value):
            raise DataError("the messages have the keys 'from' and 'value'; rename them to 'role' and 'content'")
        value = [_message(message) if isinstance(message, Mapping) else message for message in value]
    try:
        read = text(value)
        identity(value)
    except (TypeError, ValueError) as error:
        raise DataError(str(error)) from error
    asked = None if isinstance(value, str) else last_of_user(value)
    words = read if asked is None else _words(value[asked])
    if words is not None:
        if not words.strip():
            raise DataError("the prompt is empty" if asked is None else "the message of the user is empty")
        if names_missing(words):
            raise DataError(f"the prompt is the text {words.strip()!r}, which stands for a missing value")
    check_characters(
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str), "the prompt"
    )
    if not strip:
        return value
    if isinstance(value, str):
        return _unwrapped(value)
    if asked is not None and _text_at(value[asked]) is not None:
        value[asked] = _with_text(value[asked], _unwrapped)
    return value


def is_chat_text(value: Any) -> bool:
    """Whether a text holds the JSON of messages."""
    return isinstance(value, str) and not isinstance(_messages_in(value), str)


def last_of_user(messages: Sequence[Mapping[str, Any]]) -> int | None:
    """Index of the last message of the user, which is the question."""
    return max((i for i, message in enumerate(messages) if message["role"] == "user"), default=None)


def _messages_in(value: str) -> str | list[Any]:
    start = value[:200].lstrip()
    if not re.match(r"\[\s*\{\s*['\"]\w+['\"]\s*:", start) or not re.search(r"['\"](role|from)['\"]\s*:", value):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        if "'" in start:
            raise DataError(
                "the prompt is a chat written as Python text, as CSV files have it; write it as JSON"
            ) from None
        return value
    return found if all(isinstance(item, dict) and {"role", "from"} & item.keys() for item in found) else value


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in message.items() if value is not None}
    if "tool_calls" in kept and "content" not in kept:
        role = {"role": kept.pop("role")} if "role" in kept else {}
        kept = role | {"content": ""} | kept
    return kept


def _words(message: Mapping[str, Any]) -> str | None:
    """The words of a message; None if it has parts that are not text."""
    content = message.get("content")
    if not isinstance(content, list):
        return content
    return None if any(part["type"] != "text" for part in content) else "\n".join(part["text"] for part in content)


def _text_at(message: Mapping[str, Any]) -> str | None:
    """The content of a message, or its only part that is text; None if there are several or none."""
    content = message.get("content")
    if not isinstance(content, list):
        return content
    texts = [part["text"] for part in content if part["type"] == "text"]
    return texts[0] if len(texts) == 1 else None


def _with_text(message: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": change(content)}
    parts = [{**part, "text": change(part["text"])} if part["type"] == "text" else part for part in content]
    return {**message, "content": parts}


def _unwrapped(question: str) -> str:
    before, after = DAPO_WRAPPER
    if question.startswith(before) and question.endswith(after):
        return question.removeprefix(before).removesuffix(after)
    return question
