"""YAML of people and of files that anybody may have written: one kind of error, and limits on what it may take.

Needs PyYAML, which the core does without.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from viprl.errors import DataError
from viprl.utils.read_files import read_text

LARGEST = 2**20
"""Bytes of a file."""
MOST_VALUES = 100_000
"""Values of a file when its aliases are expanded."""


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a file. Raises DataError for anything else, FileError for a file that cannot be opened."""
    try:
        found = parse_yaml(read_text(path, LARGEST))
    except yaml.YAMLError as error:
        raise DataError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise DataError(f"{path} contains a {type(found).__name__}; expected lines `key: value`")
    return found


def parse_yaml(text: str) -> Any:
    """The value of a YAML document. Raises yaml.YAMLError and nothing else.

    Duplicate keys are refused, and so are aliases that would expand to very many values.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node, {})
        return loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    finally:
        loader.dispose()


def _check_size(node: yaml.Node, sizes: dict[yaml.Node, int]) -> int:
    """The number of values in a node when its aliases are expanded. `sizes` has those of other nodes; 0: unfinished."""
    if node in sizes:
        if not sizes[node]:
            raise yaml.composer.ComposerError(None, None, "an alias contains itself", node.start_mark)
        return sizes[node]
    sizes[node], size = 0, 1
    for item in [] if isinstance(node, yaml.ScalarNode) else node.value:
        size += sum(_check_size(part, sizes) for part in (item if isinstance(item, tuple) else (item,)))
    if size > MOST_VALUES:
        problem = f"its aliases expand to more than {MOST_VALUES:,} values"
        raise yaml.composer.ComposerError(None, None, problem, node.start_mark)
    sizes[node] = size
    return size


class _Loader(yaml.SafeLoader):
    """Refuses duplicate keys, of which PyYAML would silently use the last one. Raises yaml.YAMLError for all values."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:  # an impossible date, an integer of thousands of digits: many kinds
            problem = f"the value cannot be read ({str(error).partition(';')[0]}); put it in quotes"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, Hashable):
                break  # super() reports it
            if key_node.tag != "tag:yaml.org,2002:merge" and key in seen:
                problem = f"duplicate key `{key}` (lines {seen[key]} and {line}); remove one of them"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen[key] = line
        return super().construct_mapping(node, deep)
