"""Answers to tasks of reasoning-gym: where they are in a completion, and which of them may not reach the task's check.

The checks of some tasks evaluate an answer as Python code, with `eval` or with SymPy's `parse_expr`, which is based on
it. An answer is what a model wrote, so such a check would run its code. It only gets arithmetic, with mathematical
functions and numbers of limited size, lists of it and of texts, and words, which are no code.
"""

from __future__ import annotations

import ast
import inspect
import math
import re
from collections.abc import Callable, Iterator
from functools import cache
from types import CodeType
from typing import Any

import numpy as np

from viprl.rewards.built_in import completion_text
from viprl.rewards.grading.extract import boxed

EVALUATORS = frozenset({"eval", "exec", "compile", "parse_expr", "sympify"})
"""Functions that run a text as code."""
LONGEST = 2000
"""Longest answer that is evaluated, in characters."""
LARGEST = 100_000
"""Largest number that an answer may have or make, in bits."""
FUNCTIONS = frozenset(
    "sin cos tan cot sec csc asin acos atan sinh cosh tanh exp log ln sqrt Abs abs erf".split()  # noqa: SIM905
)
"""What an answer may call."""
_EXPONENTIALS = frozenset({"exp", "sinh", "cosh"})
_WORDS = re.compile(r"[\w\s.,]*")


def final_answer(completion: Any) -> str:
    r"""The final answer: the content of the last <answer> tags; without such tags that of the last \boxed{}; without a
    box the whole completion. Linear in the length of the text."""
    text = completion_text(completion)
    for part in reversed(text.split("</answer>")[:-1]):
        _, tag, answer = part.partition("<answer>")
        if tag:
            return answer.strip()
    return boxed(text) or text.strip()


def may_be_checked(answer: str, entry_answer: Any, check: Callable[..., Any]) -> bool:
    """Whether an answer may be given to the check of a task.

    Args:
        answer: what the model wrote.
        entry_answer: the answer of the task, which may.
        check: `score_answer` of the task's data set.
    """
    if not evaluates(check) or answer.strip() == str(entry_answer).strip():
        return True
    if len(answer) > LONGEST:
        return False
    try:
        return _is_value(ast.parse(answer.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # not an expression, so that nothing can be run
        return _WORDS.fullmatch(answer) is not None


def _is_value(node: ast.expr) -> bool:
    """Whether an expression is arithmetic, a text, or a list of these."""
    if isinstance(node, ast.List | ast.Tuple):
        return all(map(_is_value, node.elts))
    is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return is_text or _bits(node) <= LARGEST


def _bits(node: ast.expr) -> float:
    """A bound on the bits of the numbers that an expression makes, |log2|; infinite for what is not arithmetic.

    SymPy may have to compute them exactly, even of exp(n). Names count as 4, which is more than E and pi.
    """
    match node:
        case ast.Name():
            return 2.0
        case ast.Constant(value=int(number) | float(number)) if math.isfinite(number):
            return abs(math.log2(abs(number))) if number else 0.0
        case ast.UnaryOp():
            return _bits(node.operand)
        case ast.BinOp(op=ast.Add() | ast.Sub()):
            return float(np.logaddexp2(_bits(node.left), _bits(node.right)))
        case ast.BinOp(op=ast.Mult() | ast.Div()):
            return _bits(node.left) + _bits(node.right)
        case ast.BinOp(op=ast.Pow()):
            return _power(_bits(node.left), _bits(node.right))
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in FUNCTIONS:
            most = max(map(_bits, node.args), default=0.0)
            return _power(_bits(ast.Name("E")), most) if name in _EXPONENTIALS else most
    return math.inf


def _power(base: float, exponent: float) -> float:
    """Bits of a power, from those of its parts."""
    return base * 2.0**exponent if exponent <= LARGEST.bit_length() else math.inf


def evaluates(check: Callable[..., Any]) -> bool:
    """Whether the check of a task, or a function of reasoning-gym that it calls, runs texts as code."""
    owner: Any = type(getattr(check, "__self__", None))
    return _evaluates(getattr(check, "__func__", check), owner)


@cache
def _evaluates(check: Callable[..., Any], owner: Any) -> bool:
    todo, seen = [check], set()
    while todo:
        function = inspect.unwrap(todo.pop())
        if function in seen:
            continue
        seen.add(function)
        for name in set(_names(function.__code__)):
            found = getattr(owner, name, None) or function.__globals__.get(name)
            if inspect.isfunction(found) and found.__module__.startswith("reasoning_gym"):
                todo.append(found)
            elif name in EVALUATORS:
                return True
    return False


def _names(code: CodeType) -> Iterator[str]:
    """The names that a function uses, inner functions included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
