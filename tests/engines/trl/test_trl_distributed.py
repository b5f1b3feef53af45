"""Two gloo processes on this machine: prompts that straddle ranks, one allocation, resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("trl", reason='needs pip install "viprl[trl]"')

import tiny


def test_two_processes(tmp_path):
    for kind in ("rloo", "grpo"):  # one after the other: two process groups at once starve each other on two cores
        check(kind, tmp_path / kind)


def check(kind: str, tmp_path: Path) -> None:
    here = Path(__file__).parent
    tiny.model().save_pretrained(tmp_path / "start")
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0",
        "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0", str(here / "two_processes.py"), kind, str(tmp_path),
    ]  # fmt: skip
    path = os.pathsep.join([str(here), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert ranks[0] == ranks[1] and len(ranks[0]) == 6
    assert len({tuple(counts) for counts in ranks[0]}) > 1, "the allocation adapted"
