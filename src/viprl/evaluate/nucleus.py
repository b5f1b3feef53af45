"""Nucleus (top-p) sampling of tokens by given random numbers, so that each completion has its own stream."""

from __future__ import annotations

import numpy as np
import torch
from transformers import LogitsProcessor

NUCLEUS = 1024
"""Most probable tokens that are sorted first. If they do not hold the nucleus, the whole vocabulary is sorted."""


class DrawByNumbers(LogitsProcessor):
    """Turns greedy decoding of transformers into sampling by given random numbers.

    The token of row i at step t is the quantile `numbers[i, t]` of the distribution over tokens, sorted from the most
    to the least probable, after temperature and top-p.

    Args:
        numbers: [rows, steps] uniform in [0, 1).
        prompt_length: tokens before the first step.
        temperature, top_p: of the distribution.
    """

    def __init__(self, numbers: np.ndarray, prompt_length: int, temperature: float, top_p: float) -> None:
        self.numbers, self.prompt_length = numbers, prompt_length
        self.temperature, self.top_p = temperature, top_p

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """[rows, V] log probabilities: zero for the sampled token, minus infinity for all others."""
        step = input_ids.shape[1] - self.prompt_length
        at = torch.as_tensor(self.numbers[:, step], dtype=torch.float32, device=scores.device)
        token = nucleus_quantile(scores.float() / self.temperature, self.top_p, at)
        return torch.full_like(scores, -torch.inf).scatter_(1, token[:, None], 0.0)


def nucleus_quantile(logits: torch.Tensor, top_p: float, at: torch.Tensor) -> torch.Tensor:
    """[rows] the token at quantile `at` [rows] of the nucleus: the fewest most probable tokens with mass `top_p`.

    Args:
        logits: [rows, V].
        top_p: mass of the nucleus.
        at: [rows] in [0, 1].
    """
    probabilities = logits.softmax(-1)
    size = min(NUCLEUS, logits.shape[1])
    best, tokens = probabilities.topk(size, dim=-1)
    if size < logits.shape[1] and bool((best.sum(-1) < top_p).any()):
        best, tokens = probabilities.sort(dim=-1, descending=True)
    mass = best.cumsum(-1)
    inside = (mass - best < top_p) & (best > 0)
    total = (best * inside).sum(-1, keepdim=True)
    place = ((mass <= at[:, None] * total) & inside).sum(-1)
    last = inside.sum(-1) - 1
    return tokens.gather(1, torch.minimum(place, last)[:, None])[:, 0]
