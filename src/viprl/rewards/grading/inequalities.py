r"""Inequalities that are solved for a variable, as intervals: 2 \le x < 5 as [2,5), x > 3 as (3,\infty).

math-verify compares a reference that is an inequality with an answer that is an interval, but not the reverse, because
an answer could repeat the inequality of the question, such as 2x + 3 < 7. Here only solved inequalities are rewritten,
and so the order of the two does not matter.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple


class Region(NamedTuple):
    """The values that an answer allows a variable."""

    variable: str
    interval: str
    """In LaTeX; a union for several intervals."""


_STRICT, _CLOSED, _UNEQUAL = ("<", ">"), ("\\le", "\\ge"), "\\ne"
_RELATION = re.compile(r"(<=?|>=?|\\(?:leqslant|geqslant|leqq|geqq|leq|geq|neq|lt|gt|le|ge|ne)(?![a-zA-Z]))")
_NAMES = {
    "<=": "\\le", ">=": "\\ge", "\\leqslant": "\\le", "\\geqslant": "\\ge", "\\leqq": "\\le", "\\geqq": "\\ge",
    "\\leq": "\\le", "\\geq": "\\ge", "\\neq": "\\ne", "\\lt": "<", "\\gt": ">",
}  # fmt: skip
_FLIPPED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}
_VARIABLE = re.compile(r"[a-zA-Z]|\\(?:alpha|beta|gamma|theta|lambda|mu)")
_MEMBER = re.compile(r"([a-zA-Z]) ?\\in(?![a-zA-Z]) ?(?=[(\[\\])")
_BUILDER = re.compile(
    r"\\\{ ?([a-zA-Z]) ?(?:\\in(?![a-zA-Z]) ?(?:\\mathbb ?\{? ?R ?\}?|R))? ?"  # the variable
    r"(?::|\||\\(?:mid|vert)(?![a-zA-Z])) ?"
)
_OR = re.compile(r",? ?(?:\\text ?\{ ?or ?\}|(?<![a-zA-Z\\])or(?![a-zA-Z])|\\(?:lor|vee|cup)(?![a-zA-Z])) ?")
_UNIT = re.compile(r" ?\\(?:text|mathrm) ?\{[^{}]*\}$")
_COMMAND = re.compile(r"\\[a-zA-Z]+")


@functools.lru_cache(maxsize=1 << 12)
def region(text: str) -> Region | None:
    r"""What a `cleaned` answer says about a variable; None if it is no solved inequality.

    Examples: x<3, 5 \ge x > 2, x < 1 \text{ or } x > 2, x \ne 3, x \in (1,2), \{x : x > 3\}.
    """
    if found := _MEMBER.match(text):
        rest = text[found.end() :]
        return None if _RELATION.search(rest) else Region(found[1], rest)
    builder = _BUILDER.match(text)
    if builder is not None:
        text = text[builder.end() :].removesuffix("}").removesuffix("\\").strip()
    regions = [_solved(part.strip()) for part in _OR.split(text)] if _RELATION.search(text) else []
    known = [part for part in regions if part is not None]
    if not known or len(known) < len(regions) or len({part.variable for part in known}) > 1:
        return None
    if builder is not None and builder[1] != known[0].variable:
        return None
    return Region(known[0].variable, " \\cup ".join(part.interval for part in known))


def comparable(first: str, second: str) -> tuple[str, str]:
    """The two answers, as intervals where that makes them comparable."""
    one, other = region(first), region(second)
    if one is not None and other is not None:
        return (one.interval, other.interval) if one.variable == other.variable else (first, second)
    if one is not None and not _RELATION.search(second):
        return one.interval, second
    if other is not None and not _RELATION.search(first):
        return first, other.interval
    return first, second


def _solved(text: str) -> Region | None:
    parts = _RELATION.split(text)
    terms, signs = [term.strip() for term in parts[::2]], [_NAMES.get(sign, sign) for sign in parts[1::2]]
    if len(terms) == 2 and _VARIABLE.fullmatch(terms[1]) and not _VARIABLE.fullmatch(terms[0]):
        terms, signs = terms[::-1], [_FLIPPED.get(signs[0], signs[0])]
    if len(terms) == 3 and signs[0] in (">", "\\ge"):
        terms, signs = terms[::-1], [_FLIPPED.get(sign, sign) for sign in signs[::-1]]
    variable = terms[0] if len(terms) == 2 else terms[1] if len(terms) == 3 else ""
    bounds = [_UNIT.sub("", bound) for bound in (terms[1:] if len(terms) == 2 else terms[::2])]
    if not _VARIABLE.fullmatch(variable) or not all(_is_bound(bound, variable) for bound in bounds):
        return None
    if len(bounds) == 2:
        if signs[0] not in ("<", "\\le") or signs[1] not in ("<", "\\le"):
            return None
        opening, closing = "[" if signs[0] == "\\le" else "(", "]" if signs[1] == "\\le" else ")"
        return Region(variable, f"{opening}{bounds[0]},{bounds[1]}{closing}")
    sides = {
        "<": "(-\\infty,{0})", "\\le": "(-\\infty,{0}]", ">": "({0},\\infty)", "\\ge": "[{0},\\infty)",
        "\\ne": "(-\\infty,{0}) \\cup ({0},\\infty)",
    }  # fmt: skip
    return Region(variable, sides[signs[0]].replace("{0}", bounds[0]))


def _is_bound(text: str, variable: str) -> bool:
    """Whether a text can be the end of an interval: one term without the variable."""
    return bool(text) and not any(mark in text for mark in ",;=") and variable not in _COMMAND.sub("", text)
