"""State files: exact round trips, complete files after crashes, and errors for everything else."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from refused import refused
from viprl.errors import FileError, StateError
from viprl.utils import files
from viprl.utils.state_file import load, save

DTYPES = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"]


def same(one: Any, other: Any) -> bool:
    """Whether types, dtypes, shapes and values are equal, NaN and the sign of zero included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray | np.generic):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, float):
        return repr(one) == repr(other)
    return bool(one == other)


KIND: dict[str, Any] = {"kind": "test", "version": 3}


def round_trip(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    save(path, content, kind="test", version=3)
    return load(path, kind="test", version=3)


class TestRoundTrip:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (5,), (2, 3, 4)])
    def test_arrays(self, tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
        array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
        found = round_trip(tmp_path / "s", {"a": array})["a"]
        assert same(found, array)
        assert found.flags.writeable

    def test_memory_layouts(self, tmp_path: Path) -> None:
        grid = np.arange(24.0).reshape(4, 6)
        views = {"fortran": np.asfortranarray(grid), "turned": grid.T, "strided": grid[::2, ::-3]}
        found = round_trip(tmp_path / "s", views)
        for name, view in views.items():
            np.testing.assert_array_equal(found[name], view)

    def test_plain_values(self, tmp_path: Path) -> None:
        content = {
            "": "",
            "text": ["é 漢 😀", "\ud800", "\ud83d\ude00", '"\\\n\0'],
            "numbers": [True, 1, 1.0, -0.0, 0.1, 2**128 + 1, -(2**70), math.inf, -math.inf, math.nan],
            "nothing": [None, [], {}, [[]], [{}]],
            "scalars": [np.float64(0.5), np.int8(-3), np.bool_(True)],
            "array": np.array([math.nan, math.inf, -0.0]),
            "references": {"$array": "array.0", "$$array": 1, "$": {"$array": "array.0", "scalar": True}},
            "deep": {"list": [1, {"array": np.arange(3)}, [np.zeros(())]]},
        }
        assert same(round_trip(tmp_path / "s", content), content)

    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    nested = st.recursive(
        leaves | st.binary(max_size=8).map(lambda raw: np.frombuffer(raw, "u1")),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
        max_leaves=12,
    )

    @settings(max_examples=60, deadline=None)
    @given(content=st.dictionaries(st.text(max_size=4), nested, max_size=4))
    def test_anything(self, tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]) -> None:
        path = tmp_path_factory.getbasetemp() / "anything"
        assert same(round_trip(path, content), content)

    def test_more_strings_than_a_safetensors_header_holds(self, tmp_path: Path) -> None:
        # 114 MB of JSON; a header ends at 100 MB
        names = [f"sha:{position:064x}" for position in range(1_600_000)]
        content = {"names": names}
        assert round_trip(tmp_path / "s", content) == content
        assert (tmp_path / "s").stat().st_size < 72 * len(names)

    def test_is_a_safetensors_file_without_pickle(self, tmp_path: Path) -> None:
        save(tmp_path / "s", {"a": np.arange(3), "b": "x"}, kind="test", version=3)
        with safetensors.safe_open(tmp_path / "s", framework="numpy") as file:
            assert file.metadata()["kind"] == "test"
            document = json.loads(file.get_tensor("document").tobytes())
            assert document["b"] == "x"
            np.testing.assert_array_equal(file.get_tensor(document["a"]["$array"]), np.arange(3))

    def test_arrays_are_aligned(self, tmp_path: Path) -> None:
        """For programs that map the file into the memory."""
        save(tmp_path / "s", {"byte": np.ones(3, "u1"), "double": np.ones(2), "short": np.ones(1, "i2")}, **KIND)
        content = (tmp_path / "s").read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        entries = json.loads(content[8:start])
        begins = {entry["dtype"]: start + entry["data_offsets"][0] for name, entry in entries.items() if name[0] != "_"}
        assert begins["F64"] % 8 == 0 and begins["I16"] % 2 == 0

    def test_creates_the_folder(self, tmp_path: Path) -> None:
        assert round_trip(tmp_path / "new" / "folder" / "s", {}) == {}
        assert [file.name for file in (tmp_path / "new" / "folder").iterdir()] == ["s"]


class TestUnusableStates:
    @pytest.mark.parametrize(
        ("content", "keys"),
        [
            ({"a": {"b": [0, (1, 2)]}}, ("state['a']['b'][1]", "tuple")),
            ({"a": {1, 2}}, ("state['a']", "set")),
            ({"a": b"x"}, ("state['a']", "bytes")),
            ({"a": [object()]}, ("state['a'][0]", "object")),
            ({"a": {3: 4}}, ("state['a']", "key 3", "int")),
            ({"a": np.array(["x"])}, ("state['a']", "<U1")),
            ({"a": np.array([object()])}, ("state['a']", "|O")),
            ({"a": np.zeros(2, "c16")}, ("<c16",)),
            ({"a": np.zeros(2, ">f8")}, (">f8",)),
            ({"a": np.zeros(2, "M8[s]")}, ("<M8",)),
            ({"a": np.ma.masked_array([1, 2], [False, True])}, ("MaskedArray",)),
            ([1], ("list",)),
        ],
    )
    def test_the_error_gives_the_place_and_the_old_file_stays(
        self, tmp_path: Path, content: Any, keys: tuple[str, ...]
    ) -> None:
        save(tmp_path / "s", {"old": 1}, kind="test", version=3)
        with refused(TypeError, *keys):
            save(tmp_path / "s", content, kind="test", version=3)
        assert load(tmp_path / "s", kind="test", version=3) == {"old": 1}
        assert len(list(tmp_path.iterdir())) == 1


