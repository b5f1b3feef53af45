"""Word tasks for the tiny language model: twelve kinds of letter puzzles, written as short sentences.

A *cell* is a pair (kind, length). Each cell has a systematic mistake (another transformation of the same letters) and
a share of right answers in the supervised corpus. A model that has learned the corpus is almost always wrong in some
cells and almost always right in others: its success probabilities are U-shaped, as late in reinforcement learning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from viprl.errors import InputError

LETTERS = "abcdefghij"
"""Letters of the puzzles; the letters of one prompt are distinct."""

LENGTHS = (3, 4, 5, 6)
"""Numbers of letters in a prompt. A kind with fewer shares than lengths stops earlier (`double`: 3 to 5)."""

Group = Literal["live", "solved", "out_of_reach"]

POOL_SHARES: Mapping[Group, float] = {"live": 0.25, "solved": 0.35, "out_of_reach": 0.40}
"""Shares of the groups in the training and held-out problems."""


@dataclass(frozen=True)
class Kind:
    """One kind of puzzle."""

    wordings: tuple[str, str]
    """Two sentences that ask for the same thing."""
    mistake: str
    """The systematic mistake: what the corpus shows instead of the right answer; a key of `_EDITS`."""
    right_shares: tuple[float, ...]
    """Share of right answers in the supervised corpus, in [0, 1], for each length of `LENGTHS`."""

    def right_share(self, length: int) -> float:
        """Share of right answers among the corpus examples with `length` letters."""
        return self.right_shares[LENGTHS.index(length)]


@dataclass(frozen=True)
class Problem:
    """A prompt with its right answer."""

    id: str
    """Kind, wording and letters."""
    prompt: str
    """The text that the model reads; the answer follows it directly."""
    solution: str
    """The right answer, words separated by single spaces."""
    kind: str
    """Key of `KINDS`."""
    length: int
    """Number of letters in the prompt."""


_EDITS: Mapping[str, Callable[[str], str]] = {
    "copy": lambda word: word,
    "reverse": lambda word: word[::-1],
    "sort": lambda word: "".join(sorted(word)),
    "descending": lambda word: "".join(sorted(word, reverse=True)),
    "first": lambda word: word[0],
    "last": lambda word: word[-1],
    "max": max,
    "min": min,
    "length": lambda word: str(len(word)),
    "one_more": lambda word: str(len(word) + 1),
    "next": lambda word: "".join(LETTERS[(LETTERS.index(letter) + 1) % len(LETTERS)] for letter in word),
    "swap": lambda word: word[-1] + word[1:-1] + word[0],
    "double": lambda word: "".join(letter * 2 for letter in word),
}
"""What can be done with the letters of a prompt."""

RARE = 0.005
"""Share of right answers in the cells that are out of reach."""

KINDS: Mapping[str, Kind] = {
    "reverse": Kind(("reverse the letters", "write backwards"), "copy", (0.5, RARE, RARE, RARE)),
    "sort": Kind(("sort the letters", "put in alphabetical order"), "descending", (1, 0.8, 0.7, 0.5)),
    "descending": Kind(("sort in descending order", "order high to low"), "sort", (1, 0.8, 0.6, 0.4)),
    "first": Kind(("give the first letter", "which letter comes first"), "last", (1,) * 4),
    "last": Kind(("give the last letter", "which letter comes last"), "min", (0.9, 0.8, 0.6, 0.4)),
    "max": Kind(("give the maximum", "which letter is largest"), "min", (1, 0.7, 0.5, 0.2)),
    "min": Kind(("give the minimum", "which letter is smallest"), "max", (1, 1, 0.8, 0.3)),
    "length": Kind(("count the letters", "how many letters"), "one_more", (1, 1, 0.7, RARE)),
    "copy": Kind(("copy the letters", "repeat the same letters"), "sort", (0.9, 0.8, 0.6, 0.4)),
    "next": Kind(("give the next letters", "shift by one letter"), "sort", (RARE,) * 4),
    "swap": Kind(("swap the ends", "exchange first and last"), "copy", (0.5, RARE, RARE, RARE)),
    "double": Kind(("double the letters", "write each letter twice"), "descending", (RARE,) * 3),
}


def cells() -> list[tuple[str, int]]:
    """All pairs (kind, length)."""
    return [
        (name, length) for name, kind in KINDS.items() for length, _ in zip(LENGTHS, kind.right_shares, strict=False)
    ]


def answers(kind: str, word: str) -> tuple[str, str]:
    """The right answer to a puzzle and the systematic mistake."""
    return _EDITS[kind](word), _EDITS[KINDS[kind].mistake](word)


def group_of(kind: str, length: int) -> Group | None:
    """Group of a cell after the supervised start, by its share of right answers; None if it is in no group."""
    share = KINDS[kind].right_share(length)
    if share == 1:
        return "solved"
    if share <= RARE:
        return "out_of_reach"
    return "live" if 0.1 <= share <= 0.9 else None


def vocabulary() -> list[str]:
    """All words of prompts and answers, sorted."""
    words = {word for kind in KINDS.values() for wording in kind.wordings for word in wording.split()}
    digits = {str(length + extra) for length in LENGTHS for extra in (0, 1)}
    return sorted(words | digits | set(LETTERS) | {":", "="})


def _draw(kind: str, length: int, rng: np.random.Generator) -> tuple[Problem, str]:
    """A random problem of the cell and the systematic mistake's answer to it (never the right answer)."""
    solution = mistake = ""
    while solution == mistake:
        word = "".join(LETTERS[i] for i in rng.permutation(len(LETTERS))[:length])
        solution, mistake = answers(kind, word)
    wording = int(rng.integers(2))
    prompt = f"{KINDS[kind].wordings[wording]} : {' '.join(word)} ="
    return Problem(f"{kind}-{wording}-{word}", prompt, " ".join(solution), kind, length), " ".join(mistake)


