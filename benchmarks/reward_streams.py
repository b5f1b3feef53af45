"""Simulated rewards of many kinds. The law of each prompt's rewards is known and moves a little at every step.

A third of the prompts are nearly always wrong, a third nearly always right, and the others live, as late in a run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.numerics import expit


class Stream(ABC):
    """Rewards of `prompts` prompts.

    Args:
        prompts: N.
        rng: draws the pool and its movement.
    """

    def __init__(self, prompts: int, rng: np.random.Generator) -> None:
        self.rng = rng
        settled = np.where(rng.random(prompts) < 0.5, -6.0, 6.0) + rng.normal(0, 0.5, prompts)
        self.right = np.where(rng.random(prompts) < 2 / 3, settled, rng.normal(0, 1.2, prompts))  # logit of success
        self.form = rng.normal(1.0, 2.0, prompts)  # logit of a second quality, such as the right format
        self.level = rng.normal(0, 2, prompts)  # of scores
        self.log_deviation = rng.normal(-1, 1.2, prompts)

    def move(self) -> None:
        """One step of training."""
        n, rate = len(self.right), 4 * expit(self.right) * expit(-self.right)
        self.right += rate * self.rng.normal(0.05, 0.3, n)
        self.form += self.rng.normal(0.02, 0.1, n)
        self.log_deviation += self.rng.normal(0, 0.05, n)

    @abstractmethod
    def draw(self, prompts: IntArray, rng: np.random.Generator) -> FloatArray:
        """One reward for each entry of `prompts`, the numbers of prompts."""

    @abstractmethod
    def variance(self) -> FloatArray:
        """[N] the variance of each prompt's reward now."""


class Discrete(Stream):
    """Rewards with a few values."""

    values: tuple[float, ...]

    @abstractmethod
    def law(self, right: FloatArray, form: FloatArray) -> list[FloatArray]:
        """The probability of each value, from the probabilities of a right answer and of the right format."""

    def _law(self) -> FloatArray:
        return np.array(self.law(expit(self.right), expit(self.form)))  # [values, N]

    def draw(self, prompts: IntArray, rng: np.random.Generator) -> FloatArray:
        edges = np.cumsum(self._law(), axis=0)[:-1, prompts]
        return np.array(self.values)[(rng.random(len(prompts)) > edges).sum(axis=0)]

    def variance(self) -> FloatArray:
        law, values = self._law(), np.array(self.values)
        return values**2 @ law - (values @ law) ** 2


class Binary(Discrete):
    """1 for a right answer, otherwise 0."""

    values = (0.0, 1.0)

    def law(self, right: FloatArray, form: FloatArray) -> list[FloatArray]:
        return [1 - right, right]


class FormatCredit(Discrete):
    """1 for a right answer, .1 for the right format alone."""

    values = (0.0, 0.1, 1.0)

    def law(self, right: FloatArray, form: FloatArray) -> list[FloatArray]:
        return [(1 - right) * (1 - form), (1 - right) * form, right]


class TwoFunctions(Discrete):
    """A right answer with weight 1 and the right format with weight .3, independent of each other."""

    values = (0.0, 0.3, 1.0, 1.3)

    def law(self, right: FloatArray, form: FloatArray) -> list[FloatArray]:
        return [(1 - right) * (1 - form), (1 - right) * form, right * (1 - form), right * form]


class Penalty(Discrete):
    """1 for a right answer, -.5 for a text that is cut off."""

    values = (-0.5, 0.0, 1.0)

    def law(self, right: FloatArray, form: FloatArray) -> list[FloatArray]:
        cut = 0.2 * (1 - form)
        return [cut, (1 - cut) * (1 - right), (1 - cut) * right]


class NoisyVerifier(Discrete):
    """Binary, but a verifier misses 10 % of the right answers and passes 1 % of the wrong ones."""

    values = (0.0, 1.0)

    def law(self, right: FloatArray, form: FloatArray) -> list[FloatArray]:
        passed = 0.9 * right + 0.01 * (1 - right)
        return [1 - passed, passed]