class TestUnusableFiles:
    content: ClassVar = {"a": np.arange(40.0), "b": ["x", "y"], "c": {"d": np.ones((2, 2), "i2")}}

    def refused(self, path: Path, *keys: str, kind: str = "test", version: int = 3) -> None:
        with refused(StateError, str(path), *keys):
            load(path, kind=kind, version=version)

    def test_missing(self, tmp_path: Path) -> None:
        self.refused(tmp_path / "nothing.state")
        self.refused(tmp_path)

    def test_cut_at_any_byte(self, tmp_path: Path) -> None:
        path = tmp_path / "s"
        save(path, self.content, kind="test", version=3)
        whole = path.read_bytes()
        for content in [whole[:length] for length in range(len(whole))] + [whole + b"\0"]:
            path.write_bytes(content)
            self.refused(path, "safetensors")

    def test_a_change_of_any_byte_is_found_or_harmless(self, tmp_path: Path) -> None:
        path = tmp_path / "s"
        save(path, self.content, kind="test", version=3)
        whole = path.read_bytes()
        header = 8 + int.from_bytes(whole[:8], "little")
        for position in range(len(whole)):
            broken = bytearray(whole)
            broken[position] ^= 1
            path.write_bytes(bytes(broken))
            try:
                found = load(path, kind="test", version=3)
            except StateError:
                continue
            assert position < header
            assert same(found, self.content)

    def test_another_format(self, tmp_path: Path) -> None:
        (tmp_path / "s").write_text("a text of some length, not a safetensors file")
        self.refused(tmp_path / "s", "safetensors")
        safetensors.numpy.save_file({"a": np.ones(3)}, tmp_path / "s")
        self.refused(tmp_path / "s", "None", "'viprl-state-1'")

    def test_another_kind_or_version(self, tmp_path: Path) -> None:
        save(tmp_path / "s", self.content, kind="test", version=3)
        self.refused(tmp_path / "s", "'test'", "'planner'", kind="planner")
        self.refused(tmp_path / "s", "newer version 3", "expected 2", version=2)
        self.refused(tmp_path / "s", "older version 3", "expected 4", version=4)


class TestCrashes:
    def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save(tmp_path / "s", {"old": 1}, kind="test", version=3)

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(files.os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            save(tmp_path / "s", {"new": 1}, kind="test", version=3)
        assert load(tmp_path / "s", kind="test", version=3) == {"old": 1}
        assert len(list(tmp_path.iterdir())) == 1

    def test_the_content_is_on_disk_before_the_rename_and_the_folder_afterwards(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        events: list[str] = []
        fsync, replace = os.fsync, os.replace

        def log_fsync(descriptor: int) -> None:
            is_folder = os.fstat(descriptor).st_mode & 0o170000 == 0o040000
            events.append("folder" if is_folder else "file")
            fsync(descriptor)

        def log_replace(self: Path, target: Path) -> None:
            events.append("replace")
            assert self.parent == target.parent
            replace(self, target)

        monkeypatch.setattr(files.os, "fsync", log_fsync)
        monkeypatch.setattr(Path, "replace", log_replace)
        save(tmp_path / "s", {"a": 1}, kind="test", version=3)
        assert events == ["file", "replace", "folder"]

    @pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
    def test_killed_by_the_kernel_at_any_byte(self, tmp_path: Path) -> None:
        import resource

        path = tmp_path / "s"
        save(path, {"turn": 1}, kind="test", version=3)
        new = {"turn": 2, "a": np.arange(2_000)}
        save(tmp_path / "other", new, kind="test", version=3)
        size = (tmp_path / "other").stat().st_size

        def write(limit: int) -> None:
            # A write beyond the limit raises a signal, which Python ignores by default.
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            save(path, new, kind="test", version=3)

        def exit_code(limit: int) -> int | None:
            child = multiprocessing.get_context("fork").Process(target=write, args=(limit,))
            child.start()
            child.join()
            return child.exitcode

        for limit in range(0, size, size // 20):
            assert exit_code(limit) == -signal.SIGXFSZ
            assert load(path, kind="test", version=3) == {"turn": 1}
        assert len(list(tmp_path.glob(".s.*.tmp"))) > 20  # the processes died while writing
        assert exit_code(size) == 0
        assert same(load(path, kind="test", version=3), new)


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "state"):
        with refused(FileError, tmp_path):
            save(path, {}, kind="test", version=3)
