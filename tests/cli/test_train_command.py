"""`viprl train` and `viprl sweep` from the command line."""

from __future__ import annotations

import json

import pytest
import yaml

pytest.importorskip("trl", reason='needs pip install "viprl[trl]"')

from typer.testing import CliRunner

import tiny
from viprl.cli import app
from viprl.train.yaml_files import read_yaml


@pytest.fixture
def config(tmp_path) -> dict:
    settings = tiny.run_settings(tmp_path, tiny.save(tmp_path / "model"))
    del settings["output_dir"]
    return settings | {"max_steps": 1}


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
    again = CliRunner().invoke(app, ["train", "--config", str(tmp_path / "run" / "config.yaml"), "--dry-run"])
    assert again.exit_code == 0 and ", finished" in again.output
    options = ["--dataset", config["dataset"], "--n", "2", "--max-new-tokens", "2", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(
        app, ["evaluate", "--model", str(tmp_path / "run"), "--backend", "transformers", *options]
    )
    assert result.exit_code == 0, result.output
    used = json.loads((tmp_path / "out" / "metrics.json").read_text())["settings"]
    assert used["verify"] == "exact_match" and used["model"] == str(tmp_path / "run" / "final")


def test_an_error_names_the_file(config, tmp_path):
    file = write(tmp_path / "c.yaml", config | {"output_dir": str(tmp_path / "run"), "num_generations": 3})
    result = CliRunner().invoke(app, ["train", "--config", file, "--dry-run"])
    assert str(result.exception).startswith(f"{file}: ") and "num_generations (3)" in str(result.exception)
    sweep = write(tmp_path / "s.yaml", {"base": "c.yaml", "output_dir": str(tmp_path / "out"), "arms": {"a": {}}})
    result = CliRunner().invoke(app, ["sweep", "--config", sweep, "--dry-run"])
    assert str(result.exception).startswith(f"{sweep}: arm a: ")


def test_init(config, tmp_path):
    file = str(tmp_path / "new.yaml")
    options = ["--model", config["model"], "--dataset", config["dataset"], "--output-dir", str(tmp_path / "run")]
    written = CliRunner().invoke(app, ["init", file, *options])
    assert written.exit_code == 0 and file in written.output
    checked = CliRunner().invoke(app, ["train", "--config", file, "--dry-run"])
    assert checked.exit_code == 0 and "16 prompts, 128 rollouts" in checked.output


def test_files_of_init_have_run_folders_of_their_own(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        options = ["--model", config["model"], "--dataset", config["dataset"]]
        assert CliRunner().invoke(app, ["init", f"configs/{name}.yaml", *options]).exit_code == 0
        assert read_yaml(tmp_path / "configs" / f"{name}.yaml")["output_dir"] == f"runs/{name}"


def test_sweep(config, tmp_path):
    keys = {"base": config, "output_dir": str(tmp_path / "out"), "arms": {"a": {}}, "launch": "false"}
    file = write(tmp_path / "s.yaml", keys)
    dry = CliRunner().invoke(app, ["sweep", "--config", file, "--dry-run", "--set", "max_steps=2"])
    assert dry.exit_code == 0 and not (tmp_path / "out").exists()
    assert "configuration OK (model weights not loaded)" in dry.output
    assert CliRunner().invoke(app, ["sweep", "--config", file]).exit_code == 1  # `false` does not train
