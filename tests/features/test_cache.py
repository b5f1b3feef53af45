"""The feature cache: the right vectors, each computed once, whether or not its files can be used."""

from __future__ import annotations

import functools
import os
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_encoder import TEXTS, Toy, encoded, fresh, keys_file, rounded

from viprl.errors import InputError
from viprl.features.cache import FeatureCache, Features, default_folder
from viprl.features.encoders import Concatenated, Custom, Length


def constant(value: float, texts: list[str]) -> np.ndarray:
    return np.full((len(texts), 1), value)


class TestCache:
    @pytest.mark.parametrize("on_disk", [False, True])
    def test_vectors_are_right_and_computed_once(self, tmp_path: Path, on_disk: bool) -> None:
        toy = Toy()
        cache = FeatureCache(toy, tmp_path if on_disk else None)
        for texts in (TEXTS[:5], TEXTS[3:8] * 2, TEXTS[::-1], ["", "\ud800", "é", "e\u0301"]):
            found = cache(texts)
            np.testing.assert_array_equal(found, fresh(texts))
            assert found.dtype == np.float64
        assert cache([]).shape == (0, 0)
        assert len(toy.asked) == len(set(toy.asked)) == len(TEXTS) + 4
        assert sorted(file.suffix for file in tmp_path.iterdir()) == [".keys", ".vectors"] * on_disk

    def test_another_process_computes_only_what_is_missing(self, tmp_path: Path) -> None:
        first, second = Toy(), Toy()
        here, there = FeatureCache(first, tmp_path), FeatureCache(second, tmp_path)
        here(TEXTS[:4])
        np.testing.assert_array_equal(there(TEXTS), fresh(TEXTS))
        here(TEXTS)
        assert first.asked == TEXTS[:4] and second.asked == TEXTS[4:]

    def test_another_model_has_its_own_vectors(self, tmp_path: Path) -> None:
        assert [len(encoded(tmp_path, salt=salt)) for salt in ("1", "2", "1")] == [12, 12, 0]

    def test_vectors_of_an_unnamed_function_are_kept_in_memory(self, tmp_path: Path) -> None:
        for value in (1.0, 0.0):
            found = FeatureCache(Custom(functools.partial(constant, value)), tmp_path)(TEXTS)
            np.testing.assert_array_equal(found, np.full((12, 1), value))
        assert list(tmp_path.iterdir()) == []

    def test_vectors_are_written_in_chunks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(FeatureCache, "CHUNK", 5)

        class Fails(Toy):
            def encode(self, texts: list[str]) -> np.ndarray:
                if self.asked:
                    raise KeyboardInterrupt
                return super().encode(texts)

        with pytest.raises(KeyboardInterrupt):
            FeatureCache(Fails(), tmp_path)(TEXTS)
        assert encoded(tmp_path) == TEXTS[5:]

    @pytest.mark.parametrize("texts", ["abc", ["a", None], [b"a"]])
    def test_anything_but_strings(self, texts: Any) -> None:
        with pytest.raises(TypeError):
            FeatureCache(Toy())(texts)

    def test_vectors_of_another_length(self, tmp_path: Path) -> None:
        FeatureCache(Toy(columns=4), tmp_path)(TEXTS[:2])
        with pytest.raises(InputError, match=r"5 .*4 "):
            FeatureCache(Toy(columns=5), tmp_path)(TEXTS)

    def test_default_folder(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("VIPRL_CACHE", str(tmp_path))
        assert default_folder() == tmp_path
        monkeypatch.delenv("VIPRL_CACHE")
        monkeypatch.setenv("HOME", "/home/somebody")
        assert default_folder() == Path("/home/somebody/.cache/viprl/features")

    @pytest.mark.parametrize("on_disk", [False, True])
    def test_eleven_binary_digits_of_any_finite_vector(self, tmp_path: Path, on_disk: bool) -> None:
        exact = np.random.default_rng(0).normal(size=(6, 50)).astype(np.float32)
        exact *= np.array([1, 1e-30, 1e30, 0, 70_000, 2**-8], dtype=np.float32)[:, None]

        def encode(texts: list[str]) -> np.ndarray:
            return exact[[int(text) for text in texts]]

        encode.name = "scales"  # type: ignore[attr-defined]
        found = FeatureCache(Custom(encode), tmp_path if on_disk else None)(list("012345"))
        assert (np.abs(found - exact) <= 2.0**-11 * np.abs(exact).max(axis=1, keepdims=True)).all()
        np.testing.assert_array_equal(found, rounded(exact))


class TestUnusableFiles:
    """Vectors are computed in memory, with one warning that says what to do."""

    def check(self, folder: Path, *keys: str) -> None:
        toy = Toy()
        cache = FeatureCache(toy, folder)
        with pytest.warns(RuntimeWarning) as caught:
            np.testing.assert_array_equal(cache(TEXTS), fresh(TEXTS))
        assert len(caught) == 1 and all(key in str(caught[0].message) for key in ("VIPRL_CACHE", str(folder), *keys))
        assert toy.asked == TEXTS
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            cache(["another"])

    def test_another_file_of_the_same_name(self, tmp_path: Path) -> None:
        FeatureCache(Toy(), tmp_path)(TEXTS)
        keys = keys_file(tmp_path)
        keys.write_text("not a list of keys at all" * 100)
        self.check(tmp_path, keys.name)

    def test_a_disk_that_keeps_nothing(self, tmp_path: Path) -> None:
        FeatureCache(Toy(), tmp_path)(TEXTS)
        keys = keys_file(tmp_path)
        vectors = keys.with_suffix(".vectors")
        keys.unlink()
        vectors.unlink()
        vectors.symlink_to(os.devnull)
        self.check(tmp_path, vectors.name)

    def test_a_folder_that_cannot_be_created(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        self.check(tmp_path / "file" / "folder")


class TestFeatures:
    def test_choices_share_encoders(self, tmp_path: Path) -> None:
        toy = Toy()
        shared, both = Features(tmp_path), Concatenated(toy, Length())
        assert shared.prepare(toy) and shared.prepare(both)
        np.testing.assert_array_equal(shared(toy, TEXTS), fresh(TEXTS))
        np.testing.assert_array_equal(shared(both, TEXTS), np.hstack([fresh(TEXTS), Length().encode(TEXTS)]))
        shared.warm(both, TEXTS)
        assert toy.asked == TEXTS

    def test_no_features(self) -> None:
        shared = Features()
        assert not shared.prepare(None) and not shared.prepare("none") and shared("none", TEXTS) is None

    def test_functions_do_not_share_vectors(self) -> None:
        shared = Features()
        for value in range(3):
            found = shared(functools.partial(constant, value), TEXTS)
            np.testing.assert_array_equal(found, np.full((12, 1), value))

    def test_vectors_on_disk_take_no_memory(self, tmp_path: Path) -> None:
        """Of 5,000 vectors of 4 kB, only the keys are in memory."""

        def encode(texts: list[str]) -> np.ndarray:
            return np.ones((len(texts), 2048), dtype=np.float32)

        encode.name = "ones"  # type: ignore[attr-defined]
        shared, texts = Features(tmp_path), [str(number) for number in range(5000)]
        tracemalloc.start()
        shared.warm(encode, texts)
        shared(encode, texts[:512])
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert keys_file(tmp_path).with_suffix(".vectors").stat().st_size > 20e6
        assert held < 300 * len(texts)
