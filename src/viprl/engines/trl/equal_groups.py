"""Finds functions that cut a batch into groups of `num_generations`, which mixes prompts under variable counts."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from typing import Any

OPTION = "num_generations"


def cuts_equal_groups(function: Any, size: int) -> bool:
    """Whether the source of a function mentions `num_generations`, or steps or reshapes by a number with its value.

    Args:
        function: a reward function or a rollout function; a partial, a method or a callable object as well.
        size: the value of `num_generations`.

    A guess: a function without source, or one that cuts in a helper, is not found.
    """
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = type(function).__call__ if callable(function) else None
    try:
        function = inspect.unwrap(function)
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        known = {**getattr(function, "__globals__", {}), **inspect.getclosurevars(function).nonlocals}
    except (OSError, TypeError, ValueError, SyntaxError):
        return False
    return any(_mentions(node) or _cuts(node, known, size) for node in ast.walk(tree))


def _mentions(node: ast.AST) -> bool:
    named = (getattr(node, name, None) for name in ("id", "attr", "arg", "value"))
    return OPTION in [name for name in named if isinstance(name, str)]


def _cuts(node: ast.AST, known: dict[str, Any], size: int) -> bool:
    """range(start, stop, N), x.view(-1, N), x.reshape(-1, N), batched(x, N) and x[i * N : ...]."""
    if isinstance(node, ast.Call):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name == "range" and len(node.args) == 3:
            return _value(node.args[2], known) == size
        if name in ("view", "reshape", "batched", "chunked"):
            return any(_value(argument, known) == size for argument in node.args[1:])
        return False
    bounds = [node.lower, node.upper] if isinstance(node, ast.Slice) else []
    products = [part for bound in bounds if bound is not None for part in ast.walk(bound)]
    factors = [side for part in products if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Mult)
               for side in (part.left, part.right)]  # fmt: skip
    return any(_value(side, known) == size for side in factors)


def _value(node: ast.AST, known: dict[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    return known.get(node.id) if isinstance(node, ast.Name) else None
