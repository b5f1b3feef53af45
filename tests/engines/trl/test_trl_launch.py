"""Two CPU processes under torchrun, and the recipes of accelerate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import two_processes
import yaml

import tiny
from viprl.utils.json_lines import log_rows

HERE = Path(__file__).parent
RECIPES = HERE.parents[2] / "recipes"


def test_two_processes(tmp_path):
    """FSDP2 has the settings of the recipe, except for the number of processes and their precision."""
    tiny.model().save_pretrained(tmp_path / "start")
    tiny.tokenizer().save_pretrained(tmp_path / "start")
    tiny.dataset(32).to_json(tmp_path / "data.jsonl")
    settings = {
        "model": str(tmp_path / "start"), "dataset": str(tmp_path / "data.jsonl"), "output_dir": str(tmp_path / "run"),
        "vip_strategy": "random", "vip_features": "none", "num_generations": 4, "per_device_train_batch_size": 10,
        "max_completion_length": 4, "max_steps": 3, "save_steps": 2, "use_cpu": True, "bf16": False,
        "disable_tqdm": True, "gradient_checkpointing": False,
    }  # fmt: skip
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    recipe = yaml.safe_load((RECIPES / "fsdp.yaml").read_text())
    plugin = {name.upper(): str(value) for name, value in recipe["fsdp_config"].items()}
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0",
        "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0",
        str(HERE / "two_processes.py"), str(tmp_path), json.dumps(plugin),
    ]  # fmt: skip
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    steps = {"rloo": 6, "grpo": 6, "server": 3, "colocate": 3, "fsdp": 4, "chosen": 5, "streamed": 5}
    steps |= {"saving": 3, "saving single": 3, "waves": 2, "waves, vLLM": 2}
    assert {name: len(batches) for name, batches in first.items()} == steps
    assert all(len({tuple(counts) for counts in first[kind]}) > 1 for kind in ("rloo", "grpo")), "counts vary"
    for name in ("chosen", "streamed"):
        alone = two_processes.run_chosen(tmp_path / "alone" / name, 20, stream=name == "streamed")
        assert first[name] == alone, "one process makes the same choices"
        assert any(min(advantages) < 0 for *_, advantages in alone), "expected rewards are the baseline"
    rows = list(log_rows(tmp_path / "run" / "outcomes.jsonl"))
    assert [row["step"] for row in rows] == [1, 2, 3], "one process writes the log"
    assert all(sum(row["counts"]) == 20 and len(row["counts"]) == 5 for row in rows)
    assert (tmp_path / "run" / "checkpoint-2" / "vip_state.safetensors").exists()
    assert json.loads((tmp_path / "run" / "finished.json").read_text()) == {"step": 3}


@pytest.mark.parametrize("name", ["fsdp", "deepspeed_zero3"])
def test_accelerate_reads_the_recipes(name):
    config = pytest.importorskip("accelerate.commands.config.config_args").load_config_from_file(
        str(RECIPES / f"{name}.yaml")
    )
    assert config.num_processes == 8 and config.mixed_precision == "bf16"
    assert str(config.distributed_type.value) == {"fsdp": "FSDP", "deepspeed_zero3": "DEEPSPEED"}[name]
