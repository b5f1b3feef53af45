"""`viprl train --dry-run`: what a run will do."""

from __future__ import annotations

import re

import pytest

from refused import refused
from viprl.errors import ConfigError, ViprlError
from viprl.train import dry_run as dry_run_module
from viprl.train import trainer_options
from viprl.train.config import load_config, parse_config
from viprl.train.dry_run import dry_run
from viprl.train.trainer_options import trainer_config
from viprl.train.training import train


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]


def test_the_description_of_a_run(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(dry_run_module, "has_accelerator", lambda: True)  # otherwise a note
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
    chosen = dict(dry_run(parse_config(settings | {"vip_candidates": 2, "num_train_epochs": 3, "max_steps": -1})))
    assert numbers(chosen["batch"]) == [4, 8, 16, 4]
    assert numbers(chosen["steps"]) == [12, 16, 1, 1, 12, 3]
    assert "waves" not in chosen["batch"]
    assert "up to two waves" in dict(dry_run(parse_config(settings | {"vip_waves": 2})))["batch"]


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
        with pytest.raises(ConfigError, match=f"{next(iter(change))} .* -> "):
            dry_run(parse_config(settings | change))


def test_a_mistake_in_new_settings_comes_before_the_other_run_in_the_folder(finished):
    settings, _ = finished
    for change in ({"dataset": "nowhere.jsonl"}, {"reward": "tiny:missing"}, {"vip_strategy": "papr", "seed": 1}):
        with pytest.raises(ViprlError, match=str(next(iter(change.values())))):
            dry_run(parse_config(settings | change))


def test_a_run_goes_on_with_settings_that_change_nothing(finished):
    settings, _ = finished
    same = {
        "logging_steps": 3, "save_steps": 1, "report_to": "none", "dataloader_num_workers": 1, "seed": 42,
        "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "vip_shadow": ["uniform"], "run_name": "x",
        "learning_rate": "1e-3", "algorithm": "rloo", "reward": ["exact_match"], "use_cpu": True, "eval_steps": 2,
    }  # fmt: skip
    assert ", finished" in dict(dry_run(parse_config(settings | same)))["folder"]
    facts = dry_run(parse_config(settings | same | {"max_steps": 8}))
    assert dict(facts)["folder"].endswith("resumes from checkpoint-4")
    assert [text for name, text in facts if name == "note" and "max_steps 4 -> 8" in text]


def test_a_longer_run_notes_what_it_does_to_the_learning_rate(settings, tmp_path):
    keys = settings | {"lr_scheduler_type": "linear", "vip_strategy": "uniform"}
    train(parse_config(keys | {"max_steps": 2}))
    notes = [text for name, text in dry_run(parse_config(keys)) if name == "note"]
    assert len(notes) == 2 and "max_steps 2 -> 4" in notes[0] and "linear" in notes[1]


def test_the_record_of_a_run_is_a_configuration_of_it(finished):
    settings, folder = finished
    config = load_config(folder / "config.yaml")
    assert config.model == settings["model"] and config.trainer["per_device_train_batch_size"] == 16
    assert (config.update_batch_size, config.trainer["generation_batch_size"]) == (16, 16)
    assert ", finished" in dict(dry_run(config))["folder"]
    nested = {"model": "m", "dataset": "d", "output_dir": "o", "trainer": {"max_steps": 3}}  # of earlier versions
    assert parse_config(nested).trainer == {"max_steps": 3}


def test_a_batch_of_one_prompt_is_noted(settings):
    (note,) = [text for name, text in dry_run(parse_config(settings | {"num_generations": 16})) if name == "note"]
    assert "one prompt" in note and "per_device_train_batch_size" in note


@pytest.mark.parametrize("accelerator", [True, False])
def test_a_machine_without_an_accelerator_is_noted(settings, monkeypatch, accelerator):
    """A dry run may be on another machine than the training, so this is no error there; in a training it is one."""
    for module in (dry_run_module, trainer_options):
        monkeypatch.setattr(module, "has_accelerator", lambda: accelerator)
    config = parse_config(settings | {"use_cpu": False, "bf16": not accelerator})
    notes = [text for name, text in dry_run(config) if name == "note"]
    assert [trainer_options.ON_THE_CPU in note for note in notes] == ([] if accelerator else [True])
    if not accelerator:
        with refused(ConfigError, "no accelerator", trainer_options.ON_THE_CPU):
            trainer_config(config)


@pytest.mark.parametrize("place", ["data.jsonl", "data.jsonl/run"])
def test_a_run_folder_that_is_a_file(settings, tmp_path, place):
    with pytest.raises(ConfigError, match=r"data\.jsonl is a file"):
        dry_run(parse_config(settings | {"output_dir": str(tmp_path / place)}))


def test_an_endless_run_needs_max_steps_and_has_no_pool(endless):
    assert "epochs" not in dict(dry_run(parse_config(endless)))["steps"]
    for change in ({"max_steps": -1}, {"vip_register_pool": True}):
        with pytest.raises(ConfigError, match=next(iter(change))):
            dry_run(parse_config(endless | change))
