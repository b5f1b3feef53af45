"""State files: a nested dict of plain values and NumPy arrays in one file, without pickle.

The file has the safetensors format. Arrays are its tensors. Everything else is one JSON document, stored as a tensor of
bytes because safetensors limits its header to 100 MB. The header holds format, kind, version and a checksum of the
content.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from viprl.errors import StateError
from viprl.utils.files import make_folder, replacing

State = dict[str, Any]
"""A nested dict of plain values and NumPy arrays."""

_FORMAT = "viprl-state-1"
_DOCUMENT = "document"
_LARGEST_HEADER = 100_000_000  # of safetensors
_ARRAY = "$array"
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_CHUNK = 1_000
"""Values that are encoded at once, a third of a millisecond."""
_PLAIN = frozenset({str, int, float, bool, type(None)})
_DTYPES = {np.dtype(bool): "BOOL"} | {
    np.dtype(f"{kind}{size}"): f"{kind.upper()}{8 * size}"
    for kind, sizes in {"i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8)}.items()
    for size in sizes
}
"""Of arrays, and their names in safetensors."""


def save(path: str | Path, state: Mapping[str, Any], *, kind: str, version: int) -> None:
    """Write a state atomically: after a crash at any moment, either the old or the new file is complete.

    Args:
        path: the file. Its folder is created if necessary.
        state: dicts with string keys, and lists, of NumPy arrays and scalars (booleans, integers and floats in native
            byte order), str, int, float, bool and None. `load` returns them exactly, dtypes and shapes included.
        kind, version: identify the layout of `state`; `load` checks both.

    Raises TypeError for other types, with their place in `state`; FileError (an OSError) if writing fails.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"state is of type {type(state).__name__}; expected a dict with string keys")
    path = Path(path)
    tensors: dict[str, np.ndarray] = {}
    document = bytearray()
    _encode(state, "state", tensors, document)
    tensors[_DOCUMENT] = np.frombuffer(document, dtype=np.uint8)
    header = {"format": _FORMAT, "kind": kind, "version": str(version), "checksum": _checksum(tensors)}
    make_folder(path.parent)
    with replacing(path) as file:
        for part in _safetensors(tensors, header):
            file.write(part)


def load(path: str | Path, *, kind: str, version: int) -> dict[str, Any]:
    """Read a state that `save` wrote.

    Raises StateError if the file is missing or damaged, has another format, or holds another kind or version.
    """
    path = Path(path)
    if not path.is_file():
        raise StateError(f"{path}: no such file; expected a state of kind {kind!r}; check the path")
    try:
        with path.open("rb") as file:  # not mapped: a mapped file that another program truncates kills the process
            length = min(int.from_bytes(file.read(8), "little"), _LARGEST_HEADER)
            header = json.loads(file.read(length)).get("__metadata__", {})
            _check_header(path, header, kind, version)
            file.seek(0)
            tensors = safetensors.numpy.load(file.read())
    except (StateError, MemoryError):
        raise
    except Exception as error:  # safetensors raises many kinds
        raise StateError(
            f"{path} is not a complete safetensors file ({error}); expected a state of kind {kind!r}; check the path, "
            "or use an earlier checkpoint"
        ) from error
    found = _checksum(tensors)
    if found != header.get("checksum") or _DOCUMENT not in tensors:
        expected = header.get("checksum", "")
        raise StateError(
            f"{path} is damaged: its content has the checksum {found[:12]!r}, its header {expected[:12]!r}; use an "
            "earlier checkpoint"
        )

    def restore(node: dict[str, Any]) -> Any:
        if node.keys() == {_ARRAY}:
            return tensors[node[_ARRAY]]
        if node.keys() == {_ARRAY, "scalar"}:
            return tensors[node[_ARRAY]][()]
        return {key.removeprefix("$"): value for key, value in node.items()} if _has_dollar(node) else node

    try:
        return json.loads(tensors[_DOCUMENT].tobytes().decode("utf-8", "surrogatepass"), object_hook=restore)
    except (ValueError, LookupError, RecursionError) as error:  # written by another program, checksum included
        raise StateError(
            f"{path} has a document that cannot be read ({type(error).__name__}: {error}); use an earlier checkpoint"
        ) from error


def generator(state: Any) -> np.random.Generator:
    """The generator of `numpy.random.default_rng` with a saved state. Raises StateError for anything else."""
    rng = np.random.default_rng(0)
    try:
        rng.bit_generator.state = state
    except Exception as error:  # NumPy raises many kinds
        raise StateError(
            f"the entry 'rng' is not the state of a random generator ({type(error).__name__}: {error}); use an earlier "
            "checkpoint, or start without history"
        ) from error
    return rng


