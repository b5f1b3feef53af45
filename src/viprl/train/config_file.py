"""YAML files with `extends`, `--set key=value` on top, and no key twice."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from viprl.errors import ConfigError


def read_config(path: str | Path, command: str = "train") -> dict[str, Any]:
    """The keys of a file on top of those of the files that it `extends` (a path or a list of them, relative to the
    file; a later one wins over an earlier one). A mapping is merged key by key, everything else replaced.

    Raises `ConfigError` for missing files, cycles, keys that stand twice, and text that is no mapping.
    """
    return _read(Path(path), (), command)


def with_overrides(raw: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`raw` with `key=value` texts on top; the value is YAML, a dot in the key goes into a mapping."""
    merged = dict(raw)
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set is {text!r}; expected key=value, such as --set max_steps=100")
        try:
            read: Any = yaml.load(value, _Strict)
        except yaml.YAMLError as error:
            raise ConfigError(
                f"--set {text}: the value is not valid YAML ({getattr(error, 'problem', error)})"
            ) from error
        for part in reversed(key.strip().split(".")):
            read = {part: read}
        merged = merge(merged, read)
    return merged


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` wins; two mappings under one key are merged in turn."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def _read(path: Path, children: tuple[Path, ...], command: str) -> dict[str, Any]:
    place = path.resolve()
    if place in children:
        chain = " -> ".join(p.name for p in (*children[children.index(place) :], place))
        raise ConfigError(f"the files extend each other in a circle: {chain}; take one `extends` out")
    if not path.is_file():
        by = f" (`extends` of {children[-1]})" if children else ""
        what = "is a folder" if path.is_dir() else "no such file"
        raise ConfigError(f"{path}: {what}{by}; `viprl {command} --config FILE.yaml` reads a YAML file")
    raw = _parse(path)
    parents = raw.pop("extends", None) or []
    parents = [parents] if isinstance(parents, str) else parents
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        raise ConfigError(f"{path}: extends is {parents!r}; expected a path or a list of paths")
    merged: dict[str, Any] = {}
    for parent in parents:
        merged = merge(merged, _read(path.parent / parent, (*children, place), command))
    return merge(merged, raw)


def _parse(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Strict)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark is not None else ""
        raise ConfigError(f"{path} is not valid YAML: {line}{getattr(error, 'problem', error)}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} holds {type(raw).__name__}; expected `key: value` lines such as `model: my-model`")
    for key in raw:
        if not isinstance(key, str):
            raise ConfigError(f"{path}: the key {key!r} is no text")
    return raw


class _Strict(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, of which YAML would silently keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, Hashable):
                break  # the parent class says what is wrong with it
            if key_node.tag != "tag:yaml.org,2002:merge" and key in seen:
                problem = f"the key `{key}` stands twice (lines {seen[key]} and {line}); leave one of them"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen[key] = line
        return super().construct_mapping(node, deep)
