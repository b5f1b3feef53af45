"""The configs and the construction of the TRL trainers."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from trl import RLOOConfig, TrlParser
from trl_runs import N, build, options

import tiny
from viprl import VIP, Prediction, Predictor
from viprl.engines.trl import VIPGRPOConfig, VIPRLOOConfig, VIPRLOOTrainer
from viprl.engines.trl.trainer_configs import check_given_vip
from viprl.engines.trl.trl_api import CONTRACT
from viprl.errors import InputError
from viprl.settings import EngineSettings
from viprl.settings import options as options_of
from viprl.strategies import Strategy, build_strategy

DOCUMENTATION = (Path(__file__).parents[3] / "docs" / "trl.md").read_text()


@pytest.mark.parametrize("config", [VIPGRPOConfig, VIPRLOOConfig])
def test_a_config_has_every_option_of_vip_with_its_default_and_help(config):
    fields = {f.name: f for f in dataclasses.fields(config)}
    expected = options_of(EngineSettings, without=("seed",))
    assert {name for name in fields if name.startswith("vip_")} == {f"vip_{f.name}" for f in expected}
    for option in expected:
        mine = fields[f"vip_{option.name}"]
        assert (mine.default, mine.metadata["help"]) == (option.default, option.metadata["help"])
        assert f"vip_{option.name} (" in config.__doc__ and f"`vip_{option.name}`" in DOCUMENTATION


def test_yaml_and_command_line(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(f"output_dir: {tmp_path}\nuse_cpu: true\nbf16: false\nvip_success: 0.5\nvip_shadow: [paper]\n")
    more = ["--config", str(file), "--num_generations", "4", "--per_device_train_batch_size", "8"]
    more += ["--vip_min_rollouts", "3", "--vip_cache", "some/folder", "--vip_use_logprobs", "false"]
    (args,) = TrlParser([VIPGRPOConfig]).parse_args_and_config(more)
    assert (args.vip_success, args.vip_shadow, args.vip_cache) in [(0.5, ["paper"], "some/folder")]
    assert (args.vip_min_rollouts, args.vip_use_logprobs, args.vip_features) == (3, False, "auto")


def test_the_values_that_are_used_are_visible(tmp_path):
    args = VIPRLOOConfig(**options(tmp_path), vip_shadow="paper")
    assert (args.vip_estimator, args.vip_min_rollouts, args.vip_max_rollouts) == ("rloo", 2, 6 * N)
    assert args.vip_shadow == ["paper"]
    assert VIPGRPOConfig(**options(tmp_path), vip_strategy="paper").vip_estimator == "dr_grpo"
    with pytest.warns(UserWarning, match="'grpo'"):
        assert VIPGRPOConfig(**options(tmp_path), scale_rewards="group").vip_min_rollouts == 3


def test_objects_become_names_in_json(tmp_path):
    own = Strategy(build_strategy("beta").predictor, name="mine")
    values = VIPRLOOConfig(**options(tmp_path), vip_strategy=own, vip_shadow=[own, "paper"]).to_dict()
    assert (values["vip_strategy"], values["vip_shadow"]) == ("mine", ["mine", "paper"])


def test_checkpoints_keep_the_names_of_objects(tmp_path):
    """transformers pickles the config into each checkpoint."""

    class Local(Predictor):
        def predict(self, batch):
            return Prediction.of_points(np.full(len(batch.keys), 0.5))

        def observe(self, batch, successes, rollouts): ...

        def state_dict(self):
            return {}

        def load_state_dict(self, state): ...

    more = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    more |= {"vip_success": lambda total: total > 0.5, "vip_strategy": Strategy(Local(), name="local")}
    trainer = build("rloo", tmp_path, vip_shadow=[Strategy(Local(), name="other"), "uniform"], **more)
    trainer.train()
    kept = torch.load(tmp_path / "checkpoint-1" / "training_args.bin", weights_only=False)
    assert ("lambda" in kept.vip_success, kept.vip_strategy, kept.vip_shadow) == (True, "local", ["other", "uniform"])
    for twin in (copy.copy(trainer.args), copy.deepcopy(trainer.args)):
        assert twin.vip_success is trainer.args.vip_success and isinstance(twin.vip_strategy, Strategy)
        assert twin.output_dir == str(tmp_path)


def test_a_vip_that_is_passed_says_what_success_is(tmp_path):
    vip = VIP(success=0.2, strategy="uniform", features="none")
    trainer = build("rloo", tmp_path, reward=[tiny.contains, tiny.contains], vip=vip, max_steps=1)
    trainer.train()
    assert trainer.vip_batch.observation.rollouts.sum() == 16


@pytest.mark.parametrize(
    ("config", "given", "named"),
    [
        (VIPRLOOConfig, {"auto_find_batch_size": True}, "auto_find_batch_size"),
        (VIPRLOOConfig, {"vip_min_rollouts": 5}, "vip_min_rollouts=5.*num_generations=4.*generation_batch_size=16"),
        (VIPRLOOConfig, {"vip_max_rollouts": 3}, "vip_max_rollouts=3"),
        (VIPRLOOConfig, {"vip_estimator": "dr_grpo"}, "vip_estimator.*'dr_grpo'"),
        (VIPRLOOConfig, {"vip_strategy": "defualt"}, "vip_strategy.*default"),
        (VIPRLOOConfig, {"vip_strategy": "oracle"}, "'oracle'"),
        (VIPRLOOConfig, {"vip_shadow": ["paper", "oracle"]}, "'oracle'"),
        (VIPRLOOConfig, {"vip_prompt_weighting": "equal"}, "^vip_prompt_weighting is 'equal'"),
        (VIPGRPOConfig, {"vip_estimator": "dr_grpo", "vip_min_rollouts": 2}, "'dr_grpo'.*at least 3"),
        (VIPGRPOConfig, {"vip_estimator": "rloo", "scale_rewards": "group"}, "'rloo'.*'group'"),
        (VIPGRPOConfig, {"scale_rewards": "bogus"}, "'bogus'"),
    ],
)
def test_options_that_cannot_work(config, given, named, tmp_path):
    with pytest.raises(ValueError, match=named):
        config(**options(tmp_path), **given)


@pytest.mark.parametrize(
    ("config", "given"), [(VIPGRPOConfig, {"scale_rewards": "batch"}), (VIPRLOOConfig, {"normalize_advantages": True})]
)
def test_scaling_that_the_variance_model_ignores_causes_a_warning(config, given, tmp_path):
    with pytest.warns(UserWarning, match=next(iter(given))):
        config(**options(tmp_path), **given)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"vip_features": "bogus"}, "^vip_features is 'bogus'"),
        ({"vip_features": "none", "vip_strategy": "paper"}, "vip_features is 'none'; set vip_features='minilm'"),
        ({"vip_success": "bogus"}, "^vip_success names"),
        ({"vip_success": math.nan}, "^vip_success is nan"),
        ({"vip_id_column": "nothing"}, "^vip_id_column is 'nothing'"),
        ({"vip_spend": "all"}, "^vip_spend is 'all'"),
        ({"vip_cost": "seconds"}, "^vip_cost is 'seconds'"),
        ({"vip_spend": "match", "vip_variance_target": 0}, "^vip_variance_target is 0"),
        ({"vip_spend": "match", "vip_variance_target": "two"}, "^vip_variance_target is 'two'"),
    ],
)
def test_errors_say_the_names_of_the_options(given, named, tmp_path):
    with pytest.raises(InputError, match=named) as error:
        build("rloo", tmp_path, **given)
    assert not re.search(r"(?<!vip_)\b(features|min_rollouts|spend|cost|variance_target)(=| is )", str(error.value))


def test_arguments_that_cannot_work(tmp_path):
    with pytest.raises(TypeError, match="VIPRLOOConfig"):
        VIPRLOOTrainer(tiny.model(), tiny.contains, RLOOConfig(**options(tmp_path)))
    with pytest.raises(InputError, match="normalize_then_sum"):
        build("grpo", tmp_path, multi_objective_aggregation="normalize_then_sum")
    with pytest.raises(InputError, match="vip_success"):
        build("rloo", tmp_path, reward=[tiny.contains, tiny.contains], vip_success="contains")
    with pytest.raises(InputError, match=r"vip_id_column.*'nothing'"):
        build("rloo", tmp_path, vip_id_column="nothing")
    with pytest.raises(InputError, match=r"3 prompts.* 4 "):
        build("rloo", tmp_path, data=tiny.dataset(3))
    with pytest.raises(InputError, match="question"):
        build("rloo", tmp_path, data=tiny.dataset().rename_column("prompt", "question"))


def test_args_may_be_left_out_and_the_model_card_credits_vip(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.model().save_pretrained("start")
    tiny.tokenizer().save_pretrained("start")
    build("rloo", tmp_path / "run", save_strategy="steps", save_steps=1, max_steps=1).train()
    card = (tmp_path / "run" / "README.md").read_text()
    assert "VIP-RLOO" in card and "2602.01601" in card and "2402.14740" not in card

    @dataclass
    class OnCPU(VIPRLOOConfig):
        use_cpu: bool = True
        bf16: bool = False
        vip_features: str = "none"

    class Trainer(VIPRLOOTrainer):
        _config_class = OnCPU

    default = Trainer("start", tiny.contains, train_dataset=tiny.dataset())
    assert type(default.args) is OnCPU and default.args.output_dir == "start-VIP-RLOO"


def test_contract_with_the_installed_trl():
    CONTRACT.check()
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert CONTRACT.requirement in project["optional-dependencies"]["trl"]


@pytest.mark.parametrize(
    ("asked", "given", "warns"),
    [
        ({"vip_spend": "match"}, {}, True),
        ({"vip_cost": "tokens"}, {"spend": "match"}, True),
        ({"vip_spend": "match"}, {"spend": "match"}, False),
        ({}, {"spend": "match"}, False),
    ],
)
def test_options_that_a_given_vip_does_not_have(caplog, tmp_path, asked, given, warns):
    check_given_vip(VIPGRPOConfig(**options(tmp_path, **asked)), VIP(features=None, cache=None, **given))
    assert (len(caplog.records) == 1) == warns


def test_a_given_vip_has_the_baseline_of_the_config(tmp_path):
    with pytest.raises(InputError):
        check_given_vip(VIPGRPOConfig(**options(tmp_path)), VIP(features=None, cache=None, baseline="expected"))