class Tenths(Stream):
    """Ten criteria, each met with the same probability."""

    def draw(self, prompts: IntArray, rng: np.random.Generator) -> FloatArray:
        return rng.binomial(10, expit(self.right[prompts])) / 10

    def variance(self) -> FloatArray:
        p = expit(self.right)
        return p * (1 - p) / 10


class UnitTests(Stream):
    """The share of 8 unit tests: all of a right program, otherwise often none, sometimes some."""

    def draw(self, prompts: IntArray, rng: np.random.Generator) -> FloatArray:
        some = rng.random(len(prompts)) < 0.3 * expit(self.form[prompts])
        partial = some * rng.binomial(8, 0.4, len(prompts)) / 8
        return np.where(rng.random(len(prompts)) < expit(self.right[prompts]), 1.0, partial)

    def variance(self) -> FloatArray:
        p, some = expit(self.right), 0.3 * expit(self.form)
        mean = p + (1 - p) * some * 0.4
        return p + (1 - p) * some * (0.4 * 0.6 / 8 + 0.16) - mean**2


class LengthPenalty(Stream):
    """1 for a right answer, less a number between 0 and .1 for the length: hardly two rewards are equal."""

    def draw(self, prompts: IntArray, rng: np.random.Generator) -> FloatArray:
        return (rng.random(len(prompts)) < expit(self.right[prompts])) - 0.1 * rng.random(len(prompts))

    def variance(self) -> FloatArray:
        p = expit(self.right)
        return p * (1 - p) + 0.01 / 12


class Scores(Stream):
    """A reward model's scores: Gaussian, with a mean and a deviation of each prompt."""

    def draw(self, prompts: IntArray, rng: np.random.Generator) -> FloatArray:
        return rng.normal(self.level[prompts], np.exp(self.log_deviation[prompts]))

    def variance(self) -> FloatArray:
        return np.exp(2 * self.log_deviation)


class MovingScores(Scores):
    """Scores whose mean rises quickly while their deviations stay."""

    def move(self) -> None:
        super().move()
        self.level += 1.0


class HeavyTails(Scores):
    """Scores with the tails of Student's t with 4 degrees of freedom."""

    def draw(self, prompts: IntArray, rng: np.random.Generator) -> FloatArray:
        return self.level[prompts] + np.exp(self.log_deviation[prompts]) * rng.standard_t(4, len(prompts))

    def variance(self) -> FloatArray:
        return 2 * super().variance()


class Constant(Stream):
    """Always the same."""

    def draw(self, prompts: IntArray, rng: np.random.Generator) -> FloatArray:
        return np.full(len(prompts), 0.7)

    def variance(self) -> FloatArray:
        return np.zeros(len(self.right))


class BinaryThenCredit(FormatCredit):
    """Binary for 20 steps, then with format credit."""

    steps = 0

    def move(self) -> None:
        super().move()
        self.steps += 1

    def law(self, right: FloatArray, form: FloatArray) -> list[FloatArray]:
        return super().law(right, form if self.steps > 20 else np.zeros_like(form))


class Alike(Binary):
    """Binary, and all prompts are equally hard: no allocation is better than uniform."""

    def __init__(self, prompts: int, rng: np.random.Generator) -> None:
        super().__init__(prompts, rng)
        self.right[:] = -0.8

    def move(self) -> None:
        """Nothing changes."""


class AlikeScores(Scores):
    """Scores of the same deviation for all prompts."""

    def __init__(self, prompts: int, rng: np.random.Generator) -> None:
        super().__init__(prompts, rng)
        self.log_deviation[:] = 0.0

    def move(self) -> None:
        """Nothing changes."""


STREAMS: dict[str, type[Stream]] = {
    "binary": Binary,
    "format credit": FormatCredit,
    "two functions": TwoFunctions,
    "penalty": Penalty,
    "noisy verifier": NoisyVerifier,
    "tenths": Tenths,
    "unit tests": UnitTests,
    "length penalty": LengthPenalty,
    "scores": Scores,
    "moving scores": MovingScores,
    "heavy tails": HeavyTails,
    "constant": Constant,
    "binary then credit": BinaryThenCredit,
    "alike": Alike,
    "alike scores": AlikeScores,
}
