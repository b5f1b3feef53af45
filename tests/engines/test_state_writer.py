"""States that are written in a thread: of one moment, never in part, and with errors that surface."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refused import refused
from viprl import VIP
from viprl.engines.state_writer import StateWriter
from viprl.errors import FileError
from viprl.utils import files, state_file

PROMPTS = [f"prompt {i}" for i in range(6)]


def vip() -> VIP:
    return VIP(features=None, strategy="default", min_rollouts=2, max_rollouts=16)


def step(agent: VIP, turn: int) -> None:
    counts = agent.allocate(PROMPTS, 40).counts
    agent.observe(PROMPTS, [[float((i + q + turn) % 3 == 0) for i in range(n)] for q, n in enumerate(counts)])


def beliefs(path: Path) -> np.ndarray:
    agent = vip()
    agent.load(path)
    return agent.predict(PROMPTS)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """States are written when it is set."""
    opened, save = threading.Event(), state_file.save

    def waits(*given: Any, **more: Any) -> None:
        assert opened.wait(20)
        save(*given, **more)

    monkeypatch.setattr(state_file, "save", waits)
    return opened


def test_the_state_is_that_of_the_start_whatever_happens_meanwhile(tmp_path: Path, gate: threading.Event) -> None:
    agent = vip()
    step(agent, 0)
    then, writer = agent.predict(PROMPTS), StateWriter(agent)
    writer.start(tmp_path / "new" / "state")
    for turn in range(1, 4):
        step(agent, turn)
    assert not (tmp_path / "new").exists() and writer.path == tmp_path / "new" / "state"
    gate.set()
    writer.finish()
    assert writer.path is None
    np.testing.assert_array_equal(beliefs(tmp_path / "new" / "state"), then)
    assert not np.array_equal(agent.predict(PROMPTS), then)


def test_the_file_is_that_of_vip_save(tmp_path: Path) -> None:
    agent = vip()
    step(agent, 0)
    writer = StateWriter(agent)
    writer.finish()  # nothing to do
    writer.start(tmp_path / "one")
    writer.finish()
    agent.save(tmp_path / "other")
    assert (tmp_path / "one").stat().st_size == (tmp_path / "other").stat().st_size
    np.testing.assert_array_equal(beliefs(tmp_path / "one"), beliefs(tmp_path / "other"))


def test_an_error_of_the_thread_surfaces_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    writer = StateWriter(vip())
    writer.start(tmp_path / "file" / "state")
    with refused(FileError, tmp_path):
        writer.finish()
    writer.finish()
    writer.start(tmp_path / "file" / "state")
    with refused(FileError, tmp_path):
        writer.start(tmp_path / "state")  # not silently another file
    writer.start(tmp_path / "state")
    writer.finish()
    assert (tmp_path / "state").exists()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_killed_while_the_thread_writes(tmp_path: Path, moment: str) -> None:
    """The last state stays."""
    context = multiprocessing.get_context("fork")
    path, reached = tmp_path / "state", context.Event()
    agent = vip()
    step(agent, 0)
    agent.save(path)
    last = agent.predict(PROMPTS)

    def writes() -> None:
        def stops(*_: Any) -> None:
            reached.set()
            threading.Event().wait()

        owner: Any = files.os if moment == "fsync" else Path
        setattr(owner, moment, stops)
        step(agent, 1)
        writer = StateWriter(agent)
        writer.start(path)
        writer.finish()

    child = context.Process(target=writes)
    child.start()
    assert reached.wait(20)
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    np.testing.assert_array_equal(beliefs(path), last)
    assert len(list(tmp_path.glob(".state.*.tmp"))) == 1
