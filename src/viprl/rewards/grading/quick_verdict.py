"""Comparisons that need no computer algebra: most answers are a number, or the same text as the reference."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from viprl.rewards.grading.rationals import Number, number, same_number

_WORDS = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|operatorname) ?\{([^{}\\]*)\}")
_ONLY_WORDS = re.compile(r"[^\W\d_]+(?:[ '-][^\W\d_]+)*")
_BASED = re.compile(r"([0-9][0-9A-F]*) ?_ ?(?:\{ ?(\d{1,2}) ?\}|(\d))", re.ASCII)


def quick_verdict(reference: str, answer: str) -> bool | None:
    """Whether two `cleaned` answers are the same; None if only computer algebra can decide."""
    known, given = _seen(reference), _seen(answer)
    if known.tight == given.tight:
        return True
    if known.number is not None and given.number is not None:
        return same_number(known.number, given.number)
    if known.based is not None and given.based is not None:
        return known.based == given.based
    if known.words is not None and given.words is not None:
        if known.words == given.words:
            return True
        if known.marked:  # the reference is text (\text{...}), so not a product of variables
            return False
    return None


@dataclass(frozen=True)
class _Seen:
    """What an answer is, apart from mathematics."""

    tight: str
    number: Number | None
    based: int | None
    words: frozenset[str] | None
    marked: bool
    """Whether words are marked as text."""


@functools.lru_cache(maxsize=1 << 12)
def _seen(text: str) -> _Seen:
    return _Seen(_tight(text), number(text), _based(text), _words(text), "\\" in text or "(" in text)


def _tight(text: str) -> str:
    """Without spaces, except between letters and digits, where they have a meaning."""
    return re.sub(r"(?<![a-zA-Z0-9]) | (?![a-zA-Z0-9])", "", text)


def _based(text: str) -> int | None:
    """The value of digits with their base, such as 101_2; None for other texts."""
    found = _BASED.fullmatch(text)
    base = int(found[2] or found[3]) if found else 0
    try:
        return int(found[1], base) if found and 2 <= base <= 36 else None
    except ValueError:  # a digit beyond the base
        return None


def _words(text: str) -> frozenset[str] | None:
    r"""The words that an answer consists of, with or without \text, as a set of what commas separate.

    None if it has other content.
    """
    parts = [" ".join(part.split()) for part in _WORDS.sub(r"\1", text).strip("() ").removesuffix(".").split(",")]
    return frozenset(part.casefold() for part in parts) if all(map(_ONLY_WORDS.fullmatch, parts)) else None
