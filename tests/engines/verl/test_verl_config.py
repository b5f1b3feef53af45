"""The configuration: options, contradictions, settings that are changed, and a plugin that cannot be loaded."""

from __future__ import annotations

import inspect
import sys
from importlib import metadata
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir, initialize_config_module
from omegaconf import OmegaConf, open_dict
from verl.trainer.ppo.v1 import agent_loop_tq, get_trainer_cls
from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

from viprl.engines.verl import plugin
from viprl.engines.verl.consistency import ACTOR, EVEN_LOSSES, check_baseline, contradictions, padding, refuse, settle
from viprl.engines.verl.namespace import REFUSED, read_namespace, written_namespace
from viprl.engines.verl.rollouts import ROLLOUTS
from viprl.engines.verl.sync_trainer import VIPTrainerSync
from viprl.engines.verl.verl_api import CONTRACT
from viprl.errors import InputError, MissingPackageError
from viprl.settings import EngineSettings

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
    return read_namespace(given, adv_estimator=adv_estimator, prompts=prompts, rollout_n=rollout_n)


def settled(*overrides: str, prompt_weighting: str = "prompt", **spending: str):
    made = config(*overrides)
    with open_dict(made):
        lines = settle(made, EngineSettings(prompt_weighting=prompt_weighting, **spending))
    return made, "\n".join(lines)


def test_verl_finds_the_plugin_by_itself():
    entry = {point.name: point.value for point in metadata.entry_points(group="verl.plugins")}
    assert entry["viprl"] == "viprl.engines.verl.plugin"
    assert get_trainer_cls("vip_sync") is VIPTrainerSync


def test_the_estimator_decides_the_smallest_group():
    assert options() == EngineSettings(estimator="rloo", min_rollouts=2, max_rollouts=48)
    assert options(adv_estimator="vip_dr_grpo").min_rollouts == 3
    with pytest.raises(InputError, match=r"'dr_grpo'.*at least 3"):
        options({"min_rollouts": 2}, adv_estimator="vip_dr_grpo")
    with pytest.raises(InputError, match=r"'grpo'.*vip_rloo"):
        options(adv_estimator="grpo")


def test_the_expected_baseline_belongs_to_vip_rloo():
    assert options({"baseline": "expected"}).baseline == "expected"
    with pytest.raises(InputError, match=r"baseline=expected.*vip_rloo.*vip_dr_grpo"):
        options({"baseline": "expected"}, adv_estimator="vip_dr_grpo")
    check_baseline(config(), "expected")
    check_baseline(config("algorithm.use_kl_in_reward=True"), "group")
    with pytest.raises(InputError):
        check_baseline(config("algorithm.use_kl_in_reward=True"), "expected")
    (line,) = contradictions([MODE[0], "algorithm.adv_estimator=vip_dr_grpo", "+trainer.v1.vip_sync.baseline=expected"])
    assert "vip_rloo" in line


def test_the_namespace_is_written_back_with_the_values_that_are_used():
    used = options({"shadow": "paper", "success": "acc>=0.5", "cache": None, "use_logprobs": False})
    written = written_namespace(used)
    assert (written["shadow"], written["max_rollouts"], written["use_logprobs"]) == (["paper"], 48, False)
    assert not REFUSED.keys() & written.keys()
    assert written_namespace(options(written)) == written


@pytest.mark.parametrize(
    "given, named",
    [
        ({"min_rollout": 2}, "'min_rollout'.*min_rollouts"),
        ({"min_rollouts": 1}, "min_rollouts is 1.*'rloo'.*at least 2"),
        ({"min_rollouts": 2.5}, "min_rollouts is 2.5"),
        ({"min_rollouts": 9}, r"train_batch_size=16, rollout\.n=8.*min_rollouts=9"),
        ({"max_rollouts": 7}, r"rollout\.n=8.*max_rollouts=7"),
        ({"use_logprobs": "no"}, "use_logprobs is 'no'"),
        ({"strategy": "vip"}, "'vip'"),
        ({"shadow": ["papers"]}, "'papers'"),
        ({"prompt_weighting": "tokens"}, "prompt_weighting is 'tokens'"),
        ({"candidates": 0}, "candidates is 0"),
        ({"candidates": 1.5}, "candidates is 1.5"),
        ({"baseline": "group_mean"}, "baseline is 'group_mean'"),
        ({"on_bad_prediction": "ignore"}, "on_bad_prediction is 'ignore'"),
        *(({name: None}, name) for name in REFUSED),
    ],
)
def test_options_that_cannot_be_used(given, named):
    with pytest.raises(InputError, match=named):
        options(given)


