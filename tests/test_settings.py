"""Every option of VIP is declared once."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from decimal import Decimal

import numpy as np
import pytest

from viprl import VIP
from viprl.errors import InputError
from viprl.settings import EngineSettings, Settings, options, parameter_list, read_settings


def test_vip_takes_exactly_the_settings() -> None:
    signature = inspect.signature(VIP)
    declared = {field.name: field.default for field in dataclasses.fields(Settings)}
    assert {name: parameter.default for name, parameter in signature.parameters.items()} == declared


def test_docstrings_list_every_option_with_its_default_and_help() -> None:
    for field in options(Settings):
        assert f"\n    {field.name} (" in str(VIP.__doc__)
        assert f"defaults to `{field.default!r}`" in parameter_list([field])
        assert " ".join(parameter_list([field]).split("\n", 1)[1].split()) == field.metadata["help"]
    assert parameter_list(options(EngineSettings), prefix="vip_").count("\nvip_") == len(options(EngineSettings)) - 1


def test_options_without_a_form_in_files_are_left_out() -> None:
    assert "text" not in {field.name for field in options(Settings)}
    assert "seed" not in {field.name for field in options(without=["seed"])}


def test_read_settings() -> None:
    settings = read_settings({"min_rollouts": 4, "shadow": ["paper"], "register_pool": True}, where="here")
    assert settings == EngineSettings(min_rollouts=4, shadow=["paper"], register_pool=True)
    assert set(settings.for_vip()) == {field.name for field in dataclasses.fields(Settings)}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"min_rollout": 2}, "min_rollouts"),
        ({"nonsense": 2}, "strategy"),
        ({"estimator": "rloo"}, "decided elsewhere"),
        ({"min_rollouts": 2.0}, "x_min_rollouts is 2.0"),
        ({"max_rollouts": True}, "x_max_rollouts is True"),
        ({"max_rollouts": np.zeros(0)}, "x_max_rollouts"),
        ({"max_rollouts": Decimal("sNaN")}, "x_max_rollouts"),
        ({"seed": None}, "x_seed is None"),
        ({"register_pool": "yes"}, "'yes'"),
        ({"prompt_weighting": "token"}, "'token'"),
        ({"score_signal": None}, "score_signal"),
        ({"variance_target": [1]}, "variance_target"),
        ({"seed": -1}, "seed"),
    ],
)
def test_unusable_options_are_named(given, named: str) -> None:
    with pytest.raises(InputError, match=named):
        read_settings(given, where="here", refused={"estimator": "decided elsewhere"}, prefix="x_")


def test_no_limit_of_rollouts() -> None:
    assert read_settings({"max_rollouts": math.inf}, where="here").max_rollouts == math.inf
    with pytest.raises(InputError, match="min_rollouts"):
        read_settings({"min_rollouts": math.inf}, where="here")
    agent = VIP(max_rollouts=math.inf, strategy="oracle", features=None, cache=None)
    agent.tell_oracle(["a", "b"], [0.5, 0.0])
    assert agent.allocate(["a", "b"], 64).counts.tolist() == [62, 2]


@pytest.mark.parametrize(
    "shadow", [["ema", "paper"], ("ema", "paper"), np.array(["ema", "paper"]), iter(["ema", "paper"])]
)
def test_shadows_in_any_sequence(shadow) -> None:
    agent = VIP(shadow=shadow, features="length", cache=None)
    assert list(agent.strategies) == ["default", "ema", "paper"] and "shadow=" in repr(agent)


def test_settings_show_what_differs_from_the_defaults() -> None:
    assert repr(Settings()) == "Settings()"
    assert repr(EngineSettings(min_rollouts=4, text=str)) == "EngineSettings(min_rollouts=4, text=builtins:str)"
    assert "at 0x" not in repr(Settings(text=lambda prompt: "x", features=object(), success=functools.partial(max, 0)))
