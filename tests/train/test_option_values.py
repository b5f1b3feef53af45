"""The types that YAML gives, and those that options take."""

from __future__ import annotations

from dataclasses import field, make_dataclass
from typing import Any

import pytest

from refused import refused
from viprl.errors import ConfigError
from viprl.train.option_values import typed


def option(kind: str, default: Any = None):
    """A dataclass and its option; its type is as a parser of transformers leaves it."""
    made = make_dataclass("Options", [("name", kind, field(default=default))])
    made.__dataclass_fields__["name"].type = object
    return made, made.__dataclass_fields__["name"]


@pytest.mark.parametrize(
    ("kind", "given", "taken"),
    [
        ("int | None", None, None),
        ("float", "1e-6", 1e-6), ("<class 'float'>", 3, 3), ("int", 8.0, 8), ("int", "12", 12),
        ("bool | None", False, False), ("str", 3, "3"), ("str | None", 0.5, "0.5"), ("str", "x", "x"),
        ("list[str] | None", "paper", ["paper"]), ("list[float] | None", [1, "2e-1"], [1, 0.2]),
        ("tuple[float, float] | None", [0, 1], [0, 1]), ("dict | str | None", {"a": 1}, {"a": 1}),
        ("dict[str, typing.Any] | str | None", '{"a": 1}', '{"a": 1}'), ("Optional[Union[list[str], str]]", "q", "q"),
        ("Optional[Union[list[str], str]]", ["q"], ["q"]), ("transformers.IntervalStrategy | str", False, "no"),
        ("Literal['none', 'all']", "all", "all"), ("int | str | None", "auto", "auto"),
        ("SomeConfig", {"x": 1}, {"x": 1}),
    ],
)  # fmt: skip
def test_a_value_becomes_what_the_option_takes(kind, given, taken):
    found = typed(*option(kind), given)
    assert found == taken and type(found) is type(taken)


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        ("bool", "false", "true or false"), ("bool", 1, "true or false"), ("int", True, "a whole number"),
        ("int", 2.5, "a whole number"), ("float", "fast", "a number"), ("float", [1.0], "a number"),
        ("float", float("nan"), "finite"), ("float", float("inf"), "finite"), ("float", "nan", "finite"),
        ("str", {"a": 1}, "a text"), ("list[float] | None", ["a"], "a number"),
        ("list[float] | None", [True], "a number"),
        ("dict | str | None", 3, "a mapping"), ("str", True, "a text"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_named(kind, given, words):
    with refused(ConfigError, "name ", repr(given[0] if isinstance(given, list) and "list" in kind else given), words):
        typed(*option(kind), given)


def test_an_option_without_a_value():
    with refused(ConfigError, "name has no value", "3"):
        typed(*option("int", 3), None)
