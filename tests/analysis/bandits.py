"""Prompts with a handful of completions each, whose gradients are known exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from viprl.advantages import group_advantages
from viprl.analysis.gradient_variance import VarianceLaw


@dataclass(frozen=True)
class Bandits:
    """N prompts with K completions in d dimensions."""

    probability: np.ndarray  # [N, K]
    reward: np.ndarray  # [N, K]
    score: np.ndarray  # [N, K, d], mean 0

    @classmethod
    def make(cls, seed=0, prompts=10, completions=4, d=6, settled=3):
        rng = np.random.default_rng(seed)
        probability = rng.dirichlet(np.full(completions, 1.5), size=prompts)
        reward = (np.arange(completions) < rng.integers(1, completions, size=(prompts, 1))).astype(float)
        reward[:settled] = 1.0
        features = rng.normal(size=(prompts, completions, d)) + 0.7 * reward[..., None]
        score = features - (probability[..., None] * features).sum(axis=1, keepdims=True)
        return cls(probability, reward, score)

    @classmethod
    def of_model(cls, network, prompts, rewards):
        """The completions of one token of a language model.

        Args:
            prompts: token ids of each.
            rewards: [N, V] of each token.
        """
        parameters, scores, probability = list(network.parameters()), [], []
        for tokens in prompts:
            logps = network(torch.tensor([tokens])).logits[0, -1].log_softmax(-1)
            probability.append(logps.detach().exp().double().numpy())
            each = [torch.autograd.grad(one, parameters, retain_graph=True) for one in logps]
            scores.append(np.stack([torch.cat([g.reshape(-1) for g in one]).numpy() for one in each]))
        return cls(np.array(probability), np.array(rewards), np.array(scores, dtype=np.float64))

    @property
    def p(self):
        return (self.probability * self.reward).sum(axis=1)

    @property
    def gradients(self):
        """[N, d]"""
        return (self.probability[..., None] * (self.reward - self.p[:, None])[..., None] * self.score).sum(axis=1)

    @property
    def cross(self):
        return self.gradients @ self.gradients.T

    @property
    def laws(self):
        deviation, norms = self.reward - self.p[:, None], (self.score**2).sum(axis=-1)
        squared = (self.gradients**2).sum(axis=-1)
        weighted = (self.probability * deviation**2 * norms).sum(axis=1)
        variance = (self.probability * deviation**2).sum(axis=1)
        return VarianceLaw(weighted - squared, variance * (self.probability * norms).sum(axis=1) + squared, squared)

    def rollouts(self, q, n, rng):
        """Rewards [n] and scores [n, d]."""
        drawn = rng.choice(self.probability.shape[1], size=n, p=self.probability[q])
        return self.reward[q, drawn], self.score[q, drawn]

    def estimates(self, q, n, repeats, rng):
        """[repeats, d] RLOO gradients of n rollouts each."""
        rewards, scores = self.rollouts(q, n * repeats, rng)
        advantages = group_advantages(rewards, np.full(repeats, n))
        return (advantages[:, None] * scores).reshape(repeats, n, -1).mean(axis=1)


def systematic(pi, rng):
    """A sample with inclusion probabilities pi, whose size is sum pi rounded up or down."""
    order = rng.permutation(len(pi))
    ends = np.floor(np.cumsum(pi[order]) - rng.random() + 1e-9)
    return order[np.diff(ends, prepend=-1.0) > 0]
