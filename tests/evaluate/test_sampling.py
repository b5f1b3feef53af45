"""Completions by transformers and nucleus sampling: their distributions; options of sampling."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch

import tiny
from viprl.errors import InputError, MissingPackageError
from viprl.evaluate.nucleus import NUCLEUS, DrawByNumbers, nucleus_quantile
from viprl.evaluate.problems import Problem
from viprl.evaluate.sampling import Sampling, choose_backend, transformers_sampler


def test_samples_follow_the_model(tmp_path):
    """First tokens of 4,000 completions against the probabilities of the model at temperature 2, top-p .7."""
    tiny.model().save_pretrained(tmp_path)
    settings = Sampling(n=4000, temperature=2.0, top_p=0.7, max_new_tokens=1)
    tokenizer, network = tiny.tokenizer(), tiny.model().eval()
    problem = Problem("p", "a b", "a", tuple(tokenizer("a b")["input_ids"]))
    (made,) = transformers_sampler(str(tmp_path), tokenizer, settings, batch_size=4000, device="cpu")([problem])
    with torch.no_grad():
        probabilities = (network(torch.tensor([problem.tokens])).logits[0, -1].double() / 2.0).softmax(-1).numpy()
    order = np.argsort(-probabilities)
    inside = order[: int(np.searchsorted(np.cumsum(probabilities[order]), 0.7)) + 1]
    found = Counter(made.completions)
    for token in inside:
        text = tokenizer.decode([int(token)], skip_special_tokens=True)
        if text:  # special tokens have no text
            expected = probabilities[token] / probabilities[inside].sum()
            assert found[text] / 4000 == pytest.approx(expected, abs=4 * np.sqrt(expected / 4000))
    assert set(found) <= {tokenizer.decode([int(t)], skip_special_tokens=True) for t in inside}


def test_the_sampling_defaults_of_the_model_are_not_used(tmp_path):
    tiny.model().save_pretrained(tmp_path)
    file = tmp_path / "generation_config.json"
    settings, problem = Sampling(n=64, top_p=1.0, max_new_tokens=4), Problem("p", "a b", "a", (3, 4))
    runs = []
    for changes in ({}, {"top_k": 1, "do_sample": True, "repetition_penalty": 9.0, "min_new_tokens": 4}):
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
        runs += transformers_sampler(str(tmp_path), tiny.tokenizer(), settings, batch_size=64)([problem])
    assert runs[0] == runs[1] and len(set(runs[0].completions)) > 20


@pytest.mark.parametrize("bad", [{"n": 0}, {"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.5}, {"max_new_tokens": 0}])
def test_unusable_sampling(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        Sampling(**bad)


def test_backends():
    assert choose_backend("transformers") == "transformers"
    with pytest.raises(InputError, match="'tgi'"):
        choose_backend("tgi")
    with pytest.raises(MissingPackageError, match="pip install vllm"):
        choose_backend("vllm")


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
