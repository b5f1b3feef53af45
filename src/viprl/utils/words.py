"""Words for messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str], *, n: int = 2, cutoff: float = 0.6) -> str:
    """ "did you mean ...?" with the at most `n` names in `known` that are most similar; "" if none is similar."""
    near = difflib.get_close_matches(word, sorted(known), n=n, cutoff=cutoff)
    return f"did you mean {' or '.join(near)}?" if near else ""


def in_short(value: object, most: int = 60) -> str:
    """The text of a value, cut to `most` characters, of which the last three are dots then."""
    text = str(value)
    return text if len(text) <= most else text[: most - 3] + "..."


def first_line(error: Exception) -> str:
    """The first line of the message of an exception."""
    return str(error).partition("\n")[0]


def count(n: object, one: str, many: str = "") -> str:
    """ "1 seed", "3 seeds", "2 batches"."""
    return f"{n} {one if n == 1 else many or one + 's'}"
