"""The data of a run and its lengths in tokens. The runs of a sweep mostly share them, so each is read once."""

from __future__ import annotations

from typing import Any

import numpy as np

from viprl.data.gym import is_gym
from viprl.data.lengths import check_template, token_lengths
from viprl.data.loading import DataSource, Loaded, load

SAMPLE = 256
"""Rows of an endless source whose length is measured."""


class Reader:
    """Remembers what it has read; made for one check and then let go."""

    def __init__(self) -> None:
        self._loaded: dict[DataSource, Loaded] = {}
        self._lengths: dict[tuple[DataSource, str, str], np.ndarray] = {}

    def load(self, source: DataSource) -> Loaded:
        """See `viprl.data.load`."""
        if source not in self._loaded:
            self._loaded[source] = load(source)
        return self._loaded[source]

    def lengths(self, loaded: Loaded, tokenizer: Any, name: str, template_options: Any) -> np.ndarray:
        """[n] tokens of each prompt (of a sample, where the source is endless); `name` is the tokenizer's. Raises
        ValueError for chats without a chat template."""
        key = loaded.source, name, repr(template_options)
        if key not in self._lengths:
            endless = is_gym(loaded.source.name)
            prompts = loaded.dataset[: SAMPLE if endless else len(loaded.dataset)]["prompt"]
            check_template(prompts, tokenizer, name)
            self._lengths[key] = token_lengths(prompts, tokenizer, template_options)
        return self._lengths[key]
