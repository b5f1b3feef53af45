"""A resumed run does what the run would have done that was not stopped."""

from __future__ import annotations

import numpy as np
import pytest

from vip_steps import CHANCES, POOL, PROMPTS, C, step, vip
from viprl.errors import InputError


@pytest.mark.parametrize(
    ("options", "select", "waves", "through_file"),
    [
        ({}, False, 1, False),
        ({}, True, 1, False),
        ({"spend": "match"}, False, 1, False),
        ({"cost": "tokens"}, False, 1, False),
        ({"baseline": "expected"}, False, 1, False),
        ({}, False, 2, False),
        ({"spend": "match", "cost": "tokens", "baseline": "expected"}, True, 2, True),
    ],
    ids=["plain", "selection", "match", "tokens", "expected", "waves", "all"],
)
def test_the_next_steps_after_a_resume_are_identical(options, select, waves, through_file, tmp_path) -> None:
    one, other = vip(**options, seed=1), vip(**options, seed=2)
    rng = np.random.default_rng(0)
    for _ in range(2):
        step(one, rng, select=select, waves=waves)
    if through_file:
        one.save(tmp_path / "state")
        other.load(tmp_path / "state")
    else:
        other.load_state_dict(one.state_dict())
    same = [np.random.default_rng(5), np.random.default_rng(5)]
    looks = False
    for _ in range(2):
        done, again = (step(agent, r, select=select, waves=waves) for agent, r in zip((one, other), same, strict=True))
        assert done.keys() == again.keys()
        for name, value in done.items():
            np.testing.assert_array_equal(value, again[name], err_msg=name)
        looks |= done["looks"]
    assert looks == (waves == 2)


def test_a_plan_that_was_saved_between_two_waves_is_gone() -> None:
    one, other, new = vip(), vip(), [f"new {i}" for i in range(24)]
    one.observe_counts(POOL, [2 * (CHANCES[prompt] > 0) for prompt in POOL], [4] * 48)
    plan = one.allocate(new, 192, waves=2)
    assert plan.waves is not None
    other.load_state_dict(one.state_dict())
    with pytest.raises(InputError):
        other.next(plan, [[0.0] * n for n in plan.counts])
    again = other.allocate(new, 192, waves=2)
    other.next(again, [[0.0] * n for n in again.counts])


def test_a_batch_that_is_observed_again_is_learned_again() -> None:
    """Nothing tells it from new outcomes of the same prompts."""
    agent = vip()
    plan = agent.allocate(PROMPTS, C)
    rewards = [[1.0, *[0.0] * (n - 1)] for n in plan.counts]
    agent.observe(PROMPTS, rewards)
    once, metrics = agent.predict(PROMPTS), agent.metrics()
    agent.observe(PROMPTS, rewards)
    assert (agent.predict(PROMPTS) != once).all() and agent.metrics() == metrics
