"""The keys of a run, and the options of the trainer."""

from __future__ import annotations

import re

import pytest

from refused import refused
from viprl.errors import ConfigError
from viprl.runs.resume_options import MAY_CHANGE, WITHOUT_EFFECT
from viprl.train.config import OWN_KEYS, load_config, parse_config
from viprl.train.other_keys import INSTEAD
from viprl.train.trainer_options import accumulation_steps, option_names, trainer_config


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"vip_stratgy": "paper"}, ["`vip_stratgy`", "vip_strategy"]),
        ({"num_generation": 8}, ["num_generations"]),
        ({"algorithm": "ppo"}, ["'ppo'", "rloo or grpo"]),
        ({"reward": "exactmatch"}, ["'exactmatch'", "exact_match", "module:function"]),
        ({"reward": "nowhere:reward"}, ["nowhere"]),
        ({"reward": 3}, ["reward is 3"]),
        ({"reward": "mine.py:right"}, ["'mine:right'"]),
        ({"chat": "yes"}, ["chat is 'yes'", "true or false"]),
        ({"max_prompt_length": 0}, ["max_prompt_length is 0", "at least 1"]),
        ({"duplicates": "no"}, ["duplicates is 'no'"]),
        ({"instruction": "box"}, ["instruction is 'box'", "boxed"]),
        ({"update_batch_size": 16, "gradient_accumulation_steps": 1}, ["gradient_accumulation_steps"]),
        ({"dataset": {"gym": "chain_sum"}}, ["reasoning-gym: TASK"]),
        ({"eval_split": "test"}, ["eval_split is 'test'", "eval_dataset"]),
        ({"arms": {"a": {}}}, ["viprl sweep"]),
        ({"duplicates": True}, ["duplicates is True", "keep or drop"]),
        ({"use_peft": True}, ["`use_peft`", "peft: {r: 16"]),
        ({"peft_config": {"r": 4}}, ["`peft_config`", "peft: {r: 16"]),
        ({"lora_target_modules": ["q_proj"]}, ["`lora_target_modules`", "peft: {target_modules: ...}"]),
        ({"strategy": "paper"}, ["`strategy`", "vip_strategy"]),
        ({"scale_rewards": "group"}, ["`scale_rewards`", "algorithm: grpo"]),
        ({"algorithm": "grpo", "normalize_advantages": True}, ["`normalize_advantages`", "algorithm: rloo"]),
        ({"reward_funcs": "math"}, ["`reward_funcs`", "reward: ..."]),
        ({"torch_dtype": "bfloat16"}, ["`torch_dtype`", "model_init_kwargs: {dtype: ...}"]),
        ({"resume_from_checkpoint": True}, ["`resume_from_checkpoint`", "output_dir"]),
        ({"trainer": 3}, ["`trainer`"]),
        ({"model": None}, ["`model`"]),
    ],
)
def test_mistakes_in_the_keys(settings, change, parts):
    with refused(ConfigError, "mine.yaml", *parts):
        parse_config({key: value for key, value in (settings | change).items() if value is not None}, "mine.yaml")


