"""Pass@k, Mean@k and Maj@k of graded problems: for each problem, and over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from viprl.analysis.statistics import Estimate
from viprl.errors import DataError, InputError
from viprl.evaluate.generations import seed_of
from viprl.evaluate.graded import Graded
from viprl.evaluate.pass_at_k import maj_at_k, over_problems, pass_at_k


@dataclass(frozen=True)
class Scores:
    """Each metric at each k, over problems and for each problem."""

    n: int
    """Completions of a problem."""
    metrics: dict[str, dict[int, Estimate]]
    """"pass@k", "mean@k", "maj@k" -> k -> mean over problems with its interval."""
    problems: list[dict[str, Any]]
    """A row for each problem: id, answer, n, correct, unreadable, truncated, classes, majority, mean, pass@k, maj@k."""
    unscorable: tuple[str, ...] = ()
    """Ids of problems that are left out, because their answer cannot be compared with completions."""


def scores(graded: Sequence[Graded], ks: Sequence[int], seed: int, *, votes: bool = True) -> Scores:
    """The metrics of graded problems, with 95 % intervals over problems.

    Args:
        graded: problems with the same number n of completions.
        ks: numbers of completions, see `chosen_ks`.
        seed: of the subsets that `maj_at_k` draws, and of the intervals.
        votes: False if completions have no answers that could be counted; then there is no maj@k.

    Raises InputError for a k out of range, DataError if no problem is scorable.
    """
    n = len(graded[0].correct)
    unscorable = tuple(problem.id for problem in graded if not problem.scorable)
    graded = [problem for problem in graded if problem.scorable]
    if not graded:
        raise DataError(
            f"none of the {len(unscorable)} problems is scorable: their answers cannot be parsed; check them, or set "
            "another --verify"
        )
    rows, values = [], np.zeros((len(graded), 3, len(ks)))
    for place, problem in enumerate(graded):
        c, rng = sum(problem.correct), np.random.default_rng(seed_of(seed, problem.id))
        for j, k in enumerate(ks):
            counts = [count for _, count in problem.wrong]
            maj = maj_at_k(c, counts, problem.unreadable, k, rng) if votes else 0.0
            values[place, :, j] = pass_at_k(n, c, k), c / n, maj
        row = {
            "id": problem.id, "answer": problem.answer, "n": n, "correct": c, "unreadable": problem.unreadable,
            "truncated": problem.truncated,
        }  # fmt: skip
        if votes:
            row |= {"classes": len(problem.wrong) + (c > 0), "majority": problem.majority}
        row["mean"] = c / n
        for m, name in ((0, "pass"), (2, "maj"))[: 1 + votes]:
            row |= {f"{name}@{k}": float(values[place, m, j]) for j, k in enumerate(ks)}
        rows.append(row)
    estimates = iter(over_problems(values.reshape(len(graded), -1), np.random.default_rng(seed)))
    metrics = {name: {k: next(estimates) for k in ks} for name in ("pass@k", "mean@k", "maj@k")}
    if not votes:
        del metrics["maj@k"]
    return Scores(n, metrics, rows, unscorable)


def chosen_ks(ks: Sequence[int] | None, n: int) -> Sequence[int]:
    """`ks`, or 1, 2, 4, ... and n. Raises InputError unless they are different whole numbers from 1 to n."""
    ks = ks or sorted({*(2**i for i in range(n.bit_length())), n})
    if len(set(ks)) != len(ks):
        raise InputError(f"k is {', '.join(map(str, ks))}; expected different whole numbers")
    for k in ks:
        if not 1 <= k <= n:
            raise InputError(f"k is {k}; expected 1 <= k <= {n}, the number of completions of a problem")
    return ks
