"""One training run: REINFORCE with group baselines and AdamW, charged for every rollout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from learning.policy import Completion, Policy, Task
from viprl import Allocation, pooled_advantages
from viprl.advantages import RewardPrior, group_advantages, rollout_weights
from viprl.utils.arrays import FloatArray, IntArray

EVALUATED = 512
"""Prompts of the pool, which are in random order, whose success is measured."""


@dataclass(frozen=True)
class Setting:
    """What all arms of a comparison share."""

    budget: int = 128
    """C, rollouts of a step on average."""
    steps: int = 120
    """Steps that spend the budget of the run, `budget * steps` rollouts; arms may make other steps of them."""
    optimizer: str = "adamw"
    warm_up: int = 10
    clip: float = 1.0
    every: int = 10
    """Steps between two evaluations."""


@dataclass(frozen=True)
class Rolled:
    """The rollouts of a batch of prompts."""

    tasks: Sequence[Task]
    counts: IntArray
    """[Q]."""
    completions: Sequence[Sequence[Completion]]
    """[Q] distinct completions of each prompt."""

    @property
    def rewards(self) -> list[list[float]]:
        """[Q][n] 1 for the right answer, else 0."""
        return [
            [float(one.tokens == task.solution) for one in group for _ in range(one.times)]
            for task, group in zip(self.tasks, self.completions, strict=True)
        ]

    @property
    def logprobs(self) -> list[list[float]]:
        """[Q][n]."""
        return [[one.logprob for one in group for _ in range(one.times)] for group in self.completions]

    def only(self, which: Sequence[int]) -> Rolled:
        """The prompts at these positions."""
        return Rolled([self.tasks[q] for q in which], self.counts[list(which)], [self.completions[q] for q in which])

    def with_more(self, more: Rolled, which: Sequence[int]) -> Rolled:
        """With further rollouts of the prompts at these positions."""
        counts, completions = self.counts.copy(), list(self.completions)
        for q, count, group in zip(which, more.counts, more.completions, strict=True):
            counts[q] += count
            completions[q] = [*completions[q], *group]
        return Rolled(self.tasks, counts, completions)


@dataclass(frozen=True)
class Update:
    """A batch to learn from."""

    rolled: Rolled
    weights: FloatArray | None = None
    """[Q] of the prompts in the gradient; None for equal ones."""
    prior: RewardPrior | None = None
    """What the baselines are shrunk towards; None for leave-one-out baselines."""
    plan: Allocation | None = None
    """Of rollouts in two waves; None if they were sampled at once."""

    def coefficients(self) -> Iterator[tuple[Task, Completion, float]]:
        """The gradient as a sum of coefficient * grad log probability, over distinct completions."""
        counts, groups = self.rolled.counts, self.rolled.completions
        rewards = [reward for group in self.rolled.rewards for reward in group]
        if self.plan is None:
            advantages = group_advantages(rewards, counts, prior=self.prior)
        else:
            advantages = pooled_advantages(self.rolled.rewards, self.plan)
        each = advantages * rollout_weights(counts, prompt_weights=self.weights) / counts.sum()
        first = 0
        for task, group in zip(self.rolled.tasks, groups, strict=True):
            for one in group:
                if each[first] != 0:
                    yield task, one, float(each[first]) * one.times
                first += one.times


@dataclass
class Run:
    """A policy in training: its stream of prompts, and what it has spent."""

    policy: Policy
    pool: Sequence[Task]
    setting: Setting
    seed: int
    by_steps: bool = False
    """Whether it ends after `setting.steps` steps, whatever they spend."""
    spent: int = 0
    order: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stream = np.random.default_rng([self.seed, 7])
        self.sampling = torch.Generator().manual_seed(7919 * self.seed + 13)

    def draw(self, prompts: int) -> list[Task]:
        """The next prompts of the stream: the pool in a new order in each epoch."""
        drawn = []
        for _ in range(prompts):
            if not self.order:
                self.order = self.stream.permutation(len(self.pool)).tolist()
            drawn.append(self.pool[self.order.pop()])
        return drawn

    def roll(self, tasks: Sequence[Task], counts: IntArray) -> Rolled:
        """Rollouts of these prompts, paid for."""
        self.spent += int(np.sum(counts))
        return Rolled(tasks, np.asarray(counts), self.policy.sample([t.prompt for t in tasks], counts, self.sampling))


class Arm(Protocol):
    """A way to spend rollouts."""

    def step(self, run: Run) -> Update:
        """Sample for one step of the optimizer."""


@dataclass(frozen=True)
class Point:
    """Mean success after `spent` rollouts."""

    step: int
    spent: int
    pool: float
    held_out: float


def train(run: Run, arm: Arm, held_out: Sequence[Task], lr: float) -> Iterator[Point]:
    """Train until the budget is spent, or the steps are made.

    Evaluates at the start, every `setting.every` steps' worth of rollouts, at the end."""
    policy, setting = run.policy, run.setting
    if setting.optimizer == "adamw":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(policy.parameters, lr=lr, weight_decay=0.0, fused=True)
    else:
        optimizer = torch.optim.SGD(policy.parameters, lr=lr)
    step, due = 0, 0
    while True:
        done = step * setting.budget if run.by_steps else run.spent
        if done >= due:
            shown = run.pool[:EVALUATED]
            p = policy.success([*shown, *held_out])
            yield Point(step, run.spent, float(p[: len(shown)].mean()), float(p[len(shown) :].mean()))
            due += setting.every * setting.budget
        if done >= setting.steps * setting.budget:
            return
        step += 1
        ascend(policy, arm.step(run), optimizer, lr * min(1.0, step / setting.warm_up), setting.clip)


def ascend(policy: Policy, update: Update, optimizer: torch.optim.Optimizer, lr: float, clip: float) -> None:
    """One step of the optimizer along the gradient of the batch, which may be 0."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=False)
    terms = list(update.coefficients())
    if terms:
        logp = policy.logprobs([task.prompt for task, _, _ in terms], [one.tokens for _, one, _ in terms])
        (-(torch.tensor([c for _, _, c in terms], dtype=torch.float32) * logp).sum()).backward()
    for parameter in policy.parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    torch.nn.utils.clip_grad_norm_(policy.parameters, clip)
    optimizer.step()
