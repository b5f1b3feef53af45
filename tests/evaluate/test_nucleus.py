"""Sampling by given random numbers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

pytest.importorskip("transformers", reason='needs pip install "viprl[trl]"')

import torch

from viprl.evaluate.nucleus import NUCLEUS, DrawByNumbers, nucleus_quantile


@pytest.mark.parametrize("top_p", [1.0, 0.7, 0.2])
def test_shares_of_a_fine_grid_are_the_renormalised_probabilities(top_p):
    logits = torch.tensor([2.0, -1.0, 1.5, 0.0, 1.0])
    probabilities = logits.double().softmax(-1).numpy()
    order = np.argsort(-probabilities)
    inside = order[: int(np.searchsorted(np.cumsum(probabilities[order]), top_p - 1e-9)) + 1]
    grid = torch.arange(20_000) / 20_000
    drawn = Counter(nucleus_quantile(logits.repeat(len(grid), 1), top_p, grid).tolist())
    assert set(drawn) == set(inside.tolist())
    total = probabilities[inside].sum()
    for token in inside:
        assert drawn[int(token)] / len(grid) == pytest.approx(probabilities[token] / total, abs=2e-4)


def test_a_flat_distribution_needs_the_whole_vocabulary():
    tokens = nucleus_quantile(torch.zeros(1000, 4 * NUCLEUS), 0.9, torch.arange(1000) / 1000)
    assert len(set(tokens.tolist())) == 1000


def test_the_largest_number_stays_in_the_nucleus():
    assert nucleus_quantile(torch.tensor([[0.0, 0.0, -torch.inf]]), 1.0, torch.tensor([1.0])).item() in (0, 1)


def test_each_step_and_row_has_its_own_number():
    draw = DrawByNumbers(np.array([[0.0, 0.99], [0.99, 0.0]]), prompt_length=2, temperature=1.0, top_p=1.0)
    logits = torch.tensor([[1.0, 0.0]] * 2)
    steps = [draw(torch.zeros(2, 2 + step, dtype=torch.long), logits).argmax(-1).tolist() for step in (0, 1)]
    assert steps == [[0, 1], [1, 0]]
