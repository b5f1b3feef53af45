"""Which run a folder has, and how far it is."""

from __future__ import annotations

import json

import pytest
import yaml

from refused import refused
from viprl.errors import ConfigError, StateError
from viprl.runs.resume import RunFolder, copy_model, last_checkpoint, over_all_processes

RECORD = {"model": "m", "output_dir": "a", "trainer": {"max_steps": 8, "learning_rate": 0.1, "save_steps": 2}}
"""As earlier versions wrote it."""
SETTINGS = {"model": "m", "output_dir": "a", "max_steps": 8, "learning_rate": 0.1, "save_steps": 2}
DEFAULTS = {"seed": 42, "beta": 0.0, "logging_steps": 1, "vip_shadow": None, "num_train_epochs": 3.0}


def checkpoint(path, step: int):
    path.mkdir()
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step, "epoch": step / 4}))
    return path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(RECORD))
    for step in (2, 10, 8):
        checkpoint(tmp_path / f"checkpoint-{step}", step)
    (tmp_path / "checkpoint-12").mkdir()  # killed while it was saved
    return tmp_path


@pytest.mark.parametrize("record", [RECORD, SETTINGS], ids=["nested", "flat"])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {}),
        ({"output_dir": "b", "save_steps": 3, "vip_shadow": ["paper"], "report_to": "wandb", "use_cpu": True}, {}),
        ({"learning_rate": "1e-1", "seed": 42, "beta": 0, "max_steps": 8.0}, {}),
        ({"dataloader_num_workers": 4, "disable_tqdm": True, "eval_steps": 5, "run_name": "x"}, {}),
        ({"max_steps": 9, "seed": 1}, {"max_steps": (8, 9), "seed": (42, 1)}),
        ({"model": "n", "temperature": 0.5}, {"model": ("m", "n"), "temperature": (None, 0.5)}),
        ({"num_train_epochs": 5}, {}),  # max_steps decides
        ({"beta": True}, {"beta": (0.0, True)}),
    ],
)
def test_changes_are_the_settings_with_an_effect(tmp_path, record, change, expected):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(record))
    assert RunFolder(tmp_path, SETTINGS | change, DEFAULTS).changes() == expected


def test_a_path_may_be_spelled_in_another_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.jsonl").touch()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"dataset": "data.jsonl", "reward": ["a"]}))
    for name in ("./data.jsonl", str(tmp_path / "data.jsonl")):
        assert RunFolder(tmp_path, {"dataset": name, "reward": ("a",)}).changes() == {}
    assert set(RunFolder(tmp_path, {"dataset": "data2.jsonl", "reward": ["b"]}).changes()) == {"dataset", "reward"}


def test_a_batch_is_compared_over_all_processes(tmp_path):
    (tmp_path / "config.yaml").write_text("per_device_train_batch_size: 16\n")
    same = [
        ({"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}, 1),
        ({"per_device_train_batch_size": 4, "update_batch_size": 16}, 1),
        ({"per_device_train_batch_size": 4, "update_batch_size": 16, "generation_batch_size": 16}, 1),
    ]
    for settings, processes in same:
        assert RunFolder(tmp_path, settings, processes=processes).changes() == {}
    larger = {"per_device_train_batch_size": 16, "steps_per_generation": 2}
    assert RunFolder(tmp_path, larger).changes() == {"generation_batch_size": (16, 32)}
    (tmp_path / "config.yaml").write_text("update_batch_size: 16\ngeneration_batch_size: 32\n")
    assert RunFolder(
        tmp_path, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}, processes=2
    ).changes() == {"generation_batch_size": (32, 16)}
    assert RunFolder(tmp_path, {"per_device_train_batch_size": 4}, processes=None).changes() == {}
    with refused(ConfigError, "update_batch_size 16 -> 64", "set both keys"):
        RunFolder(tmp_path, {"per_device_train_batch_size": 8}, processes=8).resume_point()
    whole = over_all_processes({"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "seed": 1}, 4)
    assert whole == {"seed": 1, "update_batch_size": 64, "generation_batch_size": 64}


def test_a_run_resumes_at_its_newest_complete_checkpoint(folder, tmp_path):
    assert RunFolder(folder, SETTINGS | {"max_steps": 20}).resume_point() == folder / "checkpoint-10"
    assert RunFolder(tmp_path / "none", SETTINGS).resume_point() is None
    with refused(ConfigError, "learning_rate 0.1 -> 0.2, seed 42 -> 7", "output_dir"):
        RunFolder(folder, SETTINGS | {"learning_rate": 0.2, "seed": 7, "max_steps": 9}, DEFAULTS).resume_point()


@pytest.mark.parametrize(
    "name",
    ["checkpoint-best", "checkpoint-30.bak", "checkpoint-20 (copy)", "checkpoint-", "checkpoint--3", "checkpoint-²"],
)
def test_other_folders_are_not_checkpoints(folder, name):
    checkpoint(folder / name, 30)
    assert last_checkpoint(folder) == folder / "checkpoint-10"


@pytest.mark.parametrize("state", ["", "{", "[]", "{}", '{"global_step": null}', "[" * 10**5, '{"a": 1, "a": 2}', None])
def test_an_incomplete_checkpoint_is_ignored(folder, state):
    (folder / "checkpoint-20").mkdir()
    if state is not None:
        (folder / "checkpoint-20" / "trainer_state.json").write_text(state)
    (folder / "checkpoint-21").write_text("a file")
    assert last_checkpoint(folder) == folder / "checkpoint-10"


BOMB = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
"""Aliases that stand for 9^11 values: harmless until they are compared or printed."""


@pytest.mark.parametrize("record", ["[1", "- a\n", "", "model: 'm\n", "a: 2026-13-45\n", "[" * 10**5, "1: x\n", BOMB])
def test_a_damaged_record_is_named(tmp_path, record):
    (tmp_path / "config.yaml").write_text(record)
    with refused(StateError, "config.yaml", "output_dir"):
        RunFolder(tmp_path, SETTINGS).resume_point()


def test_finished_means_marked_and_unchanged(folder):
    assert not RunFolder(folder, SETTINGS).finished()
    (folder / "finished.json").write_text("{}")
    assert RunFolder(folder, SETTINGS | {"logging_steps": 7}).finished()
    assert not RunFolder(folder, SETTINGS | {"max_steps": 9}).finished()


def test_the_end_is_a_number_of_steps_or_epochs(folder):
    place, run = folder / "checkpoint-8", RunFolder(folder, SETTINGS)
    assert run.at_end(place, max_steps=8, num_train_epochs=9)
    assert not run.at_end(place, max_steps=9, num_train_epochs=1)
    assert run.at_end(place, max_steps=-1, num_train_epochs=2)
    assert not run.at_end(place, max_steps=-1, num_train_epochs=3)
    with pytest.raises(ConfigError, match="max_steps 8 -> 7"):
        RunFolder(folder, SETTINGS | {"max_steps": 7}).at_end(place, max_steps=7, num_train_epochs=1)


def test_the_model_is_copied_without_the_training_state(folder):
    checkpoint = folder / "checkpoint-8"
    for name in ("model.safetensors", "optimizer.pt", "vip_state.safetensors", "rng_state_0.pth"):
        (checkpoint / name).touch()
    copy_model(checkpoint, folder / "final")
    assert [path.name for path in (folder / "final").iterdir()] == ["model.safetensors"]
