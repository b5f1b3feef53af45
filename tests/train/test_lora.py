"""The key `peft`: options of LoraConfig, checked before the weights are loaded."""

from __future__ import annotations

import pytest

pytest.importorskip("peft")

from refused import refused
from viprl.errors import ConfigError, MissingPackageError
from viprl.runs.files import METRICS_FILE
from viprl.train.config import parse_config
from viprl.train.lora import lora_config
from viprl.train.prepare import prepare
from viprl.train.training import train
from viprl.utils.json_lines import log_rows


def test_every_option_of_lora_config_is_taken():
    lora = lora_config(
        {"r": 16.0, "lora_alpha": "32", "lora_dropout": "1e-1", "target_modules": ["q_proj"], "bias": "all"}
    )
    assert (lora.r, lora.lora_alpha, lora.lora_dropout, lora.target_modules) == (16, 32, 0.1, {"q_proj"})
    assert lora.bias == "all" and lora.task_type == "CAUSAL_LM"
    assert lora_config({"target_modules": "all-linear", "use_rslora": True}).use_rslora is True


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (True, ["peft is True", "r: 16"]),
        (["r"], ["peft is ['r']"]),
        ({"rank": 4}, ["`rank`"]),
        ({"lora_r": 4}, ["`lora_r`", "did you mean r?"]),
        ({"target_module": "all-linear"}, ["`target_module`", "target_modules"]),
        ({"r": 0}, ["r is 0", "at least 1"]),
        ({"r": "many"}, ["r is 'many'", "a whole number"]),
        ({"use_dora": "yes"}, ["use_dora is 'yes'", "true or false"]),
        ({"peft_type": "IA3"}, ["'IA3'", "LORA"]),
    ],
)
def test_mistakes_are_named(settings, options, parts):
    with refused(ConfigError, "mine.yaml", *parts):
        parse_config(settings | {"peft": options}, "mine.yaml")


@pytest.mark.parametrize("modules", [["q_proj", "qproj"], "nothing", ["q_proj", "embed"]])
def test_modules_that_the_model_does_not_have(settings, modules):
    with refused(ConfigError, "peft", "q_proj", "all-linear"):
        prepare(parse_config(settings | {"peft": {"target_modules": modules}}))


def test_without_peft(settings, monkeypatch):
    monkeypatch.setattr("viprl.train.lora.find_spec", lambda name: None)
    with refused(MissingPackageError, "pip install peft"):
        parse_config(settings | {"peft": {"r": 4}})


def test_an_adapter_is_trained_and_resumed(settings, tmp_path):
    keys = settings | {"peft": {"r": 2, "target_modules": "all-linear"}}
    train(parse_config(keys | {"max_steps": 2}))
    folder = train(parse_config(keys))
    assert (folder / "final" / "adapter_model.safetensors").exists()
    assert not (folder / "final" / "model.safetensors").exists()
    assert [row["step"] for row in log_rows(folder / METRICS_FILE)] == [1, 2, 3, 4]
    with refused(ConfigError, "peft {'r': 2,", "'r': 4"):
        train(parse_config(keys | {"peft": {"r": 4, "target_modules": "all-linear"}}))
