"""Trainings in two waves, and the advantages of their batches, computed from what the reward function was given."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset

import tiny
from viprl import VIP
from viprl.allocation.waves.estimator import FirstLook, wave_advantages

Q, N = 16, 8
C = Q * N
"""Prompts and rollouts of a batch; the average of a prompt."""


class Planning(VIP):
    """Keeps what `next` returned: the prompts by their content, and the plan of both waves."""

    def allocate(self, prompts, budget=None, **more):
        self.planned = list(prompts)
        return super().allocate(prompts, budget, **more)

    def select(self, candidates, budget, size, **more):
        selection = super().select(candidates, budget, size, **more)
        self.planned = [candidates[i] for i in selection.positions]
        return selection

    def next(self, plan, rewards):
        second = super().next(plan, rewards)
        self.plans = [*getattr(self, "plans", []), (self.planned, plan, second)]
        return second


def taught(**options: Any) -> Planning:
    """Has seen many hopeless prompts and a few others, so that first looks pay at prompts that it has not seen."""
    vip = Planning(**{"features": None, "min_rollouts": 2, "max_rollouts": 32, **options})
    rng = np.random.default_rng(0)
    for batch in range(8):
        p = np.where(np.arange(50) % 4 > 0, 0.0, np.linspace(0.05, 0.95, 50))
        rewards = [(rng.random(8) < one).astype(float).tolist() for one in p]
        vip.observe([f"other {batch} {i}" for i in range(50)], rewards)
    return vip


def data(n: int = 48) -> Dataset:
    """Prompts of two to four words; those of two words can be solved."""
    words = tiny.LETTERS
    prompts = [
        " ".join([words[i % 8], words[i // 8 % 8], *(words[:2] if i % 3 else "")][: 2 if i % 4 == 0 else 4]) for i in range(n)
    ]
    return Dataset.from_dict({"prompt": prompts, "solution": [prompt.split()[0] for prompt in prompts]})


@dataclass
class Seen:
    """What the reward function was given: for each call the rollouts (prompt, tokens, reward), and the arguments."""

    calls: list[list[tuple[str, tuple[int, ...], float]]] = field(default_factory=list)
    arguments: list[tuple[list[int], list[int], list[int]]] = field(default_factory=list)

    def reward(self, prompts, completions, completion_ids, solution, vip_group, vip_rollouts, vip_wave=None, **_):
        rewards = [solved(prompt, ids) for prompt, ids in zip(prompts, completion_ids, strict=True)]
        self.calls.append([(p, tuple(ids), r) for p, ids, r in zip(prompts, completion_ids, rewards, strict=True)])
        self.arguments.append((vip_group, vip_rollouts, vip_wave))
        return rewards


def solved(prompt: str, ids) -> float:
    """1 for an answer with an odd number of tokens to a prompt of two words."""
    return float(len(prompt.split()) == 2 and sum(ids) % 2)
