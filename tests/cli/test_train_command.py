"""`viprl train` and `viprl sweep` from the command line."""

from __future__ import annotations

import pytest
import yaml

pytest.importorskip("trl", reason='needs pip install "viprl[trl]"')

from typer.testing import CliRunner

import tiny
from viprl.cli import app
from viprl.utils.json_lines import write_json_lines


@pytest.fixture
def config(tmp_path) -> dict:
    tiny.save(tmp_path / "model")
    write_json_lines(tmp_path / "data.jsonl", tiny.dataset(32).to_list())
    return {
        "model": str(tmp_path / "model"), "dataset": str(tmp_path / "data.jsonl"), "vip_features": "none",
        "num_generations": 4, "per_device_train_batch_size": 16, "max_completion_length": 4, "max_steps": 1,
        "use_cpu": True, "bf16": False, "beta": 0.0, "disable_tqdm": True, "save_strategy": "no",
    }  # fmt: skip


def write(path, keys: dict) -> str:
    path.write_text(yaml.safe_dump(keys))
    return str(path)


def test_train(config, tmp_path):
    file = write(tmp_path / "c.yaml", config | {"output_dir": str(tmp_path / "run")})
    dry = CliRunner().invoke(app, ["train", "--config", file, "--set", "vip_strategy=uniform", "--dry-run"])
    assert dry.exit_code == 0 and "uniform" in dry.output and not (tmp_path / "run").exists()
    assert dry.output.endswith("configuration OK (model weights not loaded)\n")
    done = CliRunner().invoke(app, ["train", "--config", file])
    assert done.exit_code == 0 and f"viprl report {tmp_path / 'run'}" in done.output
    assert (tmp_path / "run" / "finished.json").exists()


def test_sweep(config, tmp_path):
    keys = {"base": config, "output_dir": str(tmp_path / "out"), "arms": {"a": {}}, "launch": "false"}
    file = write(tmp_path / "s.yaml", keys)
    dry = CliRunner().invoke(app, ["sweep", "--config", file, "--dry-run", "--set", "max_steps=2"])
    assert dry.exit_code == 0 and not (tmp_path / "out").exists()
    assert "configuration OK (model weights not loaded)" in dry.output
    assert CliRunner().invoke(app, ["sweep", "--config", file]).exit_code == 1  # `false` does not train
