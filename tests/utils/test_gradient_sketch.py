"""Sketches of gradients: linear, unbiased inner products, the stated error; the same map for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason='needs pip install "viprl[trl]"')

import torch

from viprl.errors import InputError
from viprl.utils import gradient_sketch
from viprl.utils.gradient_sketch import GradientSketch, whole_gradient


def parts(seed, *shapes):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


SHAPES = (40, 30), (7,), (500,)


def test_a_sketch_is_linear_and_fixed_by_its_seed():
    x, y, sketch = parts(0, *SHAPES), parts(1, *SHAPES), GradientSketch(31, seed=5)
    both = sketch([2 * a - b for a, b in zip(x, y, strict=True)])
    assert torch.allclose(both, 2 * sketch(x) - GradientSketch(31, seed=5)(y), atol=1e-4)
    assert not torch.allclose(sketch(x), GradientSketch(31, seed=6)(x), atol=1e-1)
    assert len(sketch([])) == 31


@pytest.mark.parametrize("rows", [gradient_sketch.ROWS, 2])  # with 2, blocks reuse the signs, shifted
def test_inner_products_are_unbiased_with_the_stated_error(monkeypatch, rows):
    """600 sketches of one pair, correlated within rows as the gradients of a weight matrix are."""
    monkeypatch.setattr(gradient_sketch, "ROWS", rows)
    x = [torch.outer(*parts(0, (20,), (37,))), *parts(2, (150,))]
    y = [x[0] + 0.5 * torch.outer(*parts(3, (20,), (37,))), *parts(4, (150,))]
    flat_x, flat_y = whole_gradient(x).double(), whole_gradient(y).double()
    found = []
    for seed in range(600):
        sketch = GradientSketch(53, seed=seed)
        found.append(float(sketch(x) @ sketch(y)))
    product, bound = float(flat_x @ flat_y), float((flat_x**2).sum() * (flat_y**2).sum() + (flat_x @ flat_y) ** 2)
    assert np.mean(found) == pytest.approx(product, abs=4 * np.std(found) / np.sqrt(600))
    assert np.std(found) <= 1.3 * np.sqrt(bound / 53)


def test_a_gradient_that_would_repeat_signs_is_refused(monkeypatch):
    monkeypatch.setattr(gradient_sketch, "ROWS", 1)
    sketch = GradientSketch(5)
    assert len(sketch([torch.ones(25)])) == 5
    with pytest.raises(InputError, match="5 buckets"):
        sketch([torch.ones(26)])
    with pytest.raises(InputError, match="at least 2"):
        GradientSketch(1)
