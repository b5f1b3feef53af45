"""Features of prompts, computed once for every distinct text and kept on disk."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import warnings
import zlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from viprl.encoders import Concatenated, Encoder, FeatureSpec, batches, checked, resolve


class Features:
    """Vectors for several specs; encoders are shared, so "minilm" and "minilm+length" embed a text once."""

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = folder
        self._encoders: dict[Any, tuple[Encoder, ...]] = {}
        self._caches: dict[str, FeatureCache] = {}

    def prepare(self, spec: FeatureSpec) -> bool:
        """Build what ``spec`` needs, so that a missing extra shows now; False when it means no features."""
        return bool(self._parts(spec))

    def __call__(self, spec: FeatureSpec, texts: Sequence[str]) -> np.ndarray | None:
        """Vectors [n, d] of ``texts`` in float64; None for no features."""
        columns = [self._cache(encoder)(texts) for encoder in self._parts(spec)]
        return np.hstack(columns) if columns else None

    def _parts(self, spec: FeatureSpec) -> tuple[Encoder, ...]:
        key = spec if isinstance(spec, Hashable) else id(spec)
        if key not in self._encoders:
            encoder = resolve(spec)
            single = () if encoder is None else (encoder,)
            self._encoders[key] = encoder.encoders if isinstance(encoder, Concatenated) else single
        return self._encoders[key]

    def _cache(self, encoder: Encoder) -> FeatureCache:
        key = encoder.name or f"unnamed {id(encoder)}"
        return self._caches.setdefault(key, FeatureCache(encoder, self.folder))


def default_folder() -> Path:
    """Where features are kept: ``$VIPRL_CACHE`` if set, otherwise ``~/.cache/viprl/features``."""
    return Path(os.environ.get("VIPRL_CACHE") or Path.home() / ".cache" / "viprl" / "features")


class FeatureCache:
    """Vectors of texts, computed once per distinct text.

    Kept in memory and, with a ``folder``, in ``folder/features.sqlite``, which many processes may use at
    once and which survives crashes. Rows are keyed by a hash of the encoder's name and the text, and carry
    a checksum: what another model wrote is never found, what is damaged is computed again with a warning.
    A file that cannot be used at all (damaged, locked, read-only) costs a warning and time, nothing else.
    """

    FILE = "features.sqlite"
    CHUNK = 4096  # new texts encoded between two writes: what a crash can lose
    UNUSABLE = (sqlite3.Error, OSError, UnicodeDecodeError)  # the last one: a damaged table of contents

    def __init__(self, encoder: Encoder, folder: str | Path | None = None) -> None:
        self.encoder = encoder
        self.file = None if folder is None else Path(folder).expanduser() / self.FILE
        self._vectors: dict[bytes, np.ndarray] = {}

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors [n, d] in float64, row by row for ``texts`` ([0, 0] for none; d as the encoder makes it).

        Raises TypeError for anything but strings, ValueError for an encoder whose vectors are not usable.
        """
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise TypeError("expected a sequence of strings; viprl.prompts.text gives the text of a prompt")
        prefix = hashlib.sha256(self.encoder.name.encode()).digest()
        keys = [hashlib.sha256(prefix + text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        wanted = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._vectors}
        if wanted:
            self._vectors |= self._read(list(wanted))
            self._compute({key: text for key, text in wanted.items() if key not in self._vectors})
        if len({self._vectors[key].size for key in keys}) > 1:
            raise ValueError(
                f"the encoder {self.encoder.name!r} made vectors of different lengths; "
                "an encoder that changes needs another name"
            )
        vectors = [self._vectors[key] for key in keys]
        return np.array(vectors, dtype=np.float64) if vectors else np.empty((0, 0))

    def _compute(self, texts: Mapping[bytes, str]) -> None:
        for chunk in batches(texts, self.CHUNK):
            vectors = checked(self.encoder.encode([texts[key] for key in chunk]), len(chunk))
            fresh = dict(zip(chunk, vectors, strict=True))
            self._vectors |= fresh
            self._write(fresh)

    def _read(self, keys: Iterable[bytes]) -> dict[bytes, np.ndarray]:
        found: dict[bytes, np.ndarray] = {}
        if self.file is None or not self.encoder.name or not self.file.exists():
            return found
        damaged = 0
        try:
            with closing(self._connect()) as database:
                for batch in batches(keys, 500):
                    marks = ",".join("?" * len(batch))
                    query = f"SELECT key, vector, checksum FROM features WHERE key IN ({marks})"
                    for key, vector, checksum in database.execute(query, batch):
                        blobs = isinstance(key, bytes) and isinstance(vector, bytes)
                        if blobs and checksum == zlib.crc32(key + vector):
                            found[key] = np.frombuffer(vector, dtype="<f4")
                        else:
                            damaged += 1
        except self.UNUSABLE as error:
            self._give_up(error)
        if damaged:
            message = f"{self.file}: {damaged} damaged rows are computed again"
            warnings.warn(message, RuntimeWarning, stacklevel=3)
        return found

    def _write(self, vectors: Mapping[bytes, np.ndarray]) -> None:
        if self.file is None or not self.encoder.name:
            return
        blobs = ((key, vector.astype("<f4", copy=False).tobytes()) for key, vector in vectors.items())
        rows = ((key, blob, zlib.crc32(key + blob)) for key, blob in blobs)
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect()) as database, database:
                database.executemany("INSERT OR REPLACE INTO features VALUES (?, ?, ?)", rows)
        except self.UNUSABLE as error:
            self._give_up(error)

    def _connect(self) -> sqlite3.Connection:
        """A connection for one read or write: none is carried into a forked process or another thread."""
        database = sqlite3.connect(str(self.file), timeout=60)
        try:
            database.execute(
                "CREATE TABLE IF NOT EXISTS features "
                "(key BLOB PRIMARY KEY, vector BLOB NOT NULL, checksum INTEGER NOT NULL)"
            )
        except BaseException:
            database.close()
            raise
        return database

    def _give_up(self, error: Exception) -> None:
        warnings.warn(
            f"{self.file}: the feature cache cannot be used ({error}); going on in memory. If it is damaged, "
            "delete it; if the disk does not suit, set VIPRL_CACHE to a folder on a local one",
            RuntimeWarning,
            stacklevel=4,
        )
        self.file = None
