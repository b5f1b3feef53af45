"""Which completions are right, which say the same, and what follows for each problem and for all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from viprl.evaluate.generations import Generations, seed_of
from viprl.evaluate.pass_at_k import Estimate, maj_at_k, mean_at_k, over_problems, pass_at_k
from viprl.rewards.grading.process import Verifier
from viprl.rewards.grading.score import classes, compare, final_answer, reference


@dataclass(frozen=True)
class Graded:
    """One problem with its completions understood."""

    id: str
    answer: str
    correct: tuple[bool, ...]
    """[n]"""
    wrong: tuple[tuple[str, int], ...]
    """Classes of equivalent wrong answers, most votes first: the first text seen, and the completions that say so."""
    unreadable: int
    """Completions without an answer."""
    truncated: int
    scorable: bool = True
    """False where the checker could compare none of its answers with the problem's."""

    @property
    def majority(self) -> str | None:
        """The answer with most votes (the right one where it ties with another); None without any."""
        right = sum(self.correct)
        if self.wrong and self.wrong[0][1] > right:
            return self.wrong[0][0]
        return self.answer if right else None


def grade(problems: Sequence[Generations], mode: str, *, verifier: Verifier | None = None) -> list[Graded]:
    """Every completion read in `mode` (see `viprl.rewards.grading.score.MODES`) and compared with the problem's answer."""
    answers = [[final_answer(text, mode) for text in problem.completions] for problem in problems]
    references = [reference(problem.answer, mode) for problem in problems]
    flat = [(known, given) for known, group in zip(references, answers, strict=True) for given in group]
    verdicts = iter(compare([known for known, _ in flat], [given for _, given in flat], mode, verifier=verifier))
    said = [[next(verdicts) for _ in group] for group in answers]
    correct = [[bool(verdict) for verdict in group] for group in said]
    wrong = [
        [given for given, right in zip(group, flags, strict=True) if given is not None and not right]
        for group, flags in zip(answers, correct, strict=True)
    ]
    # Where nothing is right the majority is wrong, however the wrong answers are counted.
    some = [any(flags) for flags in correct]
    merged = iter(classes([w for w, s in zip(wrong, some, strict=True) if s], mode, verifier=verifier))
    cheap = iter(classes([w for w, s in zip(wrong, some, strict=True) if not s], mode, algebra=False))
    graded = []
    for problem, group, told, flags, rest in zip(problems, answers, said, correct, wrong, strict=True):
        votes = _votes(rest, next(merged if any(flags) else cheap))
        unreadable, scorable = sum(given is None for given in group), _scorable(group, told)
        graded.append(Graded(problem.id, problem.answer, tuple(flags), votes, unreadable, problem.truncated, scorable))
    return graded


def _scorable(answers: Sequence[str | None], verdicts: Sequence[bool | None]) -> bool:
    """Whether the reference was of use: to one of the answers at least, if there was any."""
    readable = [verdict for given, verdict in zip(answers, verdicts, strict=True) if given is not None]
    return None not in verdicts or any(verdict is not None for verdict in readable)


def _votes(answers: Sequence[str], labels: Sequence[int]) -> tuple[tuple[str, int], ...]:
    names = {label: text for text, label in reversed(list(zip(answers, labels, strict=True)))}
    return tuple((names[label], count) for label, count in Counter(labels).most_common())


@dataclass(frozen=True)
class Scores:
    """Each metric at each k, over problems and for each of them."""

    n: int
    ks: tuple[int, ...]
    metrics: dict[str, dict[int, Estimate]]
    """"pass@k", "mean@k", "maj@k": by k."""
    problems: list[dict[str, Any]]
    """A row a problem: id, answer, n, correct, unreadable, truncated, classes, majority, mean, pass@k and maj@k."""
    unscorable: tuple[str, ...] = ()
    """Ids of the problems that are left out of all this: the checker cannot use their answers."""


def scores(graded: Sequence[Graded], ks: Sequence[int], seed: int) -> Scores:
    """The estimators for every scorable problem and k, their means and 95 % intervals. Raises ValueError for a k above
    n, and where no problem is scorable."""
    n = len(graded[0].correct)
    check_ks(ks, n)
    unscorable = tuple(problem.id for problem in graded if not problem.scorable)
    graded = [problem for problem in graded if problem.scorable]
    if not graded:
        raise ValueError(
            f"the checker can use none of the {len(unscorable)} problems' answers; look at them, or at how they are "
            "compared (--verify)"
        )
    rows, values = [], np.zeros((len(graded), 3, len(ks)))
    for place, problem in enumerate(graded):
        c, rng = sum(problem.correct), np.random.default_rng(seed_of(seed, problem.id))
        for j, k in enumerate(ks):
            maj = maj_at_k(c, [votes for _, votes in problem.wrong], problem.unreadable, k, rng)
            values[place, :, j] = pass_at_k(n, c, k), mean_at_k(n, c, k), maj
        row = {
            "id": problem.id, "answer": problem.answer, "n": n, "correct": c, "unreadable": problem.unreadable,
            "truncated": problem.truncated, "classes": len(problem.wrong) + (c > 0), "majority": problem.majority,
            "mean": c / n,
        }  # fmt: skip
        for m, name in ((0, "pass"), (2, "maj")):
            row |= {f"{name}@{k}": float(values[place, m, j]) for j, k in enumerate(ks)}
        rows.append(row)
    estimates = iter(over_problems(values.reshape(len(graded), -1), seed))
    metrics = {name: {k: next(estimates) for k in ks} for name in ("pass@k", "mean@k", "maj@k")}
    return Scores(n, tuple(ks), metrics, rows, unscorable)


def check_ks(ks: Sequence[int], n: int) -> None:
    """ValueError unless each k is a whole number from 1 to n, each given once."""
    if not ks or len(set(ks)) != len(ks):
        raise ValueError(f"k is {', '.join(map(str, ks)) or 'empty'}; expected different whole numbers")
    for k in ks:
        if k < 1:
            raise ValueError(f"k is {k}; k must be at least 1")
        if k > n:
            raise ValueError(
                f"k = {k} needs at least {k} completions a problem, but there are {n}; expected 1 <= k <= n"
            )
