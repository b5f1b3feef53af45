"""Processes that tests start and kill."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path


def killed_after(command: list[str], file: Path, lines: int) -> None:
    """Start a command, and kill it (SIGKILL) as soon as the file has so many lines."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 240
    while not (file.exists() and file.read_bytes().count(b"\n") >= lines):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0].decode()[-3000:]
        time.sleep(0.02)
    process.kill()
    process.communicate()


def gone(pid: int) -> bool:
    """Whether a process ends within a minute. A zombie has ended."""
    status, deadline = Path(f"/proc/{pid}/status"), time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if "State:\tZ" in status.read_text():
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False