@pytest.mark.parametrize(
    "override",
    [
        "algorithm.filter_groups.enable=True",
        "trainer.use_v1=False",
        "trainer.v1.sampler.sync_refill_failed_groups=True",
        "skip.rollout_tq.enable=True",
    ],
)
def test_settings_without_a_fixed_budget_are_refused_before_any_worker_starts(override):
    with pytest.raises(InputError, match=override):
        VIPTrainerSync(config(override))
    refuse(config())


def test_the_loss_is_set_and_reported():
    made, lines = settled()
    actor = made.actor_rollout_ref.actor
    assert actor.loss_agg_mode == "seq-mean-token-sum-norm" and "was token-mean" in lines
    assert actor.loss_scale_factor == made.data.max_response_length == 512 and "loss_scale_factor=512" in lines
    assert made.algorithm.norm_adv_by_std_in_grpo is False and "norm_adv_by_std_in_grpo=False" in lines


@pytest.mark.parametrize(
    ("overrides", "weighting", "mode", "scale"),
    [
        *((["loss_agg_mode=" + mode], "prompt", mode, None) for mode in EVEN_LOSSES[1:]),
        (["loss_agg_mode=seq-mean-token-sum-norm", "loss_scale_factor=99"], "prompt", "seq-mean-token-sum-norm", 99),
        ([], "rollout", "token-mean", None),
    ],
)
def test_a_loss_that_fits_is_kept(overrides, weighting, mode, scale):
    made, lines = settled(*(f"actor_rollout_ref.actor.{name}" for name in overrides), prompt_weighting=weighting)
    actor = made.actor_rollout_ref.actor
    assert (actor.loss_agg_mode, actor.loss_scale_factor) == (mode, scale)
    assert "loss_agg_mode" not in lines and ("prompt_weighting=rollout" in lines) == (weighting == "rollout")


def test_terms_without_prompt_weights_are_reported():
    assert "KL loss" in settled("actor_rollout_ref.actor.use_kl_loss=True")[1]
    assert "geo_mean" in settled("actor_rollout_ref.actor.policy_loss.loss_mode=geo_mean")[1]


@pytest.mark.parametrize(
    "prompts, mini, gpus, rows", [(16, 8, 8, 0), (12, 8, 8, 32), (16, 5, 4, 32), (16, 16, 8, 0), (3, 2, 2, 8)]
)
def test_padding_is_reported(prompts, mini, gpus, rows):
    made = config(
        f"data.train_batch_size={prompts}",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={mini}",
        f"trainer.n_gpus_per_node={gpus}",
    )
    lines = padding(made, EngineSettings())
    assert bool(lines) == bool(rows)
    if rows:
        assert f" {rows} masked rows" in lines[0]
    saving = padding(made, EngineSettings(spend="match"))
    assert saving[:-1] == lines and f"at most {prompts * 8} rollouts" in saving[-1]
    assert f"{(prompts * 8 + rows) // (mini * 8)} mini-batch" in saving[-1]


def test_saving_is_reported_with_the_options_that_cause_it():
    (line,) = padding(config(), EngineSettings(spend="match", cost="tokens"))
    assert "trainer.v1.vip_sync.spend=match" in line and "trainer.v1.vip_sync.cost=tokens" in line
    assert "cost" not in padding(config(), EngineSettings(spend="match"))[0]
    kl = "actor_rollout_ref.actor.use_kl_loss=True"
    assert "cost=tokens" in settled(kl, cost="tokens")[1] and "cost" not in settled(kl)[1]


def test_a_mini_batch_that_ranks_cannot_share_is_refused():
    with pytest.raises(InputError, match="3 data-parallel ranks"):
        padding(config("trainer.n_gpus_per_node=3"), EngineSettings())