def _check_header(path: Path, header: Mapping[str, str], kind: str, version: int) -> None:
    if header.get("format") != _FORMAT:
        raise StateError(
            f"{path} has the format {header.get('format')!r}; expected {_FORMAT!r}; check the path, or upgrade viprl "
            "if a newer version wrote it"
        )
    if header.get("kind") != kind:
        raise StateError(f"{path} holds a state of kind {header.get('kind')!r}; expected {kind!r}; check the path")
    found = header.get("version", "")
    if found != str(version):
        newer = found.isdecimal() and int(found) > version
        age = "newer" if newer else "older"
        fix = "upgrade viprl" if newer else "load it with the viprl version that wrote it, or start without it"
        raise StateError(f"{path} holds a state of kind {kind!r} of {age} version {found}; expected {version}; {fix}")


def _encode(node: Any, where: str, tensors: dict[str, np.ndarray], document: bytearray) -> None:
    """Append ``node`` as JSON to ``document``. Its arrays go to ``tensors`` and are replaced by ``{"$array": name}``.

    A key that begins with "$" gets another "$" in front, so that it cannot be taken for such a reference. Plain values
    are encoded together, because to walk over millions of strings would take seconds, but not more than `_CHUNK` of
    them, because no other thread of Python runs meanwhile: a state may be saved beside a training step.
    """
    if type(node) in _PLAIN:
        document += _json(node)
    elif isinstance(node, np.ndarray | np.generic):
        document += _json(_stored(node, where, tensors))
    elif type(node) is list:
        document += b"["
        for start in range(0, len(node), _CHUNK):
            part = node[start : start + _CHUNK]
            _give_way(len(part))
            document += b"," if start else b""
            if _PLAIN.issuperset(map(type, part)):
                document += _json(part)[1:-1]
                continue
            for position, item in enumerate(part, start):
                document += b"," if position > start else b""
                _encode(item, f"{where}[{position}]", tensors, document)
        document += b"]"
    elif isinstance(node, Mapping):
        document += b"{"
        items, separator = iter(node.items()), b""
        while pairs := dict(islice(items, _CHUNK)):
            _check_keys(pairs, where)
            _give_way(len(pairs))
            document += separator
            separator = b","
            if _PLAIN.issuperset(map(type, pairs.values())) and not _has_dollar(pairs):
                document += _json(pairs)[1:-1]
                continue
            for position, (key, item) in enumerate(pairs.items()):
                escaped = f"${key}" if key.startswith("$") else key
                document += (b"," if position else b"") + _json(escaped) + b":"
                _encode(item, f"{where}[{key!r}]", tensors, document)
        document += b"}"
    else:
        raise TypeError(
            f"{where} is of type {type(node).__name__}; expected NumPy arrays, str, int, float, bool, None, and lists "
            "and dicts of these"
        )


def _json(value: Any) -> bytes:
    """Plain values, a list or a dict of them. "surrogatepass" keeps strings that are not valid Unicode, which models do
    produce."""
    return _JSON.encode(value).encode("utf-8", "surrogatepass")


def _give_way(size: int) -> None:
    """After a whole chunk let other threads go on at once, not after Python's interval of 5 ms."""
    if size == _CHUNK:
        time.sleep(0)


def _check_keys(node: Mapping[Any, Any], where: str) -> None:
    if not {str}.issuperset(map(type, node)):
        other = next(key for key in node if type(key) is not str)
        raise TypeError(f"{where} has the key {other!r} of type {type(other).__name__}; expected strings")


def _stored(value: np.ndarray | np.generic, where: str, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    is_array = type(value) is np.ndarray
    if value.dtype not in _DTYPES or not (is_array or isinstance(value, np.generic)):
        raise TypeError(
            f"{where} is a {type(value).__name__} of dtype {value.dtype.str}; expected plain arrays of booleans, "
            "integers and floats with at most 64 bits in native byte order"
        )
    name = f"array.{len(tensors)}"
    # safetensors writes the memory as it is, so it has to be in C order.
    tensors[name] = np.asarray(value, order="C")
    return {_ARRAY: name} if is_array else {_ARRAY: name, "scalar": True}


def _has_dollar(node: Mapping[str, Any]) -> bool:
    return any(key.startswith("$") for key in node)


def _safetensors(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """The parts of a safetensors file. `safetensors.numpy.save` returns two copies of them, and no other thread of
    Python runs while it does so."""
    entries: dict[str, Any] = {"__metadata__": metadata}
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0]))  # so that all are aligned
    end = 0
    for name, array in ordered:
        begin, end = end, end + array.nbytes
        entries[name] = {"dtype": _DTYPES[array.dtype], "shape": array.shape, "data_offsets": [begin, end]}
    header = _json(entries)
    header += b" " * (-len(header) % 8)
    yield len(header).to_bytes(8, "little")
    yield header
    for _, array in ordered:
        yield array.reshape(-1).view(np.uint8).data


def _checksum(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of the names, dtypes, shapes and bytes of all tensors."""
    digest = hashlib.sha256()
    for name, array in sorted(tensors.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
