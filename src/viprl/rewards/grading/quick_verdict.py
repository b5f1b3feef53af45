"""Comparisons that need no computer algebra: most answers are a number, or the same text as the reference."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from viprl.rewards.grading.rationals import Number, number, same_number

_WORDS = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|operatorname) ?\{([^{}\\]*)\}")
_ONLY_WORDS = re.compile(r"[^\W\d_]+(?:(?:, |[ '-])[^\W\d_]+)*")
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
        if known.words.casefold() == given.words.casefold():
            return True
        if known.words.replace(" ", "") != reference.replace(
            " ", ""
        ):  # the reference is marked as text (\text{...}), so not a product of variables
            return False
    return None


@dataclass(frozen=True)
class _Seen:
    """What an answer is, apart from mathematics."""

    tight: str
    number: Number | None
    based: int | None
    words: str | None


@functools.lru_cache(maxsize=1 << 12)
def _seen(text: str) -> _Seen:
    return _Seen(_tight(text), number(text), _based(text), _words(text))


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


def _words(text: str) -> str | None:
    r"""The words that an answer consists of, with or without \text; None if it has other content."""
    bare = (
        " ".join(_WORDS.sub(r"\1", text).replace(",", ", ").split()).replace(" ,", ",").strip("() ").removesuffix(".")
    )
    return bare if _ONLY_WORDS.fullmatch(bare) else None