@pytest.mark.parametrize(
    "argument",
    [
        "actor_rollout_ref.actor.loss_agg_mode=token-mean",
        "algorithm.norm_adv_by_std_in_grpo=True",
        "algorithm.filter_groups.enable=True",
        "trainer.use_v1=False",
        "algorithm.adv_estimator=grpo",
    ],
)
def test_contradictions_on_the_command_line_end_it_before_ray_starts(argument):
    assert contradictions(MODE) == []
    (line,) = contradictions([*MODE, argument])
    assert argument in line
    with pytest.raises(SystemExit, match=argument):
        plugin.register([*MODE, argument])


FROM_FILE = ["--config-dir", "recipes/verl", "--config-name", "paper", "algorithm.adv_estimator=vip_rloo"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["trainer.v1.trainer_mode=colocate_async", "algorithm.adv_estimator=vip_rloo"], MODE[0]),
        (["trainer.total_epochs=1", "algorithm.adv_estimator=vip_rloo"], MODE[0]),
        (FROM_FILE, None),  # the mode may be in a file
        ([*FROM_FILE, "trainer.v1.trainer_mode=sync"], MODE[0]),
        ([*MODE, "+trainer.v1.vip_sync.prompt_weighting=rollout", f"{ACTOR}.loss_agg_mode=token-mean"], None),
        (["algorithm.adv_estimator=grpo", "algorithm.filter_groups.enable=True"], None),  # stock verl
    ],
)
def test_the_estimators_belong_to_the_mode(arguments, named):
    lines = contradictions(arguments)
    assert len(lines) == (named is not None) and all(named in line for line in lines)


def test_contract_with_the_installed_verl():
    CONTRACT.check()
    assert metadata.version("verl") == CONTRACT.requirement.partition("==")[2]
    assert f'pop("{ROLLOUTS}"' in inspect.getsource(agent_loop_tq)


def test_a_plugin_that_cannot_be_loaded_gives_the_reason(monkeypatch):
    monkeypatch.setitem(TRAINER_REGISTRY, "vip_sync", TRAINER_REGISTRY["vip_sync"])
    monkeypatch.setitem(sys.modules, "viprl.engines.verl.sync_trainer", None)  # its import now fails
    monkeypatch.delattr(sys.modules["viprl.engines.verl"], "sync_trainer")
    with pytest.raises(SystemExit, match="trainer_mode=vip_sync"):
        plugin.register(MODE)
    plugin.register([])
    with pytest.raises(MissingPackageError, match="trainer_mode=vip_sync"):
        get_trainer_cls("vip_sync")(config())


RECIPE = Path(__file__).parents[3] / "recipes" / "verl"


@pytest.mark.parametrize("estimator", ["rloo", "dr_grpo"])
@pytest.mark.parametrize("budget, least, most", [(8, 4, 16), (16, 8, 32)])
def test_rows_of_the_recipe_compose(estimator, budget, least, most):
    """What train.sh adds to paper.yaml, on 8 to 32 GPUs: accepted, and nothing to pad."""
    overrides = [
        "actor_rollout_ref.model.path=some/model",
        f"algorithm.adv_estimator=vip_{estimator}",
        f"actor_rollout_ref.rollout.n={budget}",
        f"trainer.v1.vip_sync.min_rollouts={least}",
        f"trainer.v1.vip_sync.max_rollouts={most}",
        "trainer.v1.vip_sync.strategy=paper",
    ]
    with initialize_config_dir(str(RECIPE), version_base=None):
        made = compose("paper", [*overrides, "hydra.searchpath=[pkg://verl.trainer.config]"])
    given = read_namespace(
        OmegaConf.to_container(made.trainer.v1.vip_sync),
        adv_estimator=made.algorithm.adv_estimator,
        prompts=made.data.train_batch_size,
        rollout_n=budget,
    )
    assert (given.min_rollouts, given.max_rollouts, given.strategy) == (least, most, "paper")
    refuse(made)
    for nodes in (1, 2, 4):
        made.trainer.nnodes = nodes
        assert padding(made, given) == []
