"""The feature cache with files of any bytes: the vectors are always those that the encoder computes."""

from __future__ import annotations

import hashlib
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import damaged, fuzz, or_refused
from hypothesis import strategies as st

from viprl.errors import InputError
from viprl.features.cache import FeatureCache
from viprl.features.vector_file import VectorFile


class Encoder:
    """Vectors that depend on the text alone."""

    name = "of a test"

    def encode(self, texts: list[str]) -> np.ndarray:
        words = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:3] for text in texts]
        return np.array([list(word) for word in words], dtype=float)


TEXTS = ["a", "b", "c", "ä", "\ud800", ""]


def header(columns: int) -> bytes:
    """A header that another program wrote, with the right checksum."""
    start = VectorFile.MAGIC + columns.to_bytes(4, "little")
    return start + zlib.crc32(start).to_bytes(4, "little")


def written(folder: Path) -> dict[str, bytes]:
    """The files of a sound cache."""
    for old in folder.glob("*"):
        old.unlink()
    FeatureCache(Encoder(), folder).warm(TEXTS)
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*"))}


@fuzz(data=st.data(), asked=st.lists(st.sampled_from([*TEXTS, "new"]), min_size=1, max_size=5))
def test_cache_files(tmp_path_factory: pytest.TempPathFactory, data: Any, asked: list[str]) -> None:
    folder = tmp_path_factory.getbasetemp() / "cache"
    folder.mkdir(exist_ok=True)
    for name, content in written(folder).items():
        given = st.just(content) | damaged(content) | st.binary(max_size=200)
        if name.endswith(".keys"):
            claimed = st.sampled_from([0, 1, 4, 2**16, 2**16 + 1, 2**31, 2**32 - 1])
            given |= claimed.map(lambda columns, rest=content[VectorFile.HEADER.size :]: header(columns) + rest)
        changed = data.draw(given)
        (folder / name).write_bytes(changed)
    with or_refused() as refused, warnings.catch_warnings(action="ignore"):
        found = FeatureCache(Encoder(), folder)(asked)
        again = FeatureCache(Encoder(), folder)(asked)
    if refused:  # a sound header of another encoder
        assert isinstance(refused.error, InputError)
    else:
        expected = FeatureCache(Encoder())(asked)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(again, expected)


@fuzz(texts=st.lists(st.text(max_size=4) | st.sampled_from(TEXTS), max_size=6))
def test_texts(texts: list[str]) -> None:
    found = FeatureCache(Encoder())(texts)
    expected = Encoder().encode(texts) if texts else np.empty((0, 0))
    np.testing.assert_allclose(found, expected, atol=2**-10 * max(expected.max(initial=0), 1))
