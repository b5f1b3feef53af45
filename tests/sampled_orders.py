"""Every outcome of a systematic sample: the candidates in each order, and each interval of the random start."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np


class Scripted:
    """A generator of random numbers that answers with one order and one start."""

    def __init__(self, order: tuple[int, ...], start: float) -> None:
        self.order, self.start = order, start

    def permutation(self, n: int) -> np.ndarray:
        assert n == len(self.order)
        return np.array(self.order)

    def random(self) -> float:
        return self.start

    def integers(self, high: int) -> int:
        return 0


def scripts(pi: np.ndarray) -> Iterator[tuple[float, Scripted]]:
    """Generators that together give every sample, with their probabilities, which sum to 1.

    The sample changes where the start passes the fractional part of an end on the line.
    """
    orders = list(itertools.permutations(range(len(pi))))
    for order in orders:
        cuts = np.unique([0.0, 1.0, *(np.cumsum(pi[list(order)]) % 1)])
        for low, high in itertools.pairwise(cuts):
            if high - low > 1e-12:  # otherwise rounding
                yield (high - low) / len(orders), Scripted(order, (low + high) / 2)
