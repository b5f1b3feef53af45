"""Sampling a token by a given random number, so that each completion has a stream of its own."""

from __future__ import annotations

import numpy as np
import torch
from transformers import LogitsProcessor

NUCLEUS = 1024
"""Tokens looked at first; nearly always they hold the nucleus, and the whole vocabulary need not be sorted."""


class DrawByNumbers(LogitsProcessor):
    """Turns greedy decoding into sampling: row i's token at step t is the quantile `numbers[i, t]` of its distribution
    over tokens, most probable first, after temperature and top-p. All other tokens get probability zero.

    Args:
        numbers: [rows, steps] uniform in [0, 1).
        prompt_length: tokens before the first step.
    """

    def __init__(self, numbers: np.ndarray, prompt_length: int, temperature: float, top_p: float) -> None:
        self.numbers, self.prompt_length = numbers, prompt_length
        self.temperature, self.top_p = temperature, top_p

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """[rows, V] zero for the drawn token, minus infinity elsewhere."""
        step = input_ids.shape[1] - self.prompt_length
        at = torch.as_tensor(self.numbers[:, step], dtype=torch.float32, device=scores.device)
        token = nucleus_quantile(scores.float() / self.temperature, self.top_p, at)
        return torch.full_like(scores, -torch.inf).scatter_(1, token[:, None], 0.0)


def nucleus_quantile(logits: torch.Tensor, top_p: float, at: torch.Tensor) -> torch.Tensor:
    """[rows] the token at quantile `at` [rows] among the smallest set of most probable tokens that holds `top_p`."""
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
