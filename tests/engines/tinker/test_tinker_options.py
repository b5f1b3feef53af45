"""Options of `with_vip`, and settings of tinker-cookbook that cannot work."""

import json
from importlib.metadata import version

import pytest
from tinker_cookbook.rl import train
from tinker_cookbook.rl.rollout_limits import TerminationRewardPolicy
from tinker_runs import Q, config_in, planned, rolled, run

from viprl.engines.tinker import with_vip
from viprl.engines.tinker.dataset_builder import REFUSED
from viprl.engines.tinker.tinker_api import CONTRACT
from viprl.errors import InputError
from viprl.settings import EngineSettings, options


@pytest.mark.parametrize(
    "name, value",
    [
        ("async_config", train.AsyncConfig(max_steps_off_policy=1, groups_per_batch=Q)),
        ("stream_minibatch_config", train.StreamMinibatchConfig(groups_per_batch=Q, num_minibatches=2)),
        ("termination", TerminationRewardPolicy(zero_reward_on_limit=True)),
    ],
)
def test_settings_that_break_the_plan_are_refused(tmp_path, name, value):
    with pytest.raises(InputError, match=name):
        with_vip(config_in(tmp_path, **{name: value}))


@pytest.mark.parametrize(
    "given, named",
    [
        *(({name: None}, name) for name in REFUSED),
        ({"low": 2}, "'low'"),
        ({"min_rollouts": 2.5}, "min_rollouts is 2.5"),
        ({"strategy": "oracle"}, "'oracle'"),
        ({"estimator": "grpo"}, "'grpo'"),
        ({"baseline": "expected"}, "subtracts the mean of a group"),
        ({"candidates": 0}, "candidates is 0"),
        ({"candidates": 2.5}, "candidates is 2.5"),
        ({"candidates": True}, "candidates is True"),
        ({"unbiased": 0}, "unbiased is 0"),
        ({"on_bad_prediction": "ignore"}, "on_bad_prediction is 'ignore'"),
    ],
)
def test_options_that_cannot_be_used(tmp_path, given, named):
    with pytest.raises(InputError, match=named):
        with_vip(config_in(tmp_path), **given)


def test_the_options_are_those_of_vip(tmp_path):
    settings = with_vip(config_in(tmp_path)).dataset_builder.settings
    assert settings == EngineSettings(estimator="rloo")
    assert all(f"\n{option.name} (" in with_vip.__doc__ for option in options(without=REFUSED))
    assert not any(f"\n{name} (" in with_vip.__doc__ for name in REFUSED)


def test_a_warm_start_comes_before_the_first_step_only(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps({"prompt": "3", "rollouts": 8, "successes": [8, 8, 8]}) + "\n")
    known, unknown = planned(tmp_path, warm_start=str(log)).vip.predict(["3", "4"])
    assert known > 0.9 > unknown
    run(tmp_path, 2)
    resumed, again = planned(tmp_path), planned(tmp_path, warm_start=str(log))
    assert again.step == 2 and again.vip.predict(["3"]) == resumed.vip.predict(["3"])


def test_log_probabilities_may_be_left_out(tmp_path):
    dataset, heard = planned(tmp_path, use_logprobs=False), {}
    observe = dataset.vip.observe
    dataset.vip.observe = lambda prompts, rewards, **more: heard.update(more) or observe(prompts, rewards, **more)
    for builder in dataset.get_batch(0):
        rolled(builder)
    assert heard["logprobs"] is None


def test_contract_with_the_installed_tinker_cookbook():
    CONTRACT.check()
    assert version("tinker-cookbook") == CONTRACT.requirement.partition("==")[2]
