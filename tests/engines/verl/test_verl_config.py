"""What a user writes: options, contradictions, what is set, and how a plugin that cannot load is answered."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir, initialize_config_module
from omegaconf import OmegaConf, open_dict
from verl.trainer.ppo.v1 import get_trainer_cls
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from viprl.engines.verl import contract, plugin
from viprl.engines.verl.consistency import contradictions, padding, refuse, settle
from viprl.engines.verl.options import Options, read_options
from viprl.engines.verl.sync_trainer import VIPTrainerSync

MODE = ["trainer.v1.trainer_mode=vip_sync", "algorithm.adv_estimator=vip_rloo"]
SIZES = [
    "data.train_batch_size=16",
    "actor_rollout_ref.rollout.name=vllm",
    "actor_rollout_ref.rollout.n=8",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
]


def config(*overrides: str):
    """verl's own configuration as its command line composes it."""
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=[*SIZES, *MODE, *overrides])


def options(given=None, adv_estimator="vip_rloo", prompts=16, rollout_n=8):
    return read_options(given, adv_estimator=adv_estimator, prompts=prompts, rollout_n=rollout_n)


def settled(*overrides: str, **given):
    made = config(*overrides)
    with open_dict(made):
        lines = settle(made, Options(**given))
    return made, "\n".join(lines)


def test_verl_finds_the_plugin_by_itself():
    entry = {point.name: point.value for point in metadata.entry_points(group="verl.plugins")}
    assert entry["viprl"] == "viprl.engines.verl.plugin"
    assert get_trainer_cls("vip_sync") is VIPTrainerSync


def test_defaults():
    assert options() == Options(min_rollouts=2, max_rollouts=48)
    assert options(adv_estimator="vip_dr_grpo").low == 3


@pytest.mark.parametrize(
    "given, message",
    [
        ({"lo": 2}, "did you mean 'low'"),
        ({"low": 1}, "low is 1, but estimator 'rloo' needs groups of at least 2"),
        ({"low": 2.5}, "expected a whole number"),
        ({"low": 9}, "cannot be met"),
        ({"high": 7}, "cannot be met"),
        ({"strategy": "vip"}, "vip"),
        ({"shadow": ["papers"]}, "papers"),
        ({"prompt_weighting": "tokens"}, "prompt_weighting"),
    ],
)
def test_options_that_cannot_be(given, message):
    with pytest.raises(ValueError, match=message):
        options(given)


def test_low_below_the_minimum_of_dr_grpo():
    with pytest.raises(ValueError, match="'dr_grpo' needs groups of at least 3"):
        options({"low": 2}, adv_estimator="vip_dr_grpo")


def test_another_estimator_is_refused():
    with pytest.raises(ValueError, match="adv_estimator is 'grpo'"):
        options(adv_estimator="grpo")


@pytest.mark.parametrize(
    "override, message",
    [
        ("algorithm.filter_groups.enable=True", "dynamic sampling"),
        ("trainer.use_v1=False", "v0 trainer"),
        ("trainer.v1.sampler.sync_refill_failed_groups=True", "sync_refill_failed_groups"),
        ("skip.rollout_tq.enable=True", "skip.rollout_tq"),
    ],
)
def test_what_keeps_no_budget_is_refused_before_any_worker(override, message):
    with pytest.raises(ValueError, match=message):
        refuse(config(override))
    with pytest.raises(ValueError, match=message):
        VIPTrainerSync(config(override))
    refuse(config())


def test_the_loss_is_set_and_told():
    made, lines = settled()
    actor = made.actor_rollout_ref.actor
    assert actor.loss_agg_mode == "seq-mean-token-sum-norm" and "was token-mean" in lines
    assert actor.loss_scale_factor == made.data.max_response_length == 512 and "loss_scale_factor=512" in lines
    assert made.algorithm.norm_adv_by_std_in_grpo is False and "not divided by a std" in lines


@pytest.mark.parametrize("mode", ["seq-mean-token-mean", "seq-mean-token-sum", "token-sum"])
def test_an_even_loss_is_kept(mode):
    made, lines = settled(f"actor_rollout_ref.actor.loss_agg_mode={mode}")
    assert made.actor_rollout_ref.actor.loss_agg_mode == mode and "loss_agg_mode" not in lines
    assert made.actor_rollout_ref.actor.loss_scale_factor is None


def test_a_chosen_scale_is_kept():
    loss = "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-sum-norm"
    made, _ = settled(loss, "actor_rollout_ref.actor.loss_scale_factor=99")
    assert made.actor_rollout_ref.actor.loss_scale_factor == 99


def test_rollout_weighting_leaves_the_loss_alone():
    made, lines = settled(prompt_weighting="rollout")
    assert made.actor_rollout_ref.actor.loss_agg_mode == "token-mean" and "variance law does not hold" in lines


def test_what_weights_do_not_reach_is_told():
    assert "KL loss" in settled("actor_rollout_ref.actor.use_kl_loss=True")[1]
    assert "geo_mean" in settled("actor_rollout_ref.actor.policy_loss.loss_mode=geo_mean")[1]


@pytest.mark.parametrize(
    "prompts, mini, gpus, rows",
    [(16, 8, 8, 0), (12, 8, 8, 32), (16, 5, 4, 32), (16, 16, 8, 0), (3, 2, 2, 8)],
)
def test_padding_is_foretold(prompts, mini, gpus, rows):
    made = config(
        f"data.train_batch_size={prompts}",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={mini}",
        f"trainer.n_gpus_per_node={gpus}",
    )
    lines = padding(made)
    assert bool(lines) == bool(rows)
    if rows:
        assert f"verl adds {rows} masked rows" in lines[0]


