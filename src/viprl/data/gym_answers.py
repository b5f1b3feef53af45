"""Answers to tasks of reasoning-gym: where they are in a completion, and which of them may not reach the task's check.

The checks of some tasks evaluate an answer as Python code, with `eval` or with SymPy's `parse_expr`, which is based on
it. An answer is what a model wrote, so such a check would run its code. It only gets answers that call nothing but
mathematical functions and reach for no attribute.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from functools import cache
from types import CodeType
from typing import Any

from viprl.rewards.built_in import completion_text
from viprl.rewards.grading.extract import boxed

EVALUATORS = frozenset({"eval", "exec", "compile", "parse_expr", "sympify"})
"""Functions that run a text as code."""
LONGEST = 2000
"""Longest answer that is evaluated, in characters."""
FUNCTIONS = frozenset(
    "sin cos tan cot sec csc asin acos atan sinh cosh tanh exp log ln sqrt Abs abs erf".split()  # noqa: SIM905
)
"""What an answer may call."""
_CALL = re.compile(r"(\w+)\s*\(")
_REFUSED = re.compile(
    r"__|\\|[#!{}@;:=]"  # names of Python's machinery, escapes, comments, statements
    r"|\.\s*[^\W\d]"  # an attribute
    r"|[\])'\"]\s*\("  # a call of something without a name
    r"|\*\*[\s\w.()]*\*\*|\*\*[\s(+-]*\d{4}"  # numbers that fill the memory
)


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
    quoted = "'" in answer or '"' in answer
    calls = _CALL.findall(answer)
    return (
        len(answer) <= LONGEST
        and not _REFUSED.search(answer)
        and not (quoted and "(" in answer)
        and all(name in FUNCTIONS or name.isdecimal() for name in calls)
    )


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
