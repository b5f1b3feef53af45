"""YAML files that extend each other, and `--set key=value` overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from viprl.errors import ConfigError, DataError
from viprl.runs.files import SETTINGS_FILE
from viprl.utils.read_files import read_text
from viprl.utils.safe_yaml import LARGEST, parse_yaml
from viprl.utils.words import first_line


def read_yaml(path: str | Path, command: str = "train") -> dict[str, Any]:
    """The keys of a file.

    A file may name others with `extends` (a path or a list of paths relative to the file). Its own keys win over
    theirs, and a later file of the list wins over an earlier one. Mappings are merged key by key; other values are
    replaced. `command` is the command that reads the file, for errors.

    Raises ConfigError for missing files, cycles, duplicate keys, and content that is not a mapping.
    """
    return _read(Path(path), (), command)


def with_overrides(raw: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`raw` with `key=value` texts applied. The value is YAML; a dot in the key reaches into a mapping."""
    merged = dict(raw)
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set is {text!r}; expected key=value, such as --set max_steps=100")
        try:
            parsed: Any = parse_yaml(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {text}: the value is not valid YAML ({_problem(error)})") from error
        for part in reversed(key.strip().split(".")):
            parsed = {part: parsed}
        merged = merge(merged, parsed)
    return merged


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of both; `above` wins, and two mappings under the same key are merged in turn."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def _read(path: Path, children: tuple[Path, ...], command: str) -> dict[str, Any]:
    place = path.resolve()
    if place in children:
        chain = " -> ".join(p.name for p in (*children[children.index(place) :], place))
        raise ConfigError(f"the files extend each other in a cycle: {chain}; remove one `extends`")
    if not path.is_file():
        by = f" (in `extends` of {children[-1]})" if children else ""
        what = "is a folder" if path.is_dir() else "no such file"
        file = path / SETTINGS_FILE if (path / SETTINGS_FILE).is_file() else "FILE.yaml"
        raise ConfigError(f"{path}: {what}{by}; expected a YAML file: viprl {command} --config {file}")
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
        raw = parse_yaml(read_text(path, LARGEST))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark is not None else ""
        raise ConfigError(f"{path} is not valid YAML: {line}{_problem(error)}") from error
    except DataError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(raw, dict):
        kind = "nothing" if raw is None else f"a {type(raw).__name__}"
        raise ConfigError(f"{path} contains {kind}; expected lines `key: value`, such as `model: my-model`")
    for key in raw:
        if not isinstance(key, str):
            raise ConfigError(f"{path}: the key {key!r} is not a text; put it in quotes")
    return raw


def _problem(error: Exception) -> str:
    problem = getattr(error, "problem", None) or first_line(error)
    return f"{problem}; indent with spaces" if "'\\t'" in problem else problem