def test_a_mini_batch_that_ranks_cannot_share_is_refused():
    with pytest.raises(ValueError, match="3 data-parallel ranks"):
        padding(config("trainer.n_gpus_per_node=3"))


@pytest.mark.parametrize(
    "argument, message",
    [
        ("actor_rollout_ref.actor.loss_agg_mode=token-mean", "divides by the tokens"),
        ("algorithm.norm_adv_by_std_in_grpo=True", "divides by a std"),
        ("algorithm.filter_groups.enable=True", "keeps no budget"),
        ("trainer.use_v1=False", "v0 trainer"),
        ("algorithm.adv_estimator=grpo", "expected vip_rloo or vip_dr_grpo"),
    ],
)
def test_explicit_contradictions_are_answered_before_ray_starts(argument, message):
    assert contradictions(MODE) == []
    (line,) = contradictions([*MODE, argument])
    assert message in line
    with pytest.raises(SystemExit, match=message):
        plugin.register([*MODE, argument])


@pytest.mark.parametrize("mode", ["trainer.v1.trainer_mode=colocate_async", "trainer.total_epochs=1"])
def test_the_estimators_belong_to_the_mode(mode):
    (line,) = contradictions([mode, "algorithm.adv_estimator=vip_rloo"])
    assert "needs trainer.v1.trainer_mode=vip_sync" in line


def test_the_mode_may_stand_in_a_file():
    arguments = ["--config-dir", "recipes/verl", "--config-name", "paper", "algorithm.adv_estimator=vip_rloo"]
    assert contradictions(arguments) == []
    assert contradictions([*arguments, "trainer.v1.trainer_mode=sync"]) != []


def test_flat_weights_go_with_any_loss():
    flat = "+trainer.v1.vip_sync.prompt_weighting=rollout"
    assert contradictions([*MODE, flat, "actor_rollout_ref.actor.loss_agg_mode=token-mean"]) == []


def test_a_stock_command_is_none_of_our_business():
    assert contradictions(["algorithm.adv_estimator=grpo", "algorithm.filter_groups.enable=True"]) == []


def modules():
    import importlib

    return {name: importlib.import_module(name) for name in contract.USED}


def test_contract_with_the_installed_verl():
    assert contract.installed() == contract.VERL
    contract.check(PPOTrainerSync)


def test_contract_names_the_method_that_moved():
    class Moved(PPOTrainerSync):
        _next_train_batch = None

        def _compute_advantage(self, batch):
            pass

    with pytest.raises(ImportError) as error:
        contract.check(Moved, {**modules(), "transfer_queue": SimpleNamespace()})
    assert "Moved._next_train_batch is gone" in str(error.value)
    assert "Moved._compute_advantage no longer takes metrics" in str(error.value)
    assert "transfer_queue.kv_batch_get is gone" in str(error.value)


def test_verl_still_reads_the_count_where_we_put_it():
    import inspect

    from verl.trainer.ppo.v1 import agent_loop_tq

    from viprl.engines.verl.rollouts import ROLLOUTS

    assert f'pop("{ROLLOUTS}"' in inspect.getsource(agent_loop_tq)


def test_a_plugin_that_cannot_load_says_why(monkeypatch):
    import sys

    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

    monkeypatch.setitem(TRAINER_REGISTRY, "vip_sync", TRAINER_REGISTRY["vip_sync"])
    monkeypatch.setitem(sys.modules, "viprl.engines.verl.trainer", None)  # its import now fails
    monkeypatch.delattr(sys.modules["viprl.engines.verl"], "trainer")
    with pytest.raises(SystemExit, match="trainer_mode=vip_sync cannot be had"):
        plugin.register(MODE)
    plugin.register([])
    with pytest.raises(ImportError, match="trainer_mode=vip_sync cannot be had: viprl did not load beside this verl"):
        get_trainer_cls("vip_sync")(config())


RECIPE = Path(__file__).parents[3] / "recipes" / "verl"


@pytest.mark.parametrize("estimator", ["rloo", "dr_grpo"])
@pytest.mark.parametrize("budget, low, high", [(8, 4, 16), (16, 8, 32)])
@pytest.mark.parametrize("strategy", ["default", "paper", "uniform", "inverse_accuracy", "ridge"])
def test_rows_of_the_recipe_compose(estimator, budget, low, high, strategy):
    """What train.sh adds to paper.yaml, on 8 to 32 GPUs: accepted, and nothing to pad."""
    overrides = [
        "actor_rollout_ref.model.path=some/model",
        f"algorithm.adv_estimator=vip_{estimator}",
        f"actor_rollout_ref.rollout.n={budget}",
        f"trainer.v1.vip_sync.min_rollouts={low}",
        f"trainer.v1.vip_sync.max_rollouts={high}",
        f"trainer.v1.vip_sync.strategy={strategy}",
    ]
    with initialize_config_dir(str(RECIPE), version_base=None):
        made = compose("paper", [*overrides, "hydra.searchpath=[pkg://verl.trainer.config]"])
    given = read_options(
        OmegaConf.to_container(made.trainer.v1.vip_sync),
        adv_estimator=made.algorithm.adv_estimator,
        prompts=made.data.train_batch_size,
        rollout_n=budget,
    )
    assert (given.low, given.high, given.strategy) == (low, high, strategy)
    refuse(made)
    for nodes in (1, 2, 4):
        made.trainer.nnodes = nodes
        assert padding(made) == []
