"""Files of vectors: damage is found and repaired, and several processes write at once."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_encoder import TEXTS, Toy, encoded, fresh, keys_file

from viprl.features.cache import FeatureCache
from viprl.features.vector_file import VectorFile


class TestDamage:
    """Vectors are right whatever happens to the files. A warning counts those that are computed again."""

    @pytest.fixture
    def files(self, tmp_path: Path) -> tuple[Path, Path]:
        """Keys and vectors of `TEXTS`."""
        FeatureCache(Toy(columns=100), tmp_path)(TEXTS)
        keys = keys_file(tmp_path)
        return keys, keys.with_suffix(".vectors")

    def check(self, folder: Path) -> tuple[list[str], list[str]]:
        """The texts that were encoded again, and the warnings."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            asked = encoded(folder, columns=100)
        return asked, [str(warning.message) for warning in caught]

    def test_keys_cut_at_any_byte(self, tmp_path: Path, files: tuple[Path, Path]) -> None:
        """As a killed writer leaves them: no warning, and the next writer completes the file."""
        whole = files[0].read_bytes()
        for length in range(len(whole)):
            files[0].write_bytes(whole[:length])
            assert self.check(tmp_path) == (TEXTS[max(length - 16, 0) // 16 :], [])
            assert files[0].read_bytes() == whole
            assert self.check(tmp_path) == ([], [])

    def test_vectors_cut_at_any_byte(self, tmp_path: Path, files: tuple[Path, Path]) -> None:
        whole = [file.read_bytes() for file in files]
        for length in range(0, len(whole[1]), 111):
            files[0].write_bytes(whole[0])
            files[1].write_bytes(whole[1][:length])
            lost = 12 - length // 208
            asked, warned = self.check(tmp_path)
            assert len(asked) == lost and f"{lost} damaged" in warned[0]
            assert self.check(tmp_path) == ([], [])

    @pytest.mark.parametrize("which", [0, 1])
    def test_bytes_changed_anywhere(self, tmp_path: Path, files: tuple[Path, Path], which: int) -> None:
        whole, rng = [file.read_bytes() for file in files], np.random.default_rng(0)
        for start in range(0, len(whole[which]), 7 if which == 0 else 37):
            for file, content in zip(files, whole, strict=True):
                file.write_bytes(content)
            broken = bytearray(whole[which])
            broken[start : start + 8] = rng.bytes(len(broken[start : start + 8]))
            files[which].write_bytes(broken)
            assert len(self.check(tmp_path)[0]) >= 1
            assert self.check(tmp_path)[0] == [] or start < 16  # repaired, unless the header is damaged

    def test_exchanged_keys(self, tmp_path: Path, files: tuple[Path, Path]) -> None:
        content = files[0].read_bytes()
        files[0].write_bytes(content[:16] + content[32:48] + content[16:32] + content[48:])
        asked, warned = self.check(tmp_path)
        assert asked == TEXTS[:2] and "2 damaged" in warned[0]

    @pytest.mark.parametrize("which", [0, 1])
    def test_one_of_the_files_is_deleted(self, tmp_path: Path, files: tuple[Path, Path], which: int) -> None:
        files[which].unlink()
        assert self.check(tmp_path)[0] == TEXTS
        assert self.check(tmp_path) == ([], [])

    def test_both_files_are_deleted_during_use(self, tmp_path: Path) -> None:
        cache = FeatureCache(Toy(), tmp_path)
        cache(TEXTS[:6])
        for file in list(tmp_path.iterdir()):
            file.unlink()
        np.testing.assert_array_equal(cache(TEXTS), fresh(TEXTS))
        assert encoded(tmp_path) == []

    def test_cut_while_in_use(self, tmp_path: Path) -> None:
        """In another process, because a mapped file that is cut kills it."""

        def child() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                cache = FeatureCache(Toy(columns=5000), tmp_path)
                for kept in (0, 1, 5000):
                    cache(TEXTS)
                    os.truncate(keys_file(tmp_path).with_suffix(".vectors"), kept)
                    np.testing.assert_array_equal(cache(TEXTS), fresh(TEXTS, columns=5000))
            os._exit(0)

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join()
        assert process.exitcode == 0


def write_all(folder: Path, start: int, barrier: Any) -> None:
    cache = FeatureCache(Toy(), folder)
    barrier.wait()
    for step in range(40):
        cache([f"prompt {(start + step * 5 + offset) % 200}" for offset in range(5)])


def write_for_ever(folder: Path) -> None:
    cache = FeatureCache(Toy(columns=2000), folder)
    for step in range(10**9):
        cache([f"{os.getpid()} {step} {offset}" for offset in range(20)])


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
class TestProcesses:
    def test_two_write_at_once_and_nothing_is_lost(self, tmp_path: Path) -> None:
        context = multiprocessing.get_context("fork")
        for round_ in range(3):  # the first calls create the file at the same time
            folder = tmp_path / str(round_)
            barrier = context.Barrier(2)
            writers = [context.Process(target=write_all, args=(folder, start, barrier)) for start in (0, 100)]
            for writer in writers:
                writer.start()
            for writer in writers:
                writer.join()
                assert writer.exitcode == 0
            assert encoded(folder, [f"prompt {number}" for number in range(200)]) == []

    def test_a_writer_waits_for_another(self, tmp_path: Path) -> None:
        FeatureCache(Toy(), tmp_path)(TEXTS[:1])
        other = keys_file(tmp_path).open("rb")
        fcntl.flock(other, fcntl.LOCK_EX)
        release = threading.Timer(0.3, other.close)
        release.start()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert encoded(tmp_path) == TEXTS[1:]
        release.join()
        assert encoded(tmp_path) == []

    def test_a_writer_does_not_wait_for_ever(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(VectorFile, "PATIENCE", 0.05)
        FeatureCache(Toy(), tmp_path)(TEXTS[:1])
        with keys_file(tmp_path).open("rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            with pytest.warns(RuntimeWarning, match="lock"):
                encoded(tmp_path)

    def test_texts_that_two_processes_encode_are_stored_once(self, tmp_path: Path) -> None:
        one, two = FeatureCache(Toy(), tmp_path), FeatureCache(Toy(), tmp_path)

        class Slow(Toy):
            def encode(self, texts: list[str]) -> np.ndarray:
                two(texts)  # the other process finishes first
                return super().encode(texts)

        one.encoder = Slow()
        np.testing.assert_array_equal(one(TEXTS), fresh(TEXTS))
        assert keys_file(tmp_path).stat().st_size == 16 * (1 + len(TEXTS))

    def test_kill_9_while_writing(self, tmp_path: Path) -> None:
        FeatureCache(Toy(columns=2000), tmp_path)(TEXTS)
        file, rng = keys_file(tmp_path), np.random.default_rng(0)
        context = multiprocessing.get_context("fork")
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
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert encoded(tmp_path, columns=2000) == []
            store = VectorFile(file.with_suffix(""))
            store.find([b""])  # reads all keys
            everything = list(store._rows)
            assert len(everything) > len(TEXTS)
            assert store.load(everything, store.find(everything))[1].all()
