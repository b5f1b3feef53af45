"""Trainings in two waves, and the advantages of their batches, computed from what the reward function was given."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from trl_runs import build

import tiny
from viprl import VIP
from viprl.allocation.waves.estimator import FirstLook, wave_advantages
from viprl.prompts import text

Q, N = 16, 8
C = Q * N
"""Prompts and rollouts of a batch; the average of a prompt."""
SCALE = {"rloo": 1.0, "grpo": 1 - 1 / N}
"""Of the advantages, relative to those of `viprl.pooled_advantages`."""
TOKENIZER = tiny.tokenizer()


class Planning(VIP):
    """Keeps the plan of both waves of each batch, by the content of the prompts: `looks` has the label, the share and
    the mean of the baseline, and the weight."""

    def allocate(self, prompts, budget=None, **more):
        self._names, self._weights = list(map(text, prompts)), np.ones(len(prompts))
        return super().allocate(prompts, budget, **more)

    def select(self, candidates, budget, size, **more):
        selection = super().select(candidates, budget, size, **more)
        self._names, self._weights = [text(candidates[i]) for i in selection.positions], selection.weights
        return selection

    def next(self, plan, rewards):
        second = super().next(plan, rewards)
        total = plan.counts + second.counts
        columns = second.waves.labels, second.waves.plan.shares(total), second.waves.mean, self._weights
        self.looks = [*getattr(self, "looks", []), dict(zip(self._names, zip(*columns, strict=True), strict=True))]
        return second


def taught(**options: Any) -> Planning:
    """Has seen many prompts of which three in four are hopeless, so that first looks pay at new ones."""
    vip = Planning(**{"features": None, "min_rollouts": 2, "max_rollouts": 32, **options})
    rng = np.random.default_rng(0)
    for batch in range(4):
        p = np.where(np.arange(50) % 4 > 0, 0.0, np.linspace(0.05, 0.95, 50))
        rewards = [(rng.random(8) < one).astype(float).tolist() for one in p]
        vip.observe([f"other {batch} {i}" for i in range(50)], rewards, lengths=[[4] * 8] * 50)
    return vip


def data(n: int = 48) -> Dataset:
    """Prompts of two to four words, of which those of two words can be solved."""
    prompts = [" ".join([tiny.LETTERS[i % 8], tiny.LETTERS[i // 8], *"ab"[: (i * 5 // 3) % 3]]) for i in range(n)]
    return Dataset.from_dict({"prompt": prompts, "solution": [prompt.split()[0] for prompt in prompts]})


def solved(prompt: str, ids: Any) -> float:
    """1 for an answer to a prompt of two words whose tokens have an odd sum."""
    return float(len(prompt.split()) == 2 and sum(ids) % 2)


Rollout = tuple[str, tuple[int, ...], float]
"""Prompt, tokens of the completion, reward."""


@dataclass
class Seen:
    """What the reward function was given, for each call."""

    calls: list[list[Rollout]] = field(default_factory=list)
    arguments: list[tuple[list[int], list[int], list[int]]] = field(default_factory=list)
    """vip_group, vip_rollouts, vip_wave."""

    def reward(self, prompts, completion_ids, vip_group, vip_rollouts, vip_wave, **_):
        rewards = [solved(prompt, ids) for prompt, ids in zip(prompts, completion_ids, strict=True)]
        self.calls.append([(p, tuple(ids), r) for p, ids, r in zip(prompts, completion_ids, rewards, strict=True)])
        self.arguments.append((vip_group, vip_rollouts, vip_wave))
        return rewards

    @property
    def batches(self) -> list[list[list[Rollout]]]:
        """The calls of each batch: one that is not a second wave begins a batch."""
        found: list[list[list[Rollout]]] = []
        for call, (_, _, wave) in zip(self.calls, self.arguments, strict=True):
            found = [*found, [call]] if set(wave) == {1} else [*found[:-1], [*found[-1], call]]
        return found


def by_prompt(rollouts: list[Rollout]) -> dict[str, list[float]]:
    """Prompt -> rewards."""
    found: dict[str, list[float]] = defaultdict(list)
    for prompt, _, reward in rollouts:
        found[prompt].append(reward)
    return dict(found)


def expected_advantages(calls: list[list[Rollout]], looks: dict[str, Any]) -> dict[tuple[str, float], float]:
    """(prompt, reward) -> advantage without prompt weights, from the rewards of each prompt in both waves alone."""
    found = {}
    first = by_prompt(calls[0])
    for prompt, rewards in by_prompt([one for call in calls for one in call]).items():
        label, share, mean, _ = looks[prompt]
        assert label.size == len(first[prompt]) and sum(first[prompt]) in label.marked
        look = FirstLook.of(len(first[prompt]), label.marked)
        for reward, advantage in zip(rewards, wave_advantages(rewards, look, share=share, mean=mean), strict=True):
            assert found.setdefault((prompt, reward), advantage) == advantage
    return found


def rows_of(inputs: dict[str, Any]) -> list[Rollout]:
    """The rollouts that the rows of a loss say they are."""
    found = []
    columns = (inputs[name] for name in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask"))
    for prompt, seen, answer, kept in zip(*columns, strict=True):
        name, ids = TOKENIZER.decode(prompt[seen.bool()]), tuple(answer[kept.bool()].tolist())
        found.append((name, ids, solved(name, ids)))
    return found


def sampled_logprobs(inputs: dict[str, Any]) -> list[float | None]:
    """The log probability of each row that TRL keeps of the time when it was sampled."""
    if "old_logps" in inputs:
        return inputs["old_logps"].tolist()
    if inputs.get("old_per_token_logps") is None:
        return [None] * len(inputs["advantages"])
    return (inputs["old_per_token_logps"] * inputs["completion_mask"]).sum(1).tolist()


def build_waves(kind: str, folder: Path, *, seen: Seen, vip: VIP | None = None, **more: Any) -> Any:
    """A trainer whose model stays as it is."""
    own = {"per_device_train_batch_size": C, "num_generations": N, "max_completion_length": 5, "max_steps": 2}
    own |= {"vip_waves": 2, "learning_rate": 0.0, "vip_strategy": "default"}
    reward = more.pop("reward", seen.reward)
    settings = {"data": data(), "vip": vip or taught(), "reward": reward, **own, **more}
    if kind == "rloo":
        settings = {"beta": 0.0, **settings}
    return build(kind, folder, **settings)
