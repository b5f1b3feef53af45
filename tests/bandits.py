"""Policies that are small enough for exact gradients: all outcomes of a group of rollouts can be enumerated."""

from __future__ import annotations

import itertools

import numpy as np

from viprl.advantages import RewardPrior, group_advantages


class Policy:
    """Softmax over a few answers with shared parameters: prompt q answers j with probability pi[q, j]."""

    def __init__(self, seed: int, prompts: int, answers: int, parameters: int) -> None:
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(prompts, answers, parameters))
        logits = x @ rng.normal(size=parameters)
        self.pi = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
        self.score = x - (self.pi[:, :, None] * x).sum(1, keepdims=True)  # d log pi / d theta, [Q, J, D]
        self.reward = (rng.random((prompts, answers)) < 0.4).astype(float)
        self.reward[:, 0], self.reward[:, 1] = 1, 0  # no prompt is certain
        self.p = (self.pi * self.reward).sum(1)

    def gradient(self) -> np.ndarray:
        """[Q, D] d p_q / d theta."""
        return np.einsum("qj,qj,qjd->qd", self.pi, self.reward, self.score)

    def estimates(
        self, q: int, n: int, baseline: str = "leave_one_out", prior: tuple[float, float] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Every outcome of a group of n: its probability and its gradient estimate, the mean of A_i Z_i.

        `prior` is the expected reward and the rollouts that it is worth.
        """
        answers = np.array(list(itertools.product(range(self.pi.shape[1]), repeat=n)))  # [E, n]
        chance = self.pi[q][answers].prod(1)
        groups = len(answers)
        repeated = None if prior is None else RewardPrior(*(np.full(groups, number) for number in prior))
        advantages = group_advantages(self.reward[q][answers].ravel(), [n] * groups, baseline, prior=repeated)
        return chance, np.einsum("en,end->ed", advantages.reshape(-1, n), self.score[q][answers]) / n
