"""A uniform allocation trains the weights of stock TRL."""

from __future__ import annotations

import pytest
from saving import saving
from trl_runs import C, N, trained_like_stock

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


@pytest.mark.parametrize(
    ("kind", "estimator", "n", "accumulation", "beta"),
    [("rloo", "rloo", 2, 1, 0.1), ("rloo", "rloo", 2, 4, 0.0), ("grpo", "dr_grpo", 3, 2, 0.1)],
)
def test_fewer_rollouts_equal_stock_with_a_smaller_budget(kind, estimator, n, accumulation, beta, tmp_path):
    """VIP keeps n of N rollouts of each prompt, and stock has n: the same rollouts, and the same weights after 4
    steps, with micro-batches of the same size."""
    vip = saving(variance_target=100.0, min_rollouts=n, estimator=estimator)
    budget, less = {"per_device_train_batch_size": C // accumulation, "num_generations": N}, C // N * n // accumulation
    more = {"max_steps": 4, "beta": beta, "gradient_accumulation_steps": accumulation, "num_generations": n}
    before, after = trained_like_stock(
        kind, tmp_path, tiny.contains, tiny.dataset(64), estimator, vip=vip, ours=budget,
        per_device_train_batch_size=less, **more,
    )  # fmt: skip
    assert {row["vip/counts/max"] for row in after if "vip/counts/max" in row} == {n}
    for a, b in zip(before, after, strict=True):
        for key in ("reward", "frac_reward_zero_std", "loss", "entropy", "kl", "completions/mean_length"):
            assert a.get(key) == pytest.approx(b.get(key), abs=1e-5, nan_ok=True)
