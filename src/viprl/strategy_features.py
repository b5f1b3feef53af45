"""The prompts as each strategy sees them: with the features that it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from viprl.errors import InputError
from viprl.features.cache import Features, default_folder
from viprl.features.encoders import FeatureChoice, auto_features
from viprl.predictors.base import Batch
from viprl.prompts import PromptBatch
from viprl.strategies import Strategy


class StrategyFeatures:
    """Computes and caches the features of prompts for several strategies.

    Args:
        strategies: by name.
        features: the option of `VIP`; "auto" gives each strategy what it asks for.
        cache: the option of `VIP`.

    Raises InputError if a strategy cannot predict without features, MissingPackageError if features need a package
    that is not installed.
    """

    def __init__(self, strategies: Mapping[str, Strategy], features: FeatureChoice, cache: str | Path | None) -> None:
        self._features = Features(default_folder() if cache == "auto" else cache)
        self._choices = {name: self._choice(strategy, features) for name, strategy in strategies.items()}

    def batch(self, name: str, prompts: PromptBatch) -> Batch:
        """What one strategy sees of the distinct prompts."""
        return Batch(prompts.distinct, self._features(self._choices[name], prompts.texts))

    def batches(self, prompts: PromptBatch) -> dict[str, Batch]:
        """What each strategy sees; strategies with the same features share the vectors."""
        vectors = {id(choice): self._features(choice, prompts.texts) for choice in self._choices.values()}
        return {name: Batch(prompts.distinct, vectors[id(choice)]) for name, choice in self._choices.items()}

    @staticmethod
    def at(batches: Mapping[str, Batch], prompts: PromptBatch, positions: np.ndarray) -> dict[str, Batch]:
        """What each strategy sees of `prompts.at(positions)`, from what it sees of `prompts`, without reading again."""
        rows = list(dict.fromkeys(prompts.rows[positions].tolist()))  # of the distinct ones, in their new order
        keys = tuple(prompts.distinct[row] for row in rows)
        seen = {name: batch.features for name, batch in batches.items()}
        return {name: Batch(keys, None if vectors is None else vectors[rows]) for name, vectors in seen.items()}

    def warm(self, prompts: PromptBatch) -> None:
        """Put the features of prompts into the cache, without holding all of them in memory."""
        for choice in self._choices.values():
            self._features.warm(choice, prompts.texts)

    def described(self) -> dict[str, str]:
        """The features of each strategy in words, for saved states."""
        return {name: self._features.describe(choice) for name, choice in self._choices.items()}

    def _choice(self, strategy: Strategy, features: FeatureChoice) -> FeatureChoice:
        auto = isinstance(features, str) and features == "auto"
        choice = auto_features(strategy.predictor.features) if auto else features
        if not self._features.prepare(choice) and strategy.predictor.needs_features:
            raise InputError(
                f"strategy {strategy.name!r} predicts from prompt features, but features is {choice!r}; set "
                "features='minilm' or features='length'"
            )
        return choice
