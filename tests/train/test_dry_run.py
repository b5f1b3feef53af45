"""`viprl train --dry-run`: what a run will do."""

from __future__ import annotations

import re

import pytest

from viprl.errors import ConfigError
from viprl.train.config import parse_config
from viprl.train.dry_run import dry_run


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]


def test_the_description_of_a_run(settings, tmp_path):
    change = {"update_batch_size": 32, "generation_batch_size": 64, "max_steps": 6, "use_cpu": False, "bf16": True}
    facts = dict(dry_run(parse_config(settings | change | {"vip_shadow": ["paper"], "vip_features": "length"})))
    assert list(facts) == ["model", "data", "reward", "batch", "steps", "allocation", "gradient", "folder"]
    assert numbers(facts["model"].removeprefix(settings["model"])) == [64, 4]
    assert numbers(facts["data"].removeprefix(settings["dataset"])) == [32, 2]
    assert numbers(facts["batch"]) == [16, 64, 4]
    # steps, rollouts, processes, steps of a batch, batches, epochs
    assert numbers(facts["steps"]) == [6, 32, 1, 2, 3, 1.5]
    allocation = facts["allocation"]
    assert "random" in allocation and numbers(allocation) == [2, 24] and "paper" in allocation
    assert facts["folder"] == str(tmp_path / "run") and not (tmp_path / "run").exists()
    epochs = dict(dry_run(parse_config(settings | {"max_steps": -1, "num_train_epochs": 0.5})))
    assert numbers(epochs["steps"]) == [4, 16, 1, 1, 4, 0.5]


def test_the_weights_are_not_needed(settings, tmp_path, model_folder):
    for file in model_folder.iterdir():
        if file.name != "model.safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    assert dry_run(parse_config(settings | {"model": str(tmp_path)}))


def test_the_state_of_the_run_folder(finished):
    settings, folder = finished
    assert dict(dry_run(parse_config(settings)))["folder"].startswith(f"{folder}, finished")
    longer = parse_config(settings | {"max_steps": 8})
    assert dict(dry_run(longer))["folder"] == f"{folder}, resumes from checkpoint-4"
    (folder / "finished.json").unlink()
    assert dict(dry_run(parse_config(settings)))["folder"] == f"{folder}, trained to the end at checkpoint-4"
    for change in ({"max_steps": 2}, {"learning_rate": 1.0}):
        with pytest.raises(ConfigError, match=next(iter(change))):
            dry_run(parse_config(settings | change))


def test_an_endless_run_needs_max_steps_and_has_no_pool(endless):
    assert "epochs" not in dict(dry_run(parse_config(endless)))["steps"]
    for change in ({"max_steps": -1}, {"vip_register_pool": True}):
        with pytest.raises(ConfigError, match=next(iter(change))):
            dry_run(parse_config(endless | change))