def test_numbers_of_yaml_become_what_the_option_takes(settings):
    """YAML reads 1e-6 as a text."""
    args = trainer_config(parse_config(settings | {"learning_rate": "1e-6", "max_steps": "3", "save_steps": 2.0}))
    assert (args.learning_rate, args.max_steps, args.save_steps) == (1e-6, 3, 2) and type(args.save_steps) is int
    assert trainer_config(parse_config(settings | {"vip_shadow": None})).vip_shadow is None


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"max_steps": None}, ["max_steps", "-1"]),
        ({"learning_rate": "fast"}, ["learning_rate is 'fast'", "a number"]),
        ({"max_steps": 10.5}, ["max_steps is 10.5", "a whole number"]),
        ({"max_steps": "10.5"}, ["max_steps is '10.5'", "a whole number"]),
        ({"update_batch_size": 24}, ["update_batch_size is 24", "16 x 1 = 16"]),
        ({"per_device_train_batch_size": 6}, ["divisible", "steps_per_generation"]),
        ({"vip_min_rollouts": 7}, ["vip_min_rollouts=7", "num_generations=4", "generation_batch_size=16"]),
        ({"vip_max_rollouts": 3}, ["vip_max_rollouts=3"]),
        ({"vip_strategy": "papr"}, ["'papr'"]),
        ({"vip_min_rollouts": 5, "vip_max_rollouts": 3}, ["vip_min_rollouts is 5", "vip_max_rollouts is 3"]),
        ({"num_generations": 0}, ["num_generations is 0", "at least 1"]),
        ({"per_device_train_batch_size": -16}, ["per_device_train_batch_size is -16"]),
        ({"gradient_accumulation_steps": 0}, ["gradient_accumulation_steps is 0"]),
        ({"generation_batch_size": 0}, ["generation_batch_size is 0"]),
        ({"max_completion_length": 0}, ["max_completion_length is 0"]),
        ({"max_steps": 0}, ["max_steps is 0", "-1"]),
        ({"max_steps": -1, "num_train_epochs": 0}, ["num_train_epochs is 0"]),
        ({"temperature": 0}, ["temperature is 0"]),
        ({"learning_rate": -1}, ["learning_rate is -1"]),
        ({"learning_rate": float("nan")}, ["learning_rate is nan", "finite"]),
        ({"top_p": 2}, ["top_p is 2"]),
        ({"save_steps": 0}, ["save_steps is 0"]),
        ({"seed": -1}, ["seed is -1"]),
        ({"seed": 2**32}, ["seed is 4294967296"]),
        ({"use_cpu": "yes"}, ["use_cpu is 'yes'", "true or false"]),
        ({"chat_template_kwargs": "thinking"}, ["chat_template_kwargs is 'thinking'", "a mapping"]),
        ({"model_init_kwargs": {"dtype": "float17"}}, ["'float17'", "bfloat16"]),
        ({"lr_scheduler_type": "linnear"}, ["linnear", "linear"]),
        ({"load_best_model_at_end": True}, ["load_best_model_at_end"]),
    ],
)
def test_mistakes_in_the_options_of_the_trainer(settings, change, parts):
    with refused(ConfigError, *parts):
        trainer_config(parse_config(settings | change))


def test_the_optimizer_step_does_not_depend_on_the_number_of_processes(settings, monkeypatch):
    assert accumulation_steps(64, 4, 1) == 16 and accumulation_steps(64, 4, 8) == 2
    config = parse_config(settings | {"update_batch_size": 64})
    assert trainer_config(config).gradient_accumulation_steps == 4
    assert trainer_config(config, dry_run=True, processes=2).gradient_accumulation_steps == 2
    monkeypatch.setattr("viprl.train.trainer_options.world_size", lambda: 4)
    assert trainer_config(config).gradient_accumulation_steps == 1


def test_overrides_come_on_top_of_the_file(settings, tmp_path):
    (tmp_path / "c.yaml").write_text("".join(f"{key}: {value!r}\n" for key, value in settings.items()))
    config = load_config(tmp_path / "c.yaml", ["max_steps=7", "instruction=boxed"])
    assert (config.trainer["max_steps"], config.instruction) == (7, "boxed")
    assert config.output_dir == str(tmp_path / "run")


def test_what_yaml_and_trl_read_in_several_ways(settings):
    """YAML 1.1 reads `no` as false; TRL takes scale_rewards: true."""
    args = trainer_config(parse_config(settings | {"eval_strategy": False, "vip_shadow": "paper", "report_to": None}))
    assert args.eval_strategy == "no" and args.vip_shadow == ["paper"] and args.report_to == []
    grpo = settings | {"algorithm": "grpo"}
    assert trainer_config(parse_config(grpo | {"scale_rewards": True})).scale_rewards == "group"
    assert trainer_config(parse_config(grpo | {"scale_rewards": False})).scale_rewards == "none"
    assert trainer_config(parse_config(settings | {"vip_success": 0.5})).vip_success == "0.5"


def test_every_name_from_elsewhere_leads_to_a_key(settings):
    known = {*OWN_KEYS, *option_names("rloo"), *option_names("grpo")}
    for key, words in INSTEAD.items():
        assert key not in known - {"resume_from_checkpoint", "use_peft"}
        for name in re.findall(r"write `(\w+): ", words):
            assert name in known


def test_what_may_differ_on_resume_are_options_that_exist():
    """In this version of TRL, or in another supported one."""
    older = {"include_tokens_per_second", "logging_dir", "overwrite_output_dir", "save_safetensors"}
    known = {*OWN_KEYS, *option_names("rloo"), *option_names("grpo"), *older, "wandb_log_unique_prompts"}
    assert {*WITHOUT_EFFECT, *MAY_CHANGE} <= known
    learned = {"learning_rate", "beta", "temperature", "num_generations", "seed", "lr_scheduler_type", "bf16", "peft"}
    assert not {*learned, "model", "dataset", "reward", "vip_success", "vip_min_rollouts", "loss_type"} & WITHOUT_EFFECT
