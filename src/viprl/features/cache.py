"""Features of prompts: computed once for each distinct text and kept on disk."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from viprl.errors import InputTypeError
from viprl.features.encoders import Concatenated, Encoder, FeatureChoice, Length, checked, resolve
from viprl.features.vector_file import KEY, VectorFile, VectorFileError, Vectors, unpacked
from viprl.utils.arrays import FloatArray
from viprl.utils.batches import batches


class Features:
    """Vectors of texts for several choices of features.

    Encoders are shared: "minilm" and "minilm+length" embed a text once.

    Args:
        folder: of the cache on disk; None keeps vectors in memory.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = folder
        self._encoders: dict[Any, tuple[Encoder, ...]] = {}
        self._caches: dict[str, FeatureCache] = {}

    def prepare(self, choice: FeatureChoice) -> bool:
        """Build the encoders of `choice`, so that a missing package is found now. False if it means no features.

        Raises what `viprl.features.encoders.resolve` raises.
        """
        return bool(self._parts(choice))

    def describe(self, choice: FeatureChoice) -> str:
        """How a state remembers the features it was learned with: their name and number of columns."""
        vectors = self(choice, ["how many columns?"])
        name = str(choice) if isinstance(choice, str | Path) else "custom"
        return "none" if vectors is None else f"{name}, {vectors.shape[1]} columns"

    def warm(self, choice: FeatureChoice, texts: Sequence[str]) -> None:
        """Compute missing vectors, without holding all vectors in memory."""
        for encoder in self._parts(choice):
            if not isinstance(encoder, Length):
                self._cache(encoder).warm(texts)

    def __call__(self, choice: FeatureChoice, texts: Sequence[str]) -> FloatArray | None:
        """[n, d] vectors of n texts in float64; None if `choice` means no features."""
        columns = [self._vectors(encoder, texts) for encoder in self._parts(choice)]
        return np.hstack(columns) if columns else None

    def _parts(self, choice: FeatureChoice) -> tuple[Encoder, ...]:
        key = choice if isinstance(choice, Hashable) else id(choice)
        if key not in self._encoders:
            encoder = resolve(choice)
            single = () if encoder is None else (encoder,)
            self._encoders[key] = encoder.encoders if isinstance(encoder, Concatenated) else single
        return self._encoders[key]

    def _vectors(self, encoder: Encoder, texts: Sequence[str]) -> FloatArray:
        if isinstance(encoder, Length):  # faster to compute than to look up
            return encoder.encode(list(texts)).astype(np.float64)
        return self._cache(encoder)(texts)

    def _cache(self, encoder: Encoder) -> FeatureCache:
        key = encoder.name or f"unnamed {id(encoder)}"
        return self._caches.setdefault(key, FeatureCache(encoder, self.folder))


def default_folder() -> Path:
    """Folder of the cache: ``$VIPRL_CACHE`` if set, otherwise ``~/.cache/viprl/features``."""
    return Path(os.environ.get("VIPRL_CACHE") or Path.home() / ".cache" / "viprl" / "features")


class FeatureCache:
    """Vectors of texts with the precision of float16, computed once for each distinct text.

    With a folder, and an encoder that has a name, the vectors are in files (`viprl.features.vector_file`). Several
    processes may use the files at once, and a crash does not damage them; only the keys are in memory. Otherwise the
    vectors are in memory. Both give the same numbers.

    Keys are hashes of the encoder's name and the text, so vectors of another model are never used. Damaged vectors are
    computed again, with a warning. If the files cannot be used at all (damaged, locked, read-only), the vectors are
    computed in memory, with a warning.

    Args:
        encoder: computes the vectors.
        folder: of the files; None keeps the vectors in memory.
    """

    CHUNK = 4096  # new texts that are encoded between two writes, and that a crash can lose

    def __init__(self, encoder: Encoder, folder: str | Path | None = None) -> None:
        self.encoder, self.folder = encoder, None if folder is None else Path(folder).expanduser()
        self._opened: Vectors | None = None
        self._prefix = b""

    def __call__(self, texts: Sequence[str]) -> FloatArray:
        """[n, d] vectors of n texts in float64; [0, 0] for no texts.

        Raises InputTypeError for anything but strings, InputError for an encoder whose vectors are not usable.
        """
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise InputTypeError("expected a sequence of strings; use viprl.prompts.text for the text of a prompt")
        if not texts:
            return np.empty((0, 0))
        return unpacked(self._records(texts))

    def warm(self, texts: Sequence[str]) -> None:
        """Compute missing vectors."""
        for chunk in batches(texts, self.CHUNK):
            self._records(chunk)

    def _store(self) -> Vectors:
        if self._opened is None:
            name = self.encoder.name  # can take a moment: a hash of the model's files
            digest = hashlib.sha256(name.encode("utf-8", "surrogatepass"))
            stem = f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)[:40]}-{digest.hexdigest()[:12]}"
            self._prefix = digest.digest()
            self._opened = VectorFile(self.folder / stem) if self.folder is not None and name else Vectors()
        return self._opened

    def _records(self, texts: Sequence[str]) -> np.ndarray:
        """[n] the record of each text in the store. Missing vectors are computed."""
        store = self._store()
        keys = [hashlib.sha256(self._prefix + text.encode("utf-8", "surrogatepass")).digest()[:KEY] for text in texts]
        while True:  # repeated only if the file fails
            try:
                rows = store.find(keys)
                records, sound = store.load(keys, rows)
            except VectorFileError as error:
                store = self._give_up(error)
                continue
            if sound.all():
                return records
            damaged = len({key for key, row, good in zip(keys, rows, sound, strict=True) if row >= 0 and not good})
            if damaged:
                message = f"{self.folder}: {damaged} damaged vectors are computed again"
                warnings.warn(message, RuntimeWarning, stacklevel=3)
            self._compute({key: text for key, text, good in zip(keys, texts, sound, strict=True) if not good})
            store = self._store()

    def _compute(self, texts: dict[bytes, str]) -> None:
        for chunk in batches(texts, self.CHUNK):
            vectors = checked(self.encoder.encode([texts[key] for key in chunk]), len(chunk))
            try:
                self._store().append(chunk, vectors)
            except VectorFileError as error:
                self._give_up(error).append(chunk, vectors)

    def _give_up(self, error: Exception) -> Vectors:
        """Use an empty store in memory from now on."""
        warnings.warn(
            f"{self.folder}: the feature cache cannot be used ({error}); features are kept in memory. If the cache is "
            "damaged, delete it; if the disk is not suitable, set VIPRL_CACHE to a folder on a local disk",
            RuntimeWarning,
            stacklevel=4,
        )
        self._opened = Vectors()
        return self._opened
