"""Any number of synthetic prompts. The number of a prompt determines its text, embedding and success probability."""

from __future__ import annotations

import numpy as np

from viprl.features.encoders import Concatenated, Length

COLUMNS = 384
ROLLOUTS = 8


class Synthetic:
    """Unit vectors like those of a sentence embedding: with 64 relevant directions, and with similar prompts."""

    name = f"synthetic-{COLUMNS}"

    def __init__(self) -> None:
        self._mix = np.random.default_rng(1).normal(size=(64, COLUMNS)).astype(np.float32)

    def encode(self, texts: list[str]) -> np.ndarray:
        words = [text.split()[1] for text in texts]
        numbers = np.array([int(word) if word.isdecimal() else 0 for word in words])  # VIP also asks with other texts
        waves = np.sin((numbers[:, None] + 1.0) * (np.arange(64) + 1.7)).astype(np.float32)
        vectors = waves @ self._mix
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def features() -> Concatenated:
    """The same columns as "minilm+length"."""
    return Concatenated(Synthetic(), Length(scale=0.3, centre=(5.0, 3.5)))


def prompts(numbers: np.ndarray) -> list[str]:
    return [f"Problem {number} asks for the value of x, where x is a number. Show each step." for number in numbers]


def probability(numbers: np.ndarray) -> np.ndarray:
    """[Q] success probabilities with a U-shaped distribution, as in real runs."""
    return 1 / (1 + np.exp(-6 * np.sin(numbers * 12.9898)))


def rewards(numbers: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> list[list[float]]:
    """[Q] lists of random rewards, `counts` [Q] of each prompt."""
    successes = rng.binomial(counts, probability(numbers)).tolist()
    return [[1.0] * k + [0.0] * (n - k) for k, n in zip(successes, counts.tolist(), strict=True)]


def outcomes(numbers: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """[Q] random successes of `ROLLOUTS` rollouts, and [Q] rollouts."""
    n = np.full(len(numbers), float(ROLLOUTS))
    return rng.binomial(ROLLOUTS, probability(numbers)).astype(float), n
