"""Disks that are full, fail or cannot be written: the last file that was saved stays."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vip_steps import POOL, step, vip
from viprl.errors import FileError
from viprl.runs.history import PromptHistory, read_history_file, save_history
from viprl.runs.run_log import RunLog
from viprl.utils import files
from viprl.utils.json_lines import append_json_line, log_rows


class FullAfter:
    """A file of a disk that has so many bytes left."""

    def __init__(self, file: Any, left: int) -> None:
        self.file, self.left = file, left

    def __enter__(self) -> FullAfter:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, payload: bytes) -> int:
        self.file.write(payload[: self.left])
        if len(payload) > self.left:
            raise OSError(errno.ENOSPC, "No space left on device")
        return len(payload)


def full_after(monkeypatch: pytest.MonkeyPatch, left: int) -> None:
    opens = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *how, **more: FullAfter(opens(path, *how, **more), left))


def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that root cannot write either."""

    def refuses(path: Path, *_: Any, **__: Any) -> Any:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "open", refuses)


def fails_to_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files.os, "fsync", fails)


DISKS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "full at once": lambda patch: full_after(patch, 0),
    "full after 1000 bytes": lambda patch: full_after(patch, 1000),
    "read-only": read_only,
    "fails to sync": fails_to_sync,
}


@pytest.mark.parametrize("disk", DISKS)
def test_the_last_state_survives_a_save_that_fails(disk: str, tmp_path: Path, monkeypatch) -> None:
    agent, path, rng = vip(), tmp_path / "vip.state", np.random.default_rng(0)
    step(agent, rng, select=False, waves=1)
    agent.save(path)
    good = agent.predict(POOL)
    step(agent, rng, select=False, waves=1)
    with monkeypatch.context() as patch:
        DISKS[disk](patch)
        with pytest.raises(FileError, match=path.name):
            agent.save(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    resumed = vip()
    resumed.load(path)
    np.testing.assert_array_equal(resumed.predict(POOL), good)
    agent.save(path)  # there is room again, and nothing was lost in memory
    resumed.load(path)
    np.testing.assert_array_equal(resumed.predict(POOL), agent.predict(POOL))


@pytest.mark.parametrize("disk", DISKS)
def test_the_last_history_survives_a_save_that_fails(disk: str, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "history.jsonl"
    histories = [PromptHistory(f"{i}", f"prompt {i}", np.array([2.0]), np.array([1.0])) for i in range(200)]
    save_history(path, histories[:2])
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        DISKS[disk](patch)
        with pytest.raises(FileError, match=path.name):
            save_history(path, histories)
    assert path.read_bytes() == before and len(read_history_file(path)) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_line_that_a_full_disk_refuses_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(FileError, match=r"metrics\.jsonl"):
        append_json_line(tmp_path / "metrics.jsonl", {"step": 1})


def test_a_line_that_a_full_disk_cut_is_removed_by_the_next_resume(tmp_path: Path) -> None:
    log, path = RunLog(tmp_path, strategy="default", seed=0), tmp_path / "metrics.jsonl"
    log.metrics(1, {"loss": 1.0})
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    resumed = RunLog(tmp_path, strategy="default", seed=0)
    resumed.rewind(1)
    resumed.metrics(2, {"loss": 2.0})
    assert [row["step"] for row in log_rows(path)] == [1, 2]
