"""What the rows of a data set show beyond bad ones: marks in answers, and what may not have been meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from viprl.data.answer import MARK
from viprl.data.question import is_chat_text
from viprl.prompts import Prompt
from viprl.utils.words import in_short

_MARKED = re.compile(rf"(^|\n)[ \t]*{MARK}[ \t]*\S[^\n]*\s*$")

_LIST = re.compile(r"""\[\s*(['"]).*\1\s*\]|\{\s*(['"])[^'"]*\2\s*:.*\}""", re.DOTALL)
"""A list or a mapping of texts, in JSON or as Python writes it."""


def mostly_marked(answers: Sequence[Any]) -> bool:
    """Whether at least half of the answers end with a line `#### 18`, as those of GSM8K do."""
    texts = [answer for answer in answers if isinstance(answer, str) and answer.strip()]
    return bool(texts) and 2 * sum(bool(_MARKED.search(text)) for text in texts) >= len(texts)


def remarks(
    questions: Sequence[Any],
    answers: Sequence[Any],
    prompts: Sequence[Prompt | None],
    first: np.ndarray,
    copy_of: np.ndarray,
    mark: str | None,
) -> tuple[str, ...]:
    """Remarks on the good rows, each with the number of rows and an example.

    Args:
        questions, answers: of each distinct row, as in the source.
        prompts: of each distinct row, as read; None for a bad row.
        first: index of the first row of each distinct row.
        copy_of: index of each row among the distinct ones.
        mark: the answer is the text after it.
    """
    copies = np.bincount(copy_of, minlength=len(prompts))
    good = [i for i, prompt in enumerate(prompts) if prompt is not None]
    found: list[tuple[str, list[int]]] = [
        (
            "the prompts of {n} end with a message of the assistant ({row}), which the model continues; remove that "
            "message if it is the answer",
            [i for i in good if _ends_with_assistant(prompts[i])],
        ),
        (
            "the prompts of {n} are texts that hold the JSON of a chat ({row}); they are read as chats",
            [i for i in good if is_chat_text(questions[i])],
        ),
        (
            "the answers of {n} are lists of one answer, which is used ({row}: {answer})",
            [i for i in good if isinstance(answers[i], list)],
        ),
        (
            "the answers of {n} hold JSON or a list of Python as a text ({row}: {answer}), which is compared as it is",
            [i for i in good if _LIST.fullmatch(_text(answers[i]).strip())],
        ),
        (
            "the answers of {n} are the text None or null ({row}); remove these rows if it stands for a missing value",
            [i for i in good if _text(answers[i]).strip().lower() in ("none", "null")],
        ),
        (
            f"the answers of {{n}} end with a line {MARK} ({{row}}), but the whole text is compared; if the answer is "
            f"what follows, set answer_after: '{MARK}' or correct the other rows",
            [i for i in good if not mark and _MARKED.search(_text(answers[i]))],
        ),
    ]
    return tuple(
        words.format(n=_rows(int(copies[at].sum())), row=f"row {first[at[0]] + 1}", answer=in_short(answers[at[0]]))
        for words, at in found
        if at
    )


def _ends_with_assistant(prompt: Prompt) -> bool:
    return not isinstance(prompt, str) and prompt[-1]["role"] == "assistant"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _rows(n: int) -> str:
    return f"{n:,} row{'s' if n > 1 else ''}"
