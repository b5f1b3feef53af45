"""Devices and pipes are written to. A new file in their place would break them for the whole machine."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from viprl.errors import FileError
from viprl.utils.files import write_text

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes and devices have no names elsewhere")


def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    write_text(pipe, "text")
    reader.join(10)
    assert read == ["text"] and stat.S_ISFIFO(pipe.stat().st_mode) and list(tmp_path.iterdir()) == [pipe]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_link_to_a_full_device_names_the_file_and_stays(tmp_path: Path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(FileError, match="full"):
        write_text(tmp_path / "full", "text")
    assert (tmp_path / "full").is_symlink() and list(tmp_path.iterdir()) == [tmp_path / "full"]


def test_standard_output_in_a_file_keeps_what_else_is_written(tmp_path: Path) -> None:
    code = """
import sys
from viprl.utils.files import write_text
print(1, flush=True)
write_text(sys.argv[1], "2")
print(3)
"""
    with (tmp_path / "out").open("w") as out:
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "1\n23\n"