def _draw_distinct(
    chosen: Sequence[tuple[str, int]], n: int, rng: np.random.Generator, taken: set[str]
) -> list[Problem]:
    """`n` problems from the cells in turn, without those whose id is in `taken`; their ids are added to `taken`."""
    order = rng.permutation(len(chosen))
    problems: list[Problem] = []
    failures = 0
    while len(problems) < n:
        kind, length = chosen[order[len(problems) % len(chosen)]]
        problem, _ = _draw(kind, length, rng)
        if problem.id in taken:
            failures += 1
            if failures > 1000 + 20 * n:
                raise InputError(f"found fewer than {n} distinct prompts in the cells {list(chosen)}; lower the number")
            continue
        taken.add(problem.id)
        problems.append(problem)
    return problems


def late_rl_pool(
    rng: np.random.Generator, n: int = 1024, held_out: int = 256, shares: Mapping[Group, float] = POOL_SHARES
) -> tuple[list[Problem], list[Problem]]:
    """`n` training problems and `held_out` problems, like a data set late in reinforcement learning.

    No prompt is in both. Each has the groups of `group_of` in the given shares, which sum to 1.
    """
    taken: set[str] = set()
    pools: list[list[Problem]] = []
    for size in (n, held_out):
        # Cumulative rounding: each group differs from its share by less than one problem.
        edges = np.rint(np.cumsum([0.0, *shares.values()]) * size).astype(int)
        pool: list[Problem] = []
        for group, count in zip(shares, np.diff(edges), strict=True):
            members = [cell for cell in cells() if group_of(*cell) == group]
            pool += _draw_distinct(members, int(count), rng, taken)
        pools.append([pool[i] for i in rng.permutation(size)])
    return pools[0], pools[1]


def supervised_corpus(n: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """`n` pairs (prompt, answer) for the supervised start: right answers and mistakes in the shares of each cell."""
    everything = cells()
    pairs = []
    for cell in rng.integers(len(everything), size=n):
        kind, length = everything[cell]
        problem, mistake = _draw(kind, length, rng)
        right = rng.random() < KINDS[kind].right_share(length)
        pairs.append((problem.prompt, problem.solution if right else mistake))
    return pairs
