"""The overrides of verl in the documentation compose with verl's own configuration, and its names exist."""

from __future__ import annotations

import re

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY

import documentation
import viprl.engines.verl.plugin  # noqa: F401

KEYS = re.compile(r"(?<![\w.+/])(\+?(?:algorithm|data|trainer|actor_rollout_ref|reward)(?:\.\w+)+)(?=[=`])")
PAGES = [page for page in documentation.PAGES if page != "docs/trl.md"]  # whose trainer is an object
DIFFS = [block for block in documentation.all_blocks("diff") if "verl" in block.text]


def composed(*overrides: str):
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=list(overrides))


@pytest.mark.parametrize("block", DIFFS, ids=str)
def test_the_changed_command_composes(block):
    kept = [line[1:].strip(" \\") for line in block.text.splitlines() if line[0] in " +"]
    command, *overrides = [line for line in kept if line and line != "..."]
    assert command == "python -m verl.trainer.main_ppo"
    made = composed(*overrides)
    assert made.trainer.v1.trainer_mode == "vip_sync"
    assert made.algorithm.adv_estimator in ADV_ESTIMATOR_REGISTRY


def test_every_key_of_verl_in_the_pages_exists():
    base = composed()
    found = {(page, key) for page in PAGES for key in KEYS.findall(documentation.read(page))}
    assert len(found) > 8
    for page, key in found:
        if not key.removeprefix("+").startswith("trainer.v1.vip_sync"):
            known = OmegaConf.select(base, key.removeprefix("+").rpartition(".")[0])
            assert known is not None, f"{page} names {key}"
            assert key.startswith("+") or key.rpartition(".")[2] in known, f"{page} names {key}"
