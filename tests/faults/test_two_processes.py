"""Two processes on one run folder."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from viprl.errors import FileError
from viprl.runs.run_log import only_writer


def holds(folder: Path, locked: Any) -> None:
    with only_writer(folder):
        locked.set()
        multiprocessing.Event().wait()  # for ever


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_the_second_stops_and_may_write_after_the_first_was_killed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    locked = context.Event()
    first = context.Process(target=holds, args=(tmp_path, locked))
    first.start()
    try:
        assert locked.wait(30)
        with pytest.raises(FileError, match=tmp_path.name), only_writer(tmp_path):
            pass
    finally:
        first.kill()
        first.join()
    with only_writer(tmp_path):
        pass
