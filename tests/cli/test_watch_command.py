"""`viprl watch` as a process: once, in a terminal, interrupted, at the end of a run."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest
from typer.testing import CliRunner

from log_files import write_lines
from viprl.cli import app
from viprl.errors import FileError

ROWS = [{"strategy": "default", "seed": 0, "step": step, "reward": step / 10} for step in range(1, 9)]
HIDE_CURSOR, SHOW_CURSOR, OTHER_SCREEN, OWN_SCREEN = b"\x1b[?25l", b"\x1b[?25h", b"\x1b[?1049h", b"\x1b[?1049l"


@pytest.mark.parametrize("options", [[], ["--once"]])
def test_without_a_terminal_it_is_printed_once(tmp_path, options):
    write_lines(tmp_path / "run" / "metrics.jsonl", ROWS)
    result = CliRunner().invoke(app, ["watch", str(tmp_path / "run"), *options])
    assert result.exit_code == 0 and result.output.startswith("run") and "0.450" in result.output
    assert "\x1b" not in result.output


def test_without_a_run_there_is_nothing_to_print(tmp_path):
    result = CliRunner().invoke(app, ["watch", str(tmp_path / "run"), "--once"])
    assert isinstance(result.exception, FileError)


class Terminal:
    """`viprl watch` in a pseudo-terminal."""

    def __init__(self, path, *options, lines=30, columns=60):
        self.master, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        command = [sys.executable, "-m", "viprl", "watch", str(path), "--every", "0.1", *options]
        variables = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        ends = signal.signal(signal.SIGINT, signal.SIG_DFL)  # which tests that run in the background ignore
        self.process = subprocess.Popen(
            command, stdin=child, stdout=child, stderr=child, env=variables | {"TERM": "xterm"}
        )
        signal.signal(signal.SIGINT, ends)
        os.close(child)
        self.seen = b""

    def wait_for(self, word: str, seconds: float = 60.0) -> None:
        """Read the screen until it has the word."""
        end, start = time.monotonic() + seconds, len(self.seen)
        while word.encode() not in self.seen[start:]:
            assert time.monotonic() < end, f"{word!r} did not come; {self.seen[-2000:]!r}"
            self._read()

    def close(self) -> int:
        """The exit code, after everything was read."""
        end = time.monotonic() + 60
        while self._read():
            if time.monotonic() > end:
                self.process.kill()
        os.close(self.master)
        return self.process.wait(60)

    def _read(self) -> bool:
        if select.select([self.master], [], [], 0.1)[0]:
            try:
                part = os.read(self.master, 65536)
            except OSError:  # the process has ended
                return False
            self.seen += part
            return bool(part)
        return self.process.poll() is None


@pytest.mark.skipif(os.name != "posix", reason="needs pseudo-terminals")
@pytest.mark.parametrize("ends", ["finished", "interrupted"])
def test_in_a_terminal(tmp_path, ends):
    folder = tmp_path / "run"
    terminal = Terminal(folder)
    terminal.wait_for("not found")
    folder.mkdir()
    with (folder / "metrics.jsonl").open("a") as file:
        for row in ROWS[:4]:
            file.write(json.dumps(row) + "\n")
        half = json.dumps(ROWS[4])
        file.write(half[:9])
        file.flush()
        terminal.wait_for("step 4")
        file.write(half[9:] + "\n")
        file.flush()
        terminal.wait_for("step 5")
    write_lines(folder / "metrics.jsonl", ROWS[:2])
    terminal.wait_for("step 2")
    if ends == "finished":
        (folder / "finished.json").write_text("{}")
    else:
        terminal.process.send_signal(signal.SIGINT)
    assert terminal.close() == 0
    screen, _, after = terminal.seen.partition(OWN_SCREEN)
    assert OTHER_SCREEN in screen and b"step 2" in after, "the last view stays"
    assert terminal.seen.rfind(SHOW_CURSOR) > terminal.seen.rfind(HIDE_CURSOR)
    assert b"Traceback" not in terminal.seen
