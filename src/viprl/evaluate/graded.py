"""Graded completions: which are right, and which wrong ones give the same answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from viprl.evaluate.generations import Generations
from viprl.rewards.grading.answers import classes, compare, final_answer, reference_answer
from viprl.rewards.grading.verifier import Verifier


@dataclass(frozen=True)
class Graded:
    """One problem with its graded completions."""

    id: str
    answer: str
    correct: tuple[bool, ...]
    """[n]"""
    wrong: tuple[tuple[str, int], ...]
    """Classes of equivalent wrong answers, largest first: the first text, and the number of completions."""
    unreadable: int
    """Completions without an answer."""
    truncated: int
    scorable: bool = True
    """False if the answer of the problem could be compared with none of the completions."""

    @property
    def majority(self) -> str | None:
        """The answer with most votes (in a tie the right one); None without any vote."""
        right = sum(self.correct)
        if self.wrong and self.wrong[0][1] > right:
            return self.wrong[0][0]
        return self.answer if right else None


def grade(problems: Sequence[Generations], mode: str, *, verifier: Verifier | None = None) -> list[Graded]:
    """Compare every completion with the answer of its problem.

    Args:
        problems: with their completions.
        mode: how final answers are read, a key of `viprl.rewards.grading.answers.EXTRACTORS`.
        verifier: see `viprl.rewards.grading.answers.score`.
    """
    answers = [[final_answer(text, mode) for text in problem.completions] for problem in problems]
    references = [reference_answer(problem.answer, mode) for problem in problems]
    flat = [(known, given) for known, group in zip(references, answers, strict=True) for given in group]
    flat_verdicts = iter(compare([known for known, _ in flat], [given for _, given in flat], mode, verifier=verifier))
    verdicts = [[next(flat_verdicts) for _ in group] for group in answers]
    correct = [[bool(verdict) for verdict in group] for group in verdicts]
    wrong = [
        [given for given, right in zip(group, flags, strict=True) if given is not None and not right]
        for group, flags in zip(answers, correct, strict=True)
    ]
    # If no completion is right, the majority is wrong whichever wrong answers are equivalent: no algebra is needed.
    labels = classes(wrong, mode, algebra=[any(flags) for flags in correct], verifier=verifier)
    votes = map(_votes, wrong, labels)
    graded = []
    for problem, group, judged, flags, counts in zip(problems, answers, verdicts, correct, votes, strict=True):
        unreadable = sum(given is None for given in group)
        scorable = None not in judged or judged.count(None) < len(group) - unreadable
        graded.append(Graded(problem.id, problem.answer, tuple(flags), counts, unreadable, problem.truncated, scorable))
    return graded


def _votes(answers: Sequence[str], labels: Sequence[int]) -> tuple[tuple[str, int], ...]:
    """The first text and the size of each class, largest first."""
    names = {label: text for text, label in reversed(list(zip(answers, labels, strict=True)))}
    return tuple((names[label], count) for label, count in Counter(labels).most_common())
