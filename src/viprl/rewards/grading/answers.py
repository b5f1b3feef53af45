"""Rewards of completions, and classes of equivalent answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from viprl.errors import DataError, InputError
from viprl.rewards.grading import extract
from viprl.rewards.grading.inequalities import comparable
from viprl.rewards.grading.notation import LONGEST, cleaned
from viprl.rewards.grading.quick_verdict import quick_verdict
from viprl.rewards.grading.rationals import scientific
from viprl.rewards.grading.solutions import reference, text_of
from viprl.rewards.grading.verifier import Verdict, Verifier, shared_verifier

logger = logging.getLogger(__name__)

LONGER = 400, 4
"""Longest answer that is compared mathematically, if `LONGEST` is not less: so many characters, and so many times the
reference."""
LOOP, REPEATS, LONGEST_UNIT = 100, 4, 50
"""An answer in which a unit of at most 50 characters repeats at least 4 times over at least 100 characters, up to its
end, is a loop of the model. It is not given to computer algebra, whose parser may take seconds for it."""

EXTRACTORS: Mapping[str, Callable[[str], str | None]] = {
    "boxed": extract.boxed,
    "last_number": extract.last_number,
    "exact": extract.whole,
}
"""Mode -> function from a completion to its final answer. Answers of mode "exact" are compared as texts, the others
mathematically."""


def score(
    completions: Sequence[str], solutions: Sequence[Any], mode: str = "boxed", *, verifier: Verifier | None = None
) -> list[float | None]:
    """[n] 1 for a right final answer, 0 for a wrong or missing one, None without a usable solution.

    An answer on which the comparison hangs, crashes or runs out of memory is wrong: if it were unscorable, a policy
    could leave the graded part of its group that way. An answer that equals the reference as a text or a number is
    right without that comparison. A solution is not usable if it is missing, or if the comparison cannot parse it.

    Args:
        completions: n texts.
        solutions: n texts or numbers, from which the reference answers are read (see `solutions.reference`).
        mode: how the final answer is read, a key of `EXTRACTORS`.
        verifier: the pool of processes. Default: that of this process.

    Raises InputError for an unknown mode, DataError for a solution that is neither a text nor a number,
    MissingPackageError (an ImportError) if math-verify is needed and not installed.
    """
    answers = [final_answer(text, mode) for text in completions]
    references = _references(solutions, mode)
    verdicts = compare(references, answers, mode, verifier=verifier)
    return [None if verdict is None else float(verdict) for verdict in verdicts]


def final_answer(completion: str, mode: str) -> str | None:
    """The final answer; None without one."""
    if mode not in EXTRACTORS:
        raise InputError(f"mode is {mode!r}; expected {', '.join(EXTRACTORS)}")
    return EXTRACTORS[mode](completion) or None


def reference_answer(solution: Any, mode: str) -> str | None:
    """The reference answer of a solution; None without one."""
    return text_of(solution) if mode == "exact" else reference(solution)


def compare(
    references: Sequence[str | None], answers: Sequence[str | None], mode: str, *, verifier: Verifier | None = None
) -> list[bool | None]:
    """[n] whether each answer equals its reference; None without a usable reference."""
    verdicts: list[bool | None] = []
    hard: dict[int, tuple[str, str]] = {}
    for place, (known, given) in enumerate(zip(references, answers, strict=True)):
        if known is None or given is None:
            verdicts.append(None if known is None else False)
            continue
        pair = _comparable(known, mode), _comparable(given, mode)
        verdicts.append(_quick(*pair, mode))
        if verdicts[place] is None:
            hard[place] = pair
    for place, verdict in zip(hard, _algebra(list(hard.values()), verifier), strict=True):
        verdicts[place] = None if verdict is Verdict.REFERENCE else verdict is Verdict.EQUAL
        if verdict is Verdict.REFERENCE:
            logger.warning("the solution %.80r cannot be parsed; its completions are not scored", hard[place][0])
    return verdicts


def classes(
    groups: Sequence[Sequence[str]],
    mode: str,
    *,
    algebra: Sequence[bool] | None = None,
    verifier: Verifier | None = None,
) -> list[list[int]]:
    """The class of each answer in each group: equivalent answers share a number, counted by first appearance.

    Answers are compared in both orders, and equivalence is made transitive, so that the classes do not depend on the
    order of the answers. In groups whose `algebra` is False, only the quick comparison merges answers.
    """
    texts = [[_comparable(answer, mode) for answer in group] for group in groups]
    equal: list[list[tuple[str, str]]] = [[] for _ in groups]
    hard: list[tuple[int, tuple[str, str]]] = []
    for place, group in enumerate(texts if mode != "exact" else ()):
        distinct = list(dict.fromkeys(group))
        for pair in ((first, second) for i, second in enumerate(distinct) for first in distinct[:i]):
            same = _quick(*pair, mode)
            if same:
                equal[place].append(pair)
            elif same is None and (algebra is None or algebra[place]):
                hard.append((place, pair))
    verdicts = _algebra([pair for _, pair in hard], verifier, both_ways=True)
    for (place, pair), verdict in zip(hard, verdicts, strict=True):
        if verdict is Verdict.EQUAL:
            equal[place].append(pair)
    return [_components(group, pairs) for group, pairs in zip(texts, equal, strict=True)]


def _references(solutions: Sequence[Any], mode: str) -> list[str | None]:
    """The reference answer of each solution. Raises DataError with the place of an unusable solution."""
    answers: list[str | None] = []
    for place, solution in enumerate(solutions):
        try:
            answers.append(reference_answer(solution, mode))
        except DataError as error:
            raise DataError(f"the solution at position {place} of {len(solutions)} cannot be used: {error}") from None
    return answers


def _comparable(answer: str, mode: str) -> str:
    """The form in which answers are compared."""
    text = extract.whole(answer)
    return text if mode == "exact" else cleaned(text)


def _too_long(reference: str, answer: str) -> bool:
    """Whether an answer is too long for all comparisons but that of the texts."""
    shorter, longer = sorted((len(reference), len(answer)))
    return longer > min(LONGEST, LONGER[0] + LONGER[1] * shorter)


def _is_loop(text: str) -> bool:
    for unit in range(1, LONGEST_UNIT + 1):
        size = max(LOOP, REPEATS * unit)
        # the last unit may be cut off, or followed by a few other characters
        for end in (text[-size:], text[-size - LONGEST_UNIT : -LONGEST_UNIT]):
            if len(end) == size and end[unit:] == end[:-unit]:
                return True
    return False


def _components(texts: Sequence[str], equal: Sequence[tuple[str, str]]) -> list[int]:
    """Numbers of the connected components, by first appearance."""
    root = {text: text for text in texts}

    def find(text: str) -> str:
        while root[text] != text:
            text = root[text]
        return text

    for first, second in equal:
        root[find(second)] = find(first)
    names: dict[str, int] = {}
    return [names.setdefault(find(text), len(names)) for text in texts]


def _quick(reference: str, answer: str, mode: str) -> bool | None:
    """The verdict without computer algebra; None if only that can decide."""
    if reference == answer:
        return True
    if mode == "exact" or _too_long(reference, answer):
        return False
    verdict = quick_verdict(reference, answer)
    return False if verdict is None and (_is_loop(reference) or _is_loop(answer)) else verdict


def _algebra(pairs: list[tuple[str, str]], verifier: Verifier | None, both_ways: bool = False) -> list[Verdict]:
    if not pairs:
        return []
    forms = [scientific(*comparable(*pair)) for pair in pairs]
    return (verifier or shared_verifier()).compare(forms, both_ways=both_ways)
