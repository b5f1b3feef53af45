"""Which run a folder has, and how far it is."""

from __future__ import annotations

import json

import pytest
import yaml

from viprl.errors import ConfigError
from viprl.runs.resume import at_end, changes, copy_model, finished, resume_point

SETTINGS = {"model": "m", "output_dir": "a", "trainer": {"max_steps": 8, "learning_rate": 0.1, "save_steps": 2}}


def changed(**trainer):
    return SETTINGS | {"trainer": SETTINGS["trainer"] | trainer}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(SETTINGS))
    for step in (2, 10, 8):
        (tmp_path / f"checkpoint-{step}").mkdir()
        state = {"global_step": step, "epoch": step / 4}
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps(state))
    (tmp_path / "checkpoint-12").mkdir()  # killed while it was saved
    return tmp_path


def test_changes_are_the_settings_with_an_effect(folder, tmp_path):
    assert changes(folder, SETTINGS | {"output_dir": "b"}) == []
    assert changes(folder, changed(save_steps=3)) == []
    assert changes(folder, changed(max_steps=9, seed=1) | {"model": "n"}) == ["model", "max_steps", "seed"]
    assert changes(tmp_path / "none", SETTINGS) == []


def test_a_run_resumes_at_its_newest_complete_checkpoint(folder, tmp_path):
    assert resume_point(folder, changed(max_steps=20)) == folder / "checkpoint-10"
    assert resume_point(tmp_path / "none", SETTINGS) is None
    with pytest.raises(ConfigError, match="learning_rate"):
        resume_point(folder, changed(learning_rate=0.2))


def test_finished_means_marked_and_unchanged(folder):
    assert not finished(folder, SETTINGS)
    (folder / "finished.json").write_text("{}")
    assert finished(folder, SETTINGS) and not finished(folder, changed(max_steps=9))


def test_the_end_is_a_number_of_steps_or_epochs(folder):
    checkpoint = folder / "checkpoint-8"
    assert at_end(folder, SETTINGS, checkpoint, max_steps=8, num_train_epochs=9)
    assert not at_end(folder, SETTINGS, checkpoint, max_steps=9, num_train_epochs=1)
    assert at_end(folder, SETTINGS, checkpoint, max_steps=-1, num_train_epochs=2)
    assert not at_end(folder, SETTINGS, checkpoint, max_steps=-1, num_train_epochs=3)
    with pytest.raises(ConfigError, match="max_steps"):
        at_end(folder, changed(max_steps=7), checkpoint, max_steps=7, num_train_epochs=1)


def test_the_model_is_copied_without_the_training_state(folder):
    checkpoint = folder / "checkpoint-8"
    for name in ("model.safetensors", "optimizer.pt", "vip_state.safetensors", "rng_state_0.pth"):
        (checkpoint / name).touch()
    copy_model(checkpoint, folder / "final")
    assert [path.name for path in (folder / "final").iterdir()] == ["model.safetensors"]
