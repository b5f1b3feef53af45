"""An encoder for tests, and the precision of the cache."""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np

from viprl.features.cache import FeatureCache

TEXTS = [f"prompt {number}" for number in range(12)]


class Toy:
    """Vectors that depend on the text and the salt alone. Remembers the texts that it encoded."""

    def __init__(self, salt: str = "", columns: int = 4) -> None:
        self.name, self.columns = f"toy{salt}", columns
        self.asked: list[str] = []

    def encode(self, texts: list[str]) -> np.ndarray:
        self.asked += texts
        seeds = [zlib.crc32((self.name + text).encode("utf-8", "surrogatepass")) for text in texts]
        rows = [np.random.default_rng(seed).normal(size=self.columns) for seed in seeds]
        return np.array(rows).astype(np.float32)


def rounded(vectors: np.ndarray) -> np.ndarray:
    """Vectors with the precision of the cache: float16, relative to a power of two for each vector."""
    rows = []
    for row in vectors.astype(np.float64):
        scale = 2.0 ** math.frexp(max(map(abs, row)))[1]
        rows.append((row / scale).astype(np.float16).astype(np.float64) * scale)
    return np.array(rows)


def fresh(texts: list[str], salt: str = "", columns: int = 4) -> np.ndarray:
    """What the cache returns for a `Toy`."""
    return rounded(Toy(salt, columns).encode(texts))


def encoded(folder: Path, texts: list[str] = TEXTS, salt: str = "", columns: int = 4) -> list[str]:
    """The texts that a new cache on the folder encodes. All its vectors are right."""
    toy = Toy(salt, columns)
    np.testing.assert_array_equal(FeatureCache(toy, folder)(texts), fresh(texts, salt, columns))
    return toy.asked


def keys_file(folder: Path) -> Path:
    (file,) = folder.glob("*.keys")
    return file
