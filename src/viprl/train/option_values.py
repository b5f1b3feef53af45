"""Values of a YAML file as the options of a dataclass take them: YAML reads 1e-6 as a text and 8.0 as a float."""

from __future__ import annotations

import math
import re
from dataclasses import MISSING, Field
from typing import Any

from viprl.errors import ConfigError

_WORDS = {
    "bool": "true or false", "int": "a whole number", "float": "a number", "str": "a text", "dict": "a mapping",
    "list": "a list",
}  # fmt: skip


def typed(owner: type, option: Field, value: Any) -> Any:
    """`value` with the type of an option of the dataclass `owner`, whose annotation is a text or a type.

    A single value stands for a list of it. Raises ConfigError, with the name of the option, for a value of another
    type and for numbers that are not finite.
    """
    name, kind = option.name, _annotation(owner, option.name)
    if value is None:
        optional = option.default is None or option.default is MISSING or re.search("None|Optional|Any", kind)
        if not optional:
            raise ConfigError(f"{name} has no value; remove the key to use the default, {option.default}")
        return None
    takes = _types(kind)
    if not takes:  # an enumeration or an object: checked where it is used
        return value
    if value is False and "Strategy" in kind:  # YAML reads `no` as false
        return "no"
    converted = _converted(takes, value)
    if converted is MISSING and {"list", "tuple"} & takes:
        converted = [value]
    if converted is MISSING or (isinstance(value, dict) and "dict" not in takes):
        expected = " or ".join(words for known, words in _WORDS.items() if known in takes)
        raise ConfigError(f"{name} is {value!r}; expected {expected}")
    if isinstance(converted, list | tuple) and (items := re.search(r"(?:list|tuple)\[(\w+)", kind)):
        return [_item(name, items[1], item) for item in converted]
    if isinstance(converted, float) and not math.isfinite(converted):
        raise ConfigError(f"{name} is {value!r}; expected a finite number")
    return converted


def _annotation(owner: type, name: str) -> str:
    """As written in the class: parsers of transformers change the `type` of fields."""
    return next(str(one.__annotations__[name]) for one in owner.__mro__ if name in vars(one).get("__annotations__", {}))


def _types(kind: str) -> set[str]:
    """The names of the outermost types of an annotation; empty if they are not only built-in types."""
    outer = kind
    while "[" in outer and outer != (inner := re.sub(r"(?:Optional|Union)\[(.*)\]", r"\1", outer)):
        outer = inner
    while "[" in outer and outer != (inner := re.sub(r"\[[^\[\]]*\]", "", outer)):
        outer = inner
    if re.search("Any|Literal", outer):
        return set()
    return {known for known in (*_WORDS, "tuple") if known in re.findall(r"\w+", outer)}


def _converted(takes: set[str], value: Any) -> Any:
    """The value as one of the types; MISSING if it cannot be any of them."""
    if isinstance(value, bool):
        return value if "bool" in takes else MISSING
    if isinstance(value, list | tuple):
        return value if {"list", "tuple"} & takes else MISSING
    if isinstance(value, dict):
        return value if "dict" in takes else MISSING
    if isinstance(value, int) and {"int", "float"} & takes:
        return value
    if isinstance(value, float) and "float" in takes:
        return value
    if isinstance(value, float) and "int" in takes and "str" not in takes:
        return int(value) if value.is_integer() else MISSING
    if "str" in takes:
        return str(value) if isinstance(value, str) or "dict" not in takes else MISSING
    for known, convert in (("int", int), ("float", float)):
        if known in takes and isinstance(value, str):
            try:
                return convert(value)
            except ValueError:
                continue
    return MISSING


def _item(name: str, kind: str, value: Any) -> Any:
    """An item of a list, as the type that the list takes."""
    found = _converted({kind}, value) if kind in _WORDS else value
    if found is MISSING or (isinstance(found, float) and not math.isfinite(found)):
        raise ConfigError(f"{name} contains {value!r}; expected a list, each item {_WORDS[kind]}")
    return found
