"""The commands of a block of shell: bash runs the block's own text with programs that only note their arguments."""

from __future__ import annotations

import subprocess
from pathlib import Path

PROGRAMS = ("viprl", "python", "pip", "make", "torchrun", "accelerate", "ray")
_RECORD = r"""#!/bin/bash
printf '%s\x1f' "${0##*/}" "$@" >> "$RECORDED"
printf '\x1e' >> "$RECORDED"
"""


def called(text: str, folder: Path) -> list[list[str]]:
    """Program and arguments of each call that the text makes, in order. Unknown programs and errors of syntax fail."""
    programs, recorded = folder / ".programs", folder / ".recorded"
    if not programs.exists():
        programs.mkdir()
        for name in PROGRAMS:
            (programs / name).write_text(_RECORD)
            (programs / name).chmod(0o755)
    recorded.write_text("")
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "RECORDED": str(recorded), "HOME": str(folder)}
    run = subprocess.run(
        ["bash", "-euc", text], cwd=folder, env=environment, capture_output=True, text=True, timeout=20
    )
    assert run.returncode == 0, run.stderr
    return [call.split("\x1f")[:-1] for call in recorded.read_text().split("\x1e")[:-1]]
