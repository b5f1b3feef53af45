"""How long prompts are to a model: tokens through its chat template, against its context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from viprl.prompts import Prompt

BATCH = 512


def load_tokenizer(model: str, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a model folder or hub name, padding on the left. Raises ValueError where there is none."""
    from transformers import AutoTokenizer

    _check_folder(model)
    try:
        return AutoTokenizer.from_pretrained(model, padding_side="left", trust_remote_code=trust_remote_code)
    except Exception as error:  # a missing folder, no network, a broken file: the mend is the same
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{model!r} has no tokenizer that can be loaded ({type(error).__name__}: {reason}); name a "
            "model folder or hub name, or set `tokenizer`"
        ) from error


def load_model_config(model: str, *, trust_remote_code: bool = False) -> Any:
    """The configuration of a model, without its weights. Raises ValueError where there is none."""
    from transformers import AutoConfig

    _check_folder(model)
    try:
        return AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"model {model!r} is neither a model folder nor found on the hub: {reason}") from error


def _check_folder(model: str) -> None:
    """Raise ValueError for what can only be a folder, and is none: hub names are NAME or OWNER/NAME."""
    local = model.startswith(("/", ".", "~")) or model.count("/") > 1 or Path(model).is_file()
    if local and not Path(model).is_dir():
        what = "a file, no folder" if Path(model).is_file() else "no such folder"
        raise ValueError(f"{model}: {what}; expected the folder of a model or its name on the hub")


def context_of(model_config: Any, overrides: Mapping[str, Any] | None = None) -> int | None:
    """Longest sequence in tokens, None where the configuration names none."""
    text = model_config.get_text_config()
    limit = (overrides or {}).get("max_position_embeddings", getattr(text, "max_position_embeddings", None))
    return int(limit) if limit else None


def check_template(prompts: Sequence[Prompt], tokenizer: Any, model: str) -> None:
    """Raises ValueError where the prompts are chats and the tokenizer has no chat template."""
    if any(not isinstance(prompt, str) for prompt in prompts) and not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            f"the prompts are chats, but the tokenizer of {model} has no chat template; set chat: false to train on "
            "plain text, or `tokenizer` to one that has a template (an -instruct model's)"
        )


def rendered(prompt: Prompt, tokenizer: Any, template_options: Mapping[str, Any] | None = None) -> str:
    """The text that the model sees."""
    if isinstance(prompt, str):
        return prompt
    options = dict(template_options or {})
    return tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True, **options)


def token_lengths(
    prompts: Sequence[Prompt], tokenizer: Any, template_options: Mapping[str, Any] | None = None
) -> np.ndarray:
    """[n] int64 tokens of each prompt as the model sees it."""
    lengths: list[int] = []
    starts = range(0, len(prompts), BATCH)
    for start in track(starts, "counting tokens", transient=True, disable=len(prompts) < 20_000):
        some = prompts[start : start + BATCH]
        texts = [rendered(prompt, tokenizer, template_options) for prompt in some]
        # a chat template writes the special tokens itself
        special = isinstance(some[0], str)
        lengths += [len(ids) for ids in tokenizer(texts, add_special_tokens=special)["input_ids"]]
    return np.array(lengths, dtype=np.int64)
