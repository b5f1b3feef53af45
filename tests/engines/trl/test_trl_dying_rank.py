"""A process of a distributed run that is killed: the run ends, and its last checkpoint is whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import viprl
from viprl.runs.resume import last_checkpoint

HERE = Path(__file__).parent


def test_the_launcher_ends_the_other_rank_and_the_last_checkpoint_is_whole(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0",
        "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0", str(HERE / "dying_rank.py"), str(tmp_path),
    ]  # fmt: skip
    path = os.pathsep.join([str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0 and "SIGKILL" in done.stderr, done.stderr[-3000:]
    checkpoint = last_checkpoint(tmp_path)
    assert checkpoint is not None and checkpoint.name == "checkpoint-2"
    viprl.VIP(features="none").load(checkpoint / "vip_state.safetensors")
