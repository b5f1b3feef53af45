"""Word problems of graded difficulty, and their reward.

A level is a kind of arithmetic with a size of numbers: from sums of digits, which a small model solves, to products of
two-digit numbers, which it does not solve. All problems of a set are distinct.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from viprl.errors import InputError
from viprl.rewards.built_in import completion_text

NAMES = ("Tom", "Ann", "Ben", "Mia", "Sam", "Eva")
THINGS = ("apples", "coins", "books", "pens", "cards", "eggs")
NUMBER = re.compile(r"-?\d+")


@dataclass(frozen=True)
class Level:
    """One level of difficulty."""

    wording: str
    """Text with {name}, {things}, {x} and {y}; it ends in a space, and the answer follows."""
    answer: Callable[[int, int], int]
    x: tuple[int, int]
    """Smallest and largest first number."""
    y: tuple[int, int]
    """Smallest and largest second number."""


def _sum(x: int, y: int) -> int:
    return x + y


def _difference(x: int, y: int) -> int:
    return x - y


def _product(x: int, y: int) -> int:
    return x * y


_BUYS = "{name} has {x} {things} and buys {y} more. How many now? "
_LOSES = "{name} has {x} {things} and loses {y}. How many now? "
_BOXES = "{name} has {x} boxes of {y} {things}. How many in all? "

LEVELS: Mapping[str, Level] = {
    "add_1": Level(_BUYS, _sum, (2, 9), (2, 9)),
    "add_2_1": Level(_BUYS, _sum, (11, 89), (2, 9)),
    "add_2": Level(_BUYS, _sum, (11, 89), (11, 89)),
    "subtract_2_1": Level(_LOSES, _difference, (10, 19), (2, 9)),
    "subtract_2": Level(_LOSES, _difference, (51, 98), (11, 49)),
    "multiply_1": Level(_BOXES, _product, (2, 9), (2, 9)),
    "multiply_2_1": Level(_BOXES, _product, (12, 49), (3, 9)),
    "multiply_2": Level(_BOXES, _product, (13, 39), (13, 39)),
}


@dataclass(frozen=True)
class Problem:
    """A prompt with its answer."""

    id: str
    prompt: str
    solution: str
    level: str


def sample_problems(n: int, rng: np.random.Generator) -> list[Problem]:
    """n problems in random order, with random names and things. Each level has the same number of problems, within one.

    Two problems of a level have different numbers, so that a held-out problem is not a training problem with other
    words. Raises InputError if a level has fewer pairs of numbers than it needs.
    """
    least = min(_pairs(level) for level in LEVELS.values())
    if not 1 <= n <= least * len(LEVELS):
        raise InputError(f"n is {n}; expected 1 to {least * len(LEVELS)}, {least} of each of the {len(LEVELS)} levels")
    names = list(LEVELS)
    problems = []
    for k, name in enumerate(names):
        share = len(range(k, n, len(names)))
        chosen = rng.choice(_pairs(LEVELS[name]), share, replace=False)
        problems += [_problem(name, int(index), rng) for index in chosen]
    return [problems[i] for i in rng.permutation(n)]


def last_number(prompts: Sequence[Any], completions: Sequence[Any], solution: Sequence[Any], **_: Any) -> list[float]:
    """Reward: 1 if the last whole number of the completion is the solution, otherwise 0."""
    found = [NUMBER.findall(completion_text(completion)) for completion in completions]
    return [
        float(bool(numbers) and int(numbers[-1]) == int(right)) for numbers, right in zip(found, solution, strict=True)
    ]


def _pairs(level: Level) -> int:
    """Number of pairs of numbers of a level."""
    return (level.x[1] - level.x[0] + 1) * (level.y[1] - level.y[0] + 1)


def _problem(name: str, index: int, rng: np.random.Generator) -> Problem:
    """Problem number `index` of a level, with random words."""
    level = LEVELS[name]
    row, column = divmod(index, level.y[1] - level.y[0] + 1)
    x, y = level.x[0] + row, level.y[0] + column
    words = {"name": NAMES[rng.integers(len(NAMES))], "things": THINGS[rng.integers(len(THINGS))]}
    prompt = level.wording.format(x=x, y=y, **words)
    return Problem(f"{name}-{x}-{y}", prompt, str(level.answer(x, y)), name)
