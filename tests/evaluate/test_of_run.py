"""The defaults that an evaluation takes from the run that trained the model."""

from __future__ import annotations

import json

import pytest
import yaml

from refused import refused
from viprl.errors import InputError
from viprl.evaluate.of_run import base_model, trained

RECORD = {
    "model": "m", "output_dir": "o", "reward": ["mine:f"], "instruction": "boxed", "chat": None,
    "chat_template_kwargs": {"enable_thinking": False},
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """A function that writes a run folder with some settings."""

    def write(**changes):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(RECORD | changes))
        (tmp_path / "checkpoint-2").mkdir(exist_ok=True)
        (tmp_path / "checkpoint-2" / "trainer_state.json").write_text('{"global_step": 2}')
        return tmp_path

    return write


def test_a_run_folder_stands_for_its_model(run):
    folder = run()
    assert trained(str(folder)).model == str(folder / "checkpoint-2")
    (folder / "final").mkdir()
    for model in (folder, folder / "final", folder / "checkpoint-2"):
        found = trained(str(model))
        assert found.run == folder and found.template_options == {"enable_thinking": False}
        assert found.form() == {"instruction": "boxed"} and found.judged_by(None, None) == ("mine:f", None)
    assert trained(str(folder)).model == str(folder / "final")


def test_a_run_without_a_model(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(RECORD))
    with refused(InputError, tmp_path, "final", "checkpoint"):
        trained(str(tmp_path))


@pytest.mark.parametrize("text", ["model: m\n", "[", "a: 1\n", ""])
def test_the_settings_of_other_programs_are_left_alone(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    (tmp_path / "final").mkdir()
    for model in (tmp_path, tmp_path / "final", "org/name"):
        found = trained(str(model))
        assert found.run is None and found.judged_by(None, None) == ("math", None) and found.form() == {}


@pytest.mark.parametrize(
    ("settings", "verify", "success", "judge"),
    [
        ({}, None, None, ("mine:f", None)),
        ({"vip_success": 0.5}, None, None, ("mine:f", "0.5")),
        ({"vip_success": 0.5}, None, "0.9", ("mine:f", "0.9")),
        ({"vip_success": 0.5}, "math", None, ("math", None)),
        ({"vip_success": "f >= 0.5"}, None, None, ("mine:f", "0.5")),
        ({"reward": ["mine:f", "mine:g"], "vip_success": "g>=0.25"}, None, None, ("mine:g", "0.25")),
        ({"reward": ["mine:f", "mine:fg"], "vip_success": "fg"}, None, None, ("mine:fg", None)),
        ({"reward": ["mine:f", "mine:g"], "vip_success": "1.5"}, "math", None, ("math", None)),
        ({"reward": "math_last_number", "vip_success": "0.5"}, None, None, ("math_last_number", None)),
        ({"reward": None}, None, None, ("exact_match", None)),
        ({"vip_success": "mine:decide"}, None, None, ("mine:f", "mine:decide")),
    ],
)
def test_the_reward_that_decided(run, settings, verify, success, judge):
    assert trained(str(run(**settings))).judged_by(verify, success) == judge


def test_several_rewards_of_which_none_decides(run):
    with refused(InputError, "mine:f, mine:g", "--verify"):
        trained(str(run(reward=["mine:f", "mine:g"], vip_success="1.5"))).judged_by(None, None)


def test_the_base_of_an_adapter(tmp_path):
    assert base_model(str(tmp_path)) is None
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "base"}))
    assert base_model(str(tmp_path)) == "base"
    for text in ("{", "[]", "{}", "[" * 10**5):
        (tmp_path / "adapter_config.json").write_text(text)
        with refused(InputError, "adapter_config.json"):
            base_model(str(tmp_path))


def test_settings_of_another_form_are_named(run):
    with refused(InputError, "reward", "--verify"):
        trained(str(run(reward=[["f"]]))).judged_by(None, None)
    for given in ("{", "3", 3, ["a"], "[" * 10**5):
        with refused(InputError, "chat_template_kwargs"):
            _ = trained(str(run(chat_template_kwargs=given))).template_options
