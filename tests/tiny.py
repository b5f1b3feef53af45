"""A model, a tokenizer and data so small that a training step takes milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

LETTERS = "abcdefgh"


SPECIAL = ("<pad>", "<eos>", "<unk>")


def tokenizer(words: Sequence[str] = LETTERS, **options: Any) -> PreTrainedTokenizerFast:
    """A token for each word. `options` are those of the tokenizer."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *words])}
    tokens = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>", "padding_side": "left"}
    return PreTrainedTokenizerFast(tokenizer_object=tokens, **(special | options))


def model(seed: int = 0, words: Sequence[str] = LETTERS) -> LlamaForCausalLM:
    """Random weights, for the tokenizer of the same words."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(SPECIAL) + len(words),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=64,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
    )


def save(folder: Path) -> Path:
    """The folder with a model and its tokenizer."""
    model().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def dataset(n: int = 16, **columns: list):
    from datasets import Dataset

    prompts = [f"{x} {y}" for x in LETTERS for y in LETTERS][:n]
    return Dataset.from_dict({"prompt": prompts, "solution": [p.split()[0] for p in prompts], **columns})


def contains(prompts, completions, solution, **_):
    """1 where the solution's letter is among the completion's."""
    return [float(right in given.split()) for given, right in zip(completions, solution, strict=True)]
