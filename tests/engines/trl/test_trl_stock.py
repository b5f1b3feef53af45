"""A uniform allocation trains the weights of stock TRL."""

from __future__ import annotations

import pytest
from trl_runs import N, trained_like_stock

import tiny


@pytest.mark.parametrize(
    ("kind", "estimator", "unscorable", "beta"),
    [
        ("rloo", "rloo", True, 0.0),
        ("rloo", "rloo", True, 0.1),
        ("grpo", "dr_grpo", True, 0.1),
        ("grpo", "rloo", False, 0),
    ],
)
def test_uniform_equals_stock(kind, estimator, unscorable, beta, tmp_path):
    """The same weights after 8 steps; with beta this includes RLOO's KL in the reward. Leave-one-out advantages in GRPO
    are scaled by the planned group, so they equal stock's only if every rollout of it can be scored."""

    def sometimes(prompts, completions, solution, **_):
        rewards = tiny.contains(prompts, completions, solution)
        return [None if unscorable and i % 7 == 0 else r for i, r in enumerate(rewards)]

    before, after = trained_like_stock(
        kind, tmp_path, sometimes, tiny.dataset(64), estimator, max_steps=8, beta=beta, num_train_epochs=20
    )
    assert {row["vip/counts/max"] for row in after if "vip/counts/max" in row} == {N}
    for a, b in zip(before, after, strict=True):
        for key in ("reward", "frac_reward_zero_std", "loss"):
            assert a.get(key) == pytest.approx(b.get(key), abs=1e-5, nan_ok=True)
