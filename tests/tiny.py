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


def run_settings(tmp_path: Path, model_folder: Path) -> dict:
    """The keys of a run of four steps in tmp_path/run, with checkpoints at steps 2 and 4."""
    from viprl.utils.json_lines import write_json_lines

    write_json_lines(tmp_path / "data.jsonl", dataset(32).to_list())
    return {
        "model": str(model_folder), "dataset": str(tmp_path / "data.jsonl"),
        "output_dir": str(tmp_path / "run"), "vip_strategy": "random", "vip_features": "none", "num_generations": 4,
        "per_device_train_batch_size": 16, "max_completion_length": 4, "max_steps": 4, "save_steps": 2, "use_cpu": True,
        "bf16": False, "beta": 0.0, "disable_tqdm": True, "gradient_checkpointing": False, "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
    }  # fmt: skip


def contains(prompts, completions, solution, **_):
    """1 where the solution's letter is among the completion's."""
    return [float(right in given.split()) for given, right in zip(completions, solution, strict=True)]
