"""The data of a run and the lengths of its prompts. The runs of a sweep mostly share them, so they are read once."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from viprl.data.lengths import check_template, token_lengths
from viprl.data.loading import DataSource, Loaded, load

SAMPLE = 256
"""Rows of an endless source whose length is measured."""


class DataCache:
    """Keeps the data sets and lengths that it has read, for one check of one or several runs."""

    def __init__(self) -> None:
        self.load = cache(load)
        self._lengths: dict[tuple[DataSource, str, str], np.ndarray] = {}

    def lengths(self, tokenizer: Any, name: str, template_options: Any, loaded: Loaded) -> np.ndarray:
        """[n] length of each prompt in tokens; of a sample of them if the data is endless.

        `name` is the name of the tokenizer. Raises DataError for chats if it has no chat template.
        """
        key = loaded.source, name, repr(template_options)
        if key not in self._lengths:
            prompts = loaded.dataset[: SAMPLE if loaded.rows is None else len(loaded.rows)]["prompt"]
            check_template(prompts, tokenizer, name)
            self._lengths[key] = token_lengths(prompts, tokenizer, template_options)
        return self._lengths[key]
