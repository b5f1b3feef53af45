"""From the cells of a row to a prompt and an answer: instruction, system message, chat or plain text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from viprl.data.named import DAPO_WRAPPER
from viprl.errors import DataError, InputError
from viprl.prompts import Prompt, identity
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
        asked = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=None)
        if self.instruction is not None:
            if asked is None or not isinstance(messages[asked]["content"], str):
                raise DataError("the chat has no text of a user to which the instruction can be added")
            messages[asked]["content"] = self._instructed(messages[asked]["content"])
        if self.chat is False:
            if len(messages) != 1 or not isinstance(messages[0]["content"], str):
                raise DataError(f"chat is false, but the prompt is a chat of {len(messages)} messages")
            return messages[0]["content"]
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


def read_question(value: Any, wrapper: tuple[str, str]) -> Prompt:
    """The question of a row, checked and without its wrapper. Raises DataError if it is empty or not a prompt."""
    if value is None:
        raise DataError("the prompt is empty")
    if not isinstance(value, str):
        # tables hold None for the keys that a message lacks
        value = [{k: v for k, v in m.items() if v is not None} if isinstance(m, Mapping) else m for m in value]
    try:
        identity(value)
    except (TypeError, ValueError) as error:
        raise DataError(str(error)) from error
    single = len(value) == 1 and not isinstance(value, str)
    question = value[0].get("content") if single else value
    if not isinstance(question, str):
        return value
    if not question.strip():
        raise DataError("the prompt is empty")
    before, after = wrapper
    if before and question.startswith(before) and question.endswith(after):
        question = question.removeprefix(before).removesuffix(after)
    return [{**value[0], "content": question}] if single else question


def read_answer(value: Any, mark: str | None) -> str:
    """The answer of a row as text: what follows the last `mark`, or all of it without a mark.

    Raises DataError if the answer is empty or has no `mark`.
    """
    if value is None or (isinstance(value, float) and value != value):
        raise DataError("the answer is empty")
    text = answer_text(value)
    if mark:
        if mark not in text:
            raise DataError(f"the answer does not contain {mark!r} (answer_after)")
        text = text.rpartition(mark)[2].strip()
        if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", text):  # GSM8K writes 1,000
            text = text.replace(",", "")
    text = text.strip()
    if not text:
        raise DataError("the answer is empty")
    return text


def answer_text(value: Any) -> str:
    """An answer as text. A whole number is written as 5, not 5.0: one fraction in a column makes all of it floats."""
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return str(int(value) if whole else value)
