"""The metrics that engines add: means over prompts, and advantages that are zero."""

import math

import numpy as np
import pytest

from viprl.metrics import PROMPT_REWARD, ZERO_ADVANTAGE, batch_metrics, engine_metrics, logged


def test_a_mean_over_prompts_does_not_depend_on_their_numbers_of_rollouts():
    few, many = [[1.0, 0.0], [0.0] * 2], [[1.0, 0.0], [0.0] * 14]
    for groups in (few, many, [*many, [None, math.nan]]):
        assert engine_metrics(groups) == {PROMPT_REWARD: 0.25}
    rates = [batch_metrics(np.array(n), 1.0, np.full(2, 0.5), np.array([1.0, 0.0]), np.array(n, dtype=float))
             for n in ([2, 2], [2, 14])]  # fmt: skip
    assert [values["success_rate"] for values in rates] == [0.25, 0.25]
    assert [values["uninformative_rollouts"] for values in rates] == [0.5, 0.875]


def test_advantages_that_are_zero_and_metrics_without_a_value():
    values = engine_metrics([[None], [None]], np.array([0.0, 1e-9, -1.0, 0.0]))
    assert values[ZERO_ADVANTAGE] == 0.5 and math.isnan(values[PROMPT_REWARD])
    assert logged(values) == {"vip/zero_advantage_rollouts": pytest.approx(0.5)}
