"""The keys of a run, and the options of the trainer."""

from __future__ import annotations

import pytest

from refused import refused
from viprl.errors import ConfigError
from viprl.train.config import load_config, parse_config
from viprl.train.trainer_options import accumulation_steps, trainer_config


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
