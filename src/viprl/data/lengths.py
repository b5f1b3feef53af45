"""Lengths of prompts in tokens, through the chat template of a model, and the context of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from viprl.errors import DataError, InputError
from viprl.prompts import Prompt
from viprl.utils.batches import batches
from viprl.utils.words import first_line

BATCH = 512


def load_tokenizer(model: str, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a model folder or Hub name, padding on the left. Raises InputError if it cannot be loaded."""
    from transformers import AutoTokenizer

    return _load(AutoTokenizer, "tokenizer", model, trust_remote_code=trust_remote_code, padding_side="left")


def load_model_config(model: str, *, trust_remote_code: bool = False) -> Any:
    """The configuration of a model, without its weights. Raises InputError if it cannot be loaded."""
    from transformers import AutoConfig

    return _load(AutoConfig, "configuration", model, trust_remote_code=trust_remote_code)


def _load(kind: Any, what: str, model: str, **options: Any) -> Any:
    local = model.startswith(("/", ".", "~")) or model.count("/") > 1 or Path(model).is_file()
    if local and not Path(model).is_dir():  # Hub names are NAME or OWNER/NAME
        wrong = "is a file" if Path(model).is_file() else "does not exist"
        raise InputError(f"{model} {wrong}; expected the folder of a model, or its name on the Hub")
    try:
        return kind.from_pretrained(model, **options)
    except Exception as error:  # a missing folder, no network, a damaged file: transformers raises many kinds
        missing = Path(model).parent.is_dir() and not Path(model).is_dir()
        raise InputError(
            f"the {what} of {model!r} cannot be loaded ({type(error).__name__}: {first_line(error)}); "
            f"{'there is no such folder here; ' if missing else ''}give a model folder or a Hub name"
        ) from error


def context_of(model_config: Any, overrides: Mapping[str, Any] | None = None) -> int | None:
    """Longest sequence in tokens; None if the configuration does not give it. `overrides` take precedence."""
    text = model_config.get_text_config()
    limit = (overrides or {}).get("max_position_embeddings", getattr(text, "max_position_embeddings", None))
    return int(limit) if limit else None


def check_template(prompts: Sequence[Prompt], tokenizer: Any, model: str) -> None:
    """Raise DataError if a prompt is a chat and the tokenizer has no chat template."""
    if any(not isinstance(prompt, str) for prompt in prompts) and not getattr(tokenizer, "chat_template", None):
        raise DataError(
            f"the prompts are chats, but the tokenizer of {model} has no chat template; set chat: false (--no-chat), "
            "or set `tokenizer` to one with a template, such as that of an -instruct model"
        )


def rendered(prompt: Prompt, tokenizer: Any, template_options: Mapping[str, Any] | None = None) -> str:
    """The text of a prompt as the model sees it: a chat through the chat template, a text as it is.

    Raises DataError if the template fails.
    """
    if isinstance(prompt, str):
        return prompt
    options = {"add_generation_prompt": True, **(template_options or {})}
    try:
        return tokenizer.apply_chat_template(prompt, tokenize=False, **options)
    except Exception as error:  # a template can raise anything
        raise DataError(
            f"the chat template fails ({type(error).__name__}: {first_line(error)}); change the messages, or the "
            "options of the template (chat_template_kwargs)"
        ) from error


def token_ids(
    prompts: Sequence[Prompt], tokenizer: Any, template_options: Mapping[str, Any] | None = None
) -> Iterator[list[int]]:
    """The tokens of each prompt as the model sees it. The prompts are all texts or all chats.

    Raises DataError, with the number of the prompt, if the chat template fails.
    """
    parts = list(batches(prompts, BATCH))
    for part, some in enumerate(track(parts, "tokenizing", transient=True, disable=len(prompts) < 20_000)):
        texts = []
        for number, prompt in enumerate(some, start=part * BATCH + 1):
            try:
                texts.append(rendered(prompt, tokenizer, template_options))
            except DataError as error:
                raise DataError(f"prompt {number} of {len(prompts)}: {error}") from error
        # chat templates include the special tokens
        yield from tokenizer(texts, add_special_tokens=isinstance(some[0], str))["input_ids"]


def token_lengths(
    prompts: Sequence[Prompt], tokenizer: Any, template_options: Mapping[str, Any] | None = None
) -> np.ndarray:
    """[n] int64 tokens of each prompt as the model sees it."""
    return np.array([len(ids) for ids in token_ids(prompts, tokenizer, template_options)], dtype=np.int64)
