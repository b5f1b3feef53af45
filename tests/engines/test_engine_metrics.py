"""Metrics that are means over prompts, and metrics without a value."""

import math

import numpy as np
import pytest

from viprl import VIP
from viprl.engines.planned_batch import batch_metrics, plan_batch
from viprl.metrics import (
    PROMPT_REWARD,
    REWARD_VARIANCE,
    SHRINKAGE,
    SUCCESS_RATE,
    UNINFORMATIVE,
    ZERO_ADVANTAGE,
    logged,
)


def metrics(rewards, **options):
    vip = VIP(features=None, cache=None, min_rollouts=2, **options)
    prompts = [f"prompt {q}" for q in range(len(rewards))]
    sizes = list(map(len, rewards))
    vip.allocate(prompts, sum(sizes), min_rollouts=sizes, max_rollouts=sizes)
    vip.observe(prompts, rewards)
    return vip.metrics()


def test_a_mean_over_prompts_does_not_depend_on_their_numbers_of_rollouts():
    for rewards, equal in (([[1.0, 0.0], [0.0] * 2], 0.5), ([[1.0, 0.0], [0.0] * 14], 0.875)):
        found = metrics(rewards)
        assert found[PROMPT_REWARD] == found[SUCCESS_RATE] == 0.25
        assert found[REWARD_VARIANCE] == 0.25
        assert found[UNINFORMATIVE] == found[ZERO_ADVANTAGE] == equal


def test_rewards_of_more_values_have_no_success_rate():
    rewards = [[1.0, 0.1], [0.0, 0.0, 0.1]]
    found = metrics(rewards)
    assert math.isnan(found[SUCCESS_RATE]) and math.isnan(found["brier"])
    assert found[PROMPT_REWARD] == pytest.approx(np.mean([0.55, 0.1 / 3]))
    assert metrics(rewards, success=0.5)[SUCCESS_RATE] == 0.25


@pytest.mark.parametrize("baseline", ["group", "expected"])
def test_shrinkage_is_a_metric_of_baselines_that_are_shrunk(baseline):
    vip = VIP(features=None, cache=None, baseline=baseline)
    for _ in range(2):
        _, plan = plan_batch(vip, ["a", "b"], 8, 2, unbiased=True)
        vip.observe(plan.prompts, [[1.0, 0.0] + [0.0] * (n - 2) for n in plan.counts])
    found = batch_metrics(vip, np.array([0.0, 0.5, -0.5, 0.0]))
    assert found[ZERO_ADVANTAGE] == 0.5
    assert (SHRINKAGE in found) == (baseline == "expected")


def test_metrics_without_a_value_are_left_out():
    assert logged({"a": math.nan, "b": 0.5}) == {"vip/b": 0.5}
