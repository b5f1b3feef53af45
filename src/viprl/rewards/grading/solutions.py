r"""The reference answer of a solution, whatever the type of the value that holds it."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from numbers import Real
from typing import Any

from viprl.errors import DataError
from viprl.rewards.grading.extract import boxed
from viprl.utils.missing import is_missing
from viprl.utils.plain_number import plain_number


def reference(solution: Any) -> str | None:
    r"""The reference answer of a solution: the content of its box, or what follows ``####``, or all of it.

    None for an empty solution. Raises DataError as `text_of` does.
    """
    text = text_of(solution)
    if text is None:
        return None
    answer = boxed(text) if "\\boxed" in text else None
    answer = text.rpartition("####")[2] if answer is None else answer
    return answer.strip() or None


def text_of(solution: Any) -> str | None:
    """The text of a solution; None if it is missing (None, NaN, or nothing but white space).

    Numbers of all types are written in plain notation, 0.00003 rather than 3e-05, and 5 rather than 5.0. A list or an
    array of one element is that element.

    Raises DataError for what is not one text or one number: truth values, bytes, mappings, lists of several answers.
    """
    if isinstance(solution, str):
        return solution if solution.strip() else None
    if is_missing(solution):
        return None
    if isinstance(solution, Real | Decimal) and not isinstance(solution, bool):
        return _number_text(solution)
    if hasattr(solution, "tolist"):
        return text_of(solution.tolist())
    if isinstance(solution, Sequence) and not isinstance(solution, bytes | bytearray):
        if len(solution) == 1 and (isinstance(solution[0], str) or not isinstance(solution[0], Sequence)):
            return text_of(solution[0])
        raise DataError(f"it is a list of {len(solution)} elements, {solution!r:.80}; give one answer, as a text")
    remedy = "decode it" if isinstance(solution, bytes | bytearray) else "give the answer as a text or a number"
    raise DataError(f"it is of type {type(solution).__name__}, {solution!r:.80}; {remedy}")


def _number_text(value: Any) -> str:
    if value in (float("inf"), float("-inf")):
        return "inf" if value > 0 else "-inf"
    return plain_number(value, "it")
