"""Words for messages."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def did_you_mean(word: str, known: Iterable[str], *, n: int = 2, cutoff: float = 0.6) -> str:
    """ "did you mean ...?" with the at most `n` names in `known` that are most similar; "" if none is similar."""
    near = difflib.get_close_matches(word, sorted(known), n=n, cutoff=cutoff)
    return f"did you mean {' or '.join(near)}?" if near else ""


def in_short(value: object, most: int = 60) -> str:
    """The text of a value, cut to `most` characters, of which the last three are dots then."""
    text = str(value)
    return text if len(text) <= most else text[: most - 3] + "..."


def duration(seconds: float) -> str:
    """ "5 s", "12 min", "3.5 h", "2 days"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


def first_line(error: Exception) -> str:
    """The first line of the message of an exception."""
    return str(error).partition("\n")[0]


def visible(text: str, keep: str = "\t\n") -> str:
    """The text with its control characters as escapes, those of `keep` excepted, so that what a model wrote cannot
    steer a terminal. Surrogates are escaped too: they cannot be printed."""
    return _CONTROL.sub(lambda found: found[0] if found[0] in keep else ascii(found[0])[1:-1], text)


def count(n: object, one: str, many: str = "") -> str:
    """ "1 seed", "3 seeds", "2 batches"."""
    return f"{n} {one if n == 1 else many or one + 's'}"
