"""Answers scored: rewards of completions, and classes of equivalent answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from viprl.rewards.grading import extract
from viprl.rewards.grading import process as guard
from viprl.rewards.grading.plain import cleaned, quick_verdict
from viprl.rewards.grading.process import Verdict, Verifier

logger = logging.getLogger(__name__)

LONGEST = 2000
"""Characters of the longest answer that computer algebra gets to see; a longer one has to be the reference's text."""

MODES: Mapping[str, Callable[[str], str | None]] = {
    "boxed": extract.boxed,
    "last_number": extract.last_number,
    "exact": extract.whole,
}
"""Where the final answer stands in a completion. "exact" compares texts, the others mathematics."""


def score(
    completions: Sequence[str], solutions: Sequence[Any], mode: str = "boxed", *, verifier: Verifier | None = None
) -> list[float | None]:
    """[n] 1 for a right final answer, 0 for a wrong or missing one, None where there is nothing to compare with.

    An answer that breaks its checker (it hangs, crashes or needs too much memory) is wrong, so that a policy cannot
    leave the graded part of its group by breaking it; one that equals the reference as text or as a number never gets
    that far. None is for a missing solution, and for one that itself breaks the checker or means nothing to it.

    Raises ValueError for an unknown mode and for solutions that are neither text nor number; ImportError without
    math-verify, once it is needed.
    """
    answers = [final_answer(text, mode) for text in completions]
    verdicts = compare([reference(given, mode) for given in solutions], answers, mode, verifier=verifier)
    return [None if verdict is None else float(verdict) for verdict in verdicts]


def final_answer(completion: str, mode: str) -> str | None:
    """The final answer, None where there is none to read."""
    if mode not in MODES:
        raise ValueError(f"the mode is {mode!r}; expected {', '.join(MODES)}")
    return MODES[mode](completion) or None


def reference(solution: Any, mode: str) -> str | None:
    """The answer that a solution gives, None where it gives none."""
    answer = extract.reference(solution) if mode != "exact" else solution
    return None if answer is None or answer != answer else str(answer)


def compare(
    references: Sequence[str | None], answers: Sequence[str | None], mode: str, *, verifier: Verifier | None = None
) -> list[bool | None]:
    """[n] whether each answer is right; None without a usable reference."""
    verdicts: list[bool | None] = []
    hard: dict[int, tuple[str, str]] = {}
    for place, (known, given) in enumerate(zip(references, answers, strict=True)):
        if known is None or given is None:
            verdicts.append(None if known is None else False)
        elif mode == "exact":
            verdicts.append(extract.whole(known) == given)
        else:
            pair = cleaned(known), cleaned(given)
            verdicts.append(_cheap(*pair))
            if verdicts[place] is None:
                hard[place] = pair
    for place, verdict in zip(hard, _algebra(list(hard.values()), verifier), strict=True):
        verdicts[place] = None if verdict is Verdict.REFERENCE else verdict is Verdict.EQUAL
        if verdict is Verdict.REFERENCE:
            logger.warning("the solution %.80r cannot be understood: completions are not graded", hard[place][0])
    return verdicts


def classes(
    groups: Sequence[Sequence[str]], mode: str, *, algebra: bool = True, verifier: Verifier | None = None
) -> list[list[int]]:
    """For each group of answers the class of each, numbered by first appearance: equivalent answers share one.

    Equivalence is asked in both directions and made transitive, so the classes do not depend on the answers' order.
    Without `algebra` only what the cheap comparison sees is merged.
    """
    texts = [[extract.whole(answer) if mode == "exact" else cleaned(answer) for answer in group] for group in groups]
    equal: list[list[tuple[str, str]]] = [[] for _ in groups]
    hard: list[tuple[int, tuple[str, str]]] = []
    for place, group in enumerate(texts if mode != "exact" else ()):
        distinct = list(dict.fromkeys(group))
        for pair in ((first, second) for i, second in enumerate(distinct) for first in distinct[:i]):
            same = _cheap(*pair)
            if same is None:
                hard.append((place, pair))
            elif same:
                equal[place].append(pair)
    hard = hard if algebra else []
    verdicts = _algebra([pair for _, pair in hard], verifier, both_ways=True)
    for (place, pair), verdict in zip(hard, verdicts, strict=True):
        if verdict is Verdict.EQUAL:
            equal[place].append(pair)
    return [_components(group, pairs) for group, pairs in zip(texts, equal, strict=True)]


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


def _cheap(reference: str, answer: str) -> bool | None:
    """The quick verdict; what is too long for algebra is different."""
    verdict = quick_verdict(reference, answer)
    return False if verdict is None and max(len(reference), len(answer)) > LONGEST else verdict


def _algebra(pairs: list[tuple[str, str]], verifier: Verifier | None, both_ways: bool = False) -> list[Verdict]:
    if not pairs:
        return []
    return (verifier or guard.shared()).compare(pairs, both_ways=both_ways)
