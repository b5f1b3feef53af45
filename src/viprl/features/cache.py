"""Features of prompts, computed once for every distinct text and kept on disk."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from viprl.features.encoders import Concatenated, Encoder, FeatureChoice, Length, batches, checked, resolve
from viprl.features.vector_file import KEY, VectorFile, VectorFileError, Vectors
from viprl.utils.arrays import FloatArray


class Features:
    """Vectors for several specs; encoders are shared, so "minilm" and "minilm+length" embed a text once."""

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = folder
        self._encoders: dict[Any, tuple[Encoder, ...]] = {}
        self._caches: dict[str, FeatureCache] = {}

    def prepare(self, spec: FeatureChoice) -> bool:
        """Build what ``spec`` needs, so that a missing extra shows now; False when it means no features."""
        return bool(self._parts(spec))

    def warm(self, spec: FeatureChoice, texts: Sequence[str]) -> None:
        """Compute what is missing, without the memory that all the vectors at once would take."""
        for encoder in self._parts(spec):
            if not isinstance(encoder, Length):
                self._cache(encoder).warm(texts)

    def __call__(self, spec: FeatureChoice, texts: Sequence[str]) -> FloatArray | None:
        """Vectors [n, d] of ``texts`` in float64; None for no features."""
        columns = [self._vectors(encoder, texts) for encoder in self._parts(spec)]
        return np.hstack(columns) if columns else None

    def _parts(self, spec: FeatureChoice) -> tuple[Encoder, ...]:
        key = spec if isinstance(spec, Hashable) else id(spec)
        if key not in self._encoders:
            encoder = resolve(spec)
            single = () if encoder is None else (encoder,)
            self._encoders[key] = encoder.encoders if isinstance(encoder, Concatenated) else single
        return self._encoders[key]

    def _vectors(self, encoder: Encoder, texts: Sequence[str]) -> FloatArray:
        if isinstance(encoder, Length):  # sooner computed than looked up
            return encoder.encode(list(texts)).astype(np.float64)
        return self._cache(encoder)(texts)

    def _cache(self, encoder: Encoder) -> FeatureCache:
        key = encoder.name or f"unnamed {id(encoder)}"
        return self._caches.setdefault(key, FeatureCache(encoder, self.folder))


def default_folder() -> Path:
    """Where features are kept: ``$VIPRL_CACHE`` if set, otherwise ``~/.cache/viprl/features``."""
    return Path(os.environ.get("VIPRL_CACHE") or Path.home() / ".cache" / "viprl" / "features")


class FeatureCache:
    """Vectors of texts, computed once per distinct text, to the precision of float16.

    With a ``folder`` and an encoder that has a name they lie in files there (`viprl.features.vector_file`), which many
    processes may use at once and which survive crashes; of a million prompts only the keys are in memory. Otherwise
    the vectors are. Both give the same numbers. Keys are hashes of the encoder's name and the text: what another
    model wrote is never found, and what is damaged is computed again with a warning. A file that cannot be used at
    all (damaged, locked, read-only) costs a warning and time, nothing else.
    """

    CHUNK = 4096  # new texts encoded between two writes: what a crash can lose

    def __init__(self, encoder: Encoder, folder: str | Path | None = None) -> None:
        self.encoder, self.folder = encoder, None if folder is None else Path(folder).expanduser()
        self._opened: Vectors | None = None
        self._prefix = b""

    def __call__(self, texts: Sequence[str]) -> FloatArray:
        """Vectors [n, d] in float64, row by row for ``texts`` ([0, 0] for none; d as the encoder makes it).

        Raises TypeError for anything but strings, ValueError for an encoder whose vectors are not usable.
        """
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise TypeError("expected a sequence of strings; viprl.prompts.text gives the text of a prompt")
        if not texts:
            return np.empty((0, 0))
        rows = self._rows(texts)  # comes first: it may go over to another store
        return self._store().take(rows)

    def warm(self, texts: Sequence[str]) -> None:
        """Compute what is missing."""
        for chunk in batches(texts, self.CHUNK):
            self._rows(chunk)

    def _store(self) -> Vectors:
        if self._opened is None:
            name = self.encoder.name  # may take a moment: the hash of a model's files
            digest = hashlib.sha256(name.encode())
            stem = f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)[:40]}-{digest.hexdigest()[:12]}"
            self._prefix = digest.digest()
            self._opened = VectorFile(self.folder / stem) if self.folder is not None and name else Vectors()
        return self._opened

    def _rows(self, texts: Sequence[str]) -> np.ndarray:
        """[n] row of each text in the store, which afterwards has them all."""
        store = self._store()
        keys = [hashlib.sha256(self._prefix + text.encode("utf-8", "surrogatepass")).digest()[:KEY] for text in texts]
        while True:  # again only where the file fails on the way
            try:
                rows = store.find(keys)
            except VectorFileError as error:
                store = self._give_up(error)
                continue
            sound = store.sound(keys, rows)
            if sound.all():
                return rows
            damaged = len({key for key, row, good in zip(keys, rows, sound, strict=True) if row >= 0 and not good})
            if damaged:
                message = f"{self.folder}: {damaged} damaged rows are computed again"
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
        """Go on in memory, afresh."""
        warnings.warn(
            f"{self.folder}: the feature cache cannot be used ({error}); going on in memory. If it is damaged, "
            "delete it; if the disk does not suit, set VIPRL_CACHE to a folder on a local one",
            RuntimeWarning,
            stacklevel=4,
        )
        self._opened = Vectors()
        return self._opened
