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
    free_tokens: int = 0
    """Of free text after every answer. It does not count for the reward, so that its score is noise of the gradient."""


@dataclass(frozen=True)
class FreeText:
    """What follows the n answers to a prompt."""

    tokens: torch.Tensor
    """[n, length]."""
    logprobs: FloatArray
    """[n]."""

    def and_then(self, more: FreeText) -> FreeText:
        """With those of a second wave."""
        logprobs = np.concatenate([self.logprobs, more.logprobs])
        return FreeText(torch.cat([self.tokens, more.tokens]), logprobs)


@dataclass(frozen=True)
class Rolled:
    """The rollouts of a batch of prompts."""

    tasks: Sequence[Task]
    counts: IntArray
    """[Q]."""
    completions: Sequence[Sequence[Completion]]
    """[Q] distinct completions of each prompt."""
    texts: Sequence[FreeText] = ()
    """[Q] what follows the answers; empty without free text."""

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
        answers = [[one.logprob for one in group for _ in range(one.times)] for group in self.completions]
        if not self.texts:
            return answers
        return [(np.array(own) + text.logprobs).tolist() for own, text in zip(answers, self.texts, strict=True)]

    def only(self, which: Sequence[int]) -> Rolled:
        """The prompts at these positions."""
        tasks, completions = [self.tasks[q] for q in which], [self.completions[q] for q in which]
        return Rolled(tasks, self.counts[list(which)], completions, [self.texts[q] for q in which if self.texts])

    def with_more(self, more: Rolled, which: Sequence[int]) -> Rolled:
        """With further rollouts of the prompts at these positions."""
        counts, completions, texts = self.counts.copy(), list(self.completions), list(self.texts)
        for position, q in enumerate(which):
            counts[q] += more.counts[position]
            completions[q] = [*completions[q], *more.completions[position]]
            if texts:
                texts[q] = texts[q].and_then(more.texts[position])
        return Rolled(self.tasks, counts, completions, texts)


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

    def coefficients(self) -> FloatArray:
        """[C] c, with which the gradient is the sum of c grad log probability over all rollouts."""
        counts = self.rolled.counts
        rewards = [reward for group in self.rolled.rewards for reward in group]
        if self.plan is None:
            advantages = group_advantages(rewards, counts, prior=self.prior)
        else:
            advantages = pooled_advantages(self.rolled.rewards, self.plan)
        return advantages * rollout_weights(counts, prompt_weights=self.weights) / counts.sum()

    def answers(self, each: FloatArray) -> Iterator[tuple[Task, Completion, float]]:
        """The distinct answers with the sums of their `coefficients`, if not 0."""
        first = 0
        for task, group in zip(self.rolled.tasks, self.rolled.completions, strict=True):
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
        completions = self.policy.sample([t.prompt for t in tasks], counts, self.sampling)
        return Rolled(tasks, np.asarray(counts), completions, self._free_texts(np.asarray(counts)))

    def _free_texts(self, counts: IntArray) -> list[FreeText]:
        if not self.setting.free_tokens:
            return []
        texts = self.policy.free_text(int(counts.sum()), self.setting.free_tokens, self.sampling)
        with torch.no_grad():
            logprobs = self.policy.text_logprobs(texts)
        parts = zip(texts.split(counts.tolist()), logprobs.split(counts.tolist()), strict=True)
        return [FreeText(tokens, logp.double().numpy()) for tokens, logp in parts]


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
    each = update.coefficients()
    terms = list(update.answers(each))
    if terms:
        logp = policy.logprobs([task.prompt for task, _, _ in terms], [one.tokens for _, one, _ in terms])
        (-(torch.tensor([c for _, _, c in terms], dtype=torch.float32) * logp).sum()).backward()
    if update.rolled.texts and each.any():
        texts, used = torch.cat([text.tokens for text in update.rolled.texts]), torch.tensor(each != 0)
        logp = policy.text_logprobs(texts[used])
        (-(torch.tensor(each, dtype=torch.float32)[used] * logp).sum()).backward()
    for parameter in policy.parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    torch.nn.utils.clip_grad_norm_(policy.parameters, clip)
    optimizer.step()
