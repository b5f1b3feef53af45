"""Steps of a training with VIP, of which tests see everything that was planned."""

from __future__ import annotations

from typing import Any

import numpy as np

import viprl

POOL = [f"prompt {i}" for i in range(48)]
CHANCES = dict(zip(POOL, np.where(np.arange(48) % 4 == 0, 0.4, 0.0), strict=True))
PROMPTS = POOL[:6]
C = 40


def vip(**options: Any) -> viprl.VIP:
    return viprl.VIP(**{"features": None, "cache": None, "min_rollouts": 2, "max_rollouts": 24} | options)


def sampled(prompts: list[str], counts: np.ndarray, rng: np.random.Generator) -> list[list[float]]:
    return [(rng.random(n) < CHANCES[prompt]).astype(float).tolist() for prompt, n in zip(prompts, counts, strict=True)]


def step(agent: viprl.VIP, rng: np.random.Generator, *, select: bool, waves: int) -> dict[str, Any]:
    """One step of a training, and what it did."""
    offered = list(rng.permutation(POOL)[:32])
    done: dict[str, Any] = {}
    if select:
        selection = agent.select(offered, 128, 16, waves=waves)
        plan, offered = selection.allocation, [offered[i] for i in selection.positions]
        done |= {"positions": selection.positions, "weights": selection.weights}
    else:
        plan = agent.allocate(offered, 256, waves=waves)
    done |= {"first": plan.counts, "looks": plan.waves is not None}
    rewards = sampled(offered, plan.counts, rng)
    if waves == 2:
        plan = agent.next(plan, rewards)
        rewards = [a + b for a, b in zip(rewards, sampled(offered, plan.counts, rng), strict=True)]
        done |= {"second": plan.counts, "advantages": viprl.pooled_advantages(rewards, plan)}
    else:
        flat = [reward for group in rewards for reward in group]
        done["advantages"] = viprl.group_advantages(flat, plan.counts, prior=plan.prior)
    agent.observe(offered, rewards, lengths=[[50.0 + 9 * q] * len(group) for q, group in enumerate(rewards)])
    return done
