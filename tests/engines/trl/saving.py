"""Trainings in which VIP saves rollouts, and the gradient of their batches, computed without TRL and without viprl."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback
from trl_runs import KINDS, build

import tiny
from viprl import VIP


def saving(**options: Any) -> VIP:
    """Knows how different the prompts are, and spends what a variance above that of uniform counts takes."""
    vip = VIP(**{"strategy": "oracle", "features": "none", "spend": "match", "variance_target": 1.4} | options)
    prompts = tiny.dataset(64)["prompt"]
    vip.tell_oracle(prompts, np.linspace(0.02, 0.98, len(prompts)) ** 4)
    return vip


Rollout = tuple[str, int, list[int], float]
"""Prompt, its position in the batch, tokens of the completion, reward."""


@dataclass
class Seen:
    """The rollouts of each batch, as a reward function was given them."""

    batches: list[list[Rollout]] = field(default_factory=list)

    def reward(self, prompts, completions, completion_ids, solution, vip_group, **_):
        rewards = tiny.contains(prompts, completions, solution)
        self.batches.append(list(zip(prompts, vip_group, completion_ids, rewards, strict=True)))
        return rewards


class Gradients(TrainerCallback):
    """The gradient of each optimizer step; nothing is clipped with a large `max_grad_norm`."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def on_pre_optimizer_step(self, args, state, control, model, **_):
        self.seen.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).clone())


def token_logprobs(model, prompt: str, completion: list[int]) -> torch.Tensor:
    """[tokens] of the completion."""
    start = tiny.tokenizer()(prompt)["input_ids"]
    logits = model(torch.tensor([start + completion])).logits[0, len(start) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None])[:, 0]


def expected_gradient(
    model, rollouts: list[Rollout], loss: str, *, longest: int, beta: float = 0.0, ref=None
) -> torch.Tensor:
    """The gradient of a batch in which every prompt has the weight 1/Q, whatever its number of rollouts is."""
    model.zero_grad()
    groups: dict[int, list] = {}
    for prompt, position, ids, reward in rollouts:
        logps, before = token_logprobs(model, prompt, ids), token_logprobs(ref or model, prompt, ids).detach()
        if loss == "rloo":  # the penalty is part of the reward
            reward = reward - beta * float((logps.detach() - before).sum())
        groups.setdefault(position, []).append((logps, before, reward))
    total = sum(len(ids) for _, _, ids, _ in rollouts)
    value = torch.zeros(())
    for group in groups.values():
        rewards = [reward for *_, reward in group]
        for logps, before, reward in group:
            advantage = reward - (sum(rewards) - reward) / (len(group) - 1)
            means = {"dr_grpo": longest, "grpo": len(logps), "dapo": total / len(rollouts)}
            divisor = means.get(loss, 1.0)
            scale = 1.0 if loss == "rloo" else 0.75  # of Dr.GRPO with groups of 4
            value = value - scale * advantage * logps.sum() / divisor / len(group) / len(groups)
            if beta and loss != "rloo":
                gap = before - logps
                value = value + beta * (gap.exp() - gap - 1).sum() / divisor / len(rollouts)
    value.backward()
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).clone()
    model.zero_grad()
    return found


def with_reference(kind: str, folder: Path, **settings: Any):
    """A trainer whose policy is `tiny.model()` and whose reference is another model, which is returned too."""

    class FromFolder(KINDS[kind][0]):
        def __init__(self, model, *args, **given):
            super().__init__(str(tiny.save(folder / "start")), *args, **given)

    ref = tiny.model(seed=1)
    trainer = build(kind, folder, trainer=FromFolder, **settings)
    trainer.ref_model.load_state_dict(ref.state_dict())
    return trainer, ref
