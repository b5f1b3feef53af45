"""Commands as they are launched: torchrun on two CPU processes; `viprl train`, vLLM's two modes, FSDP2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("trl", reason='needs pip install "viprl[trl]"')

import tiny
from viprl.utils.json_lines import log_rows

HERE = Path(__file__).parent
RECIPES = HERE.parent / "recipes"


def torchrun(*command: str, **environment: str) -> None:
    """Two processes on this machine; raises with their output where one fails."""
    words = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0",
        "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0", *command,
    ]  # fmt: skip
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    own = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": path} | environment
    done = subprocess.run(words, env=os.environ | own, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]


def ranks(folder: Path) -> list:
    """What both processes wrote down."""
    found = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert found[0] == found[1]
    return found[0]


def test_viprl_train(tmp_path):
    tiny.model().save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    tiny.dataset(32).to_json(tmp_path / "data.jsonl")
    settings = {
        "model": str(tmp_path / "model"), "dataset": str(tmp_path / "data.jsonl"), "output_dir": str(tmp_path / "run"),
        "vip_strategy": "random", "vip_features": "none", "num_generations": 4, "per_device_train_batch_size": 10,
        "max_completion_length": 4, "max_steps": 3, "save_steps": 2, "use_cpu": True, "bf16": False,
        "disable_tqdm": True, "gradient_checkpointing": False,
    }  # fmt: skip
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(settings))
    torchrun("-m", "viprl", "train", "--config", str(file))
    rows = list(log_rows(tmp_path / "run" / "outcomes.jsonl"))
    assert [row["step"] for row in rows] == [1, 2, 3], "one process writes the log"
    assert all(sum(row["counts"]) == 20 and len(row["counts"]) == 5 for row in rows)
    assert (tmp_path / "run" / "checkpoint-2" / "vip_state.safetensors").exists()
    assert json.loads((tmp_path / "run" / "finished.json").read_text()) == {"step": 3}


def test_vllm_server_and_tensor_parallel(tmp_path):
    tiny.model().save_pretrained(tmp_path / "start")
    torchrun(str(HERE / "two_processes_vllm.py"), str(tmp_path))
    assert [len(batches) for batches in ranks(tmp_path)] == [3, 3]


def test_fsdp2(tmp_path):
    """The recipe's settings but for the number of processes and their precision."""
    tiny.model().save_pretrained(tmp_path / "start")
    settings = yaml.safe_load((RECIPES / "fsdp.yaml").read_text())
    plugin = {name.upper(): str(value) for name, value in settings["fsdp_config"].items()}
    torchrun(str(HERE / "two_processes_fsdp.py"), str(tmp_path), ACCELERATE_USE_FSDP="true", **plugin)
    assert len(ranks(tmp_path)) == 4


@pytest.mark.parametrize("name", ["fsdp", "deepspeed_zero3"])
def test_accelerate_reads_the_recipes(name):
    config = pytest.importorskip("accelerate.commands.config.config_args").load_config_from_file(
        str(RECIPES / f"{name}.yaml")
    )
    assert config.num_processes == 8 and config.mixed_precision == "bf16"
    assert str(config.distributed_type.value) == {"fsdp": "FSDP", "deepspeed_zero3": "DEEPSPEED"}[name]
