"""Rewards by name: exact match, mathematical equivalence, or any function by import path; the same for verl."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from viprl.rewards.grading.process import require_math_verify
from viprl.rewards.grading.score import score
from viprl.utils.imports import import_function

Reward = Callable[..., list[float | None]]


def exact_match(
    prompts: Sequence[Any], completions: Sequence[Any], solution: Sequence[Any], **_: Any
) -> list[float | None]:
    """1 where the completion is the solution, apart from white space; 0 elsewhere; None where there is no solution."""
    return score([_text(given) for given in completions], solution, "exact")


def math(prompts: Sequence[Any], completions: Sequence[Any], solution: Sequence[Any], **_: Any) -> list[float | None]:
    r"""1 where the last ``\boxed{}`` equals the solution mathematically; 0 elsewhere, also without a box; None where
    there is no usable solution. See `viprl.rewards.grading.score.score`."""
    return score([_text(given) for given in completions], solution, "boxed")


def math_last_number(
    prompts: Sequence[Any], completions: Sequence[Any], solution: Sequence[Any], **_: Any
) -> list[float | None]:
    """The same for the last number of the completion."""
    return score([_text(given) for given in completions], solution, "last_number")


BUILT_IN: dict[str, Reward] = {function.__name__: function for function in (exact_match, math, math_last_number)}
MODES = {"exact_match": "exact", "math": "boxed", "math_last_number": "last_number"}
"""Where each built-in reward looks for the answer, see `viprl.rewards.grading.score.MODES`."""


def resolve_rewards(names: Sequence[str]) -> list[Reward]:
    """Functions for built-in names and "module:function" paths (the working directory is searched too)."""
    if not names:
        raise ValueError("reward is empty; name at least one, such as exact_match")
    for name in names:
        if name not in BUILT_IN and ":" not in name:
            raise ValueError(f"reward is {name!r}; expected {', '.join(BUILT_IN)} or 'module:function'")
        if ".py:" in name:
            raise ValueError(f"reward is {name!r}; a module is named without .py: {name.replace('.py:', ':')!r}")
        require(name)
    return [BUILT_IN[name] if name in BUILT_IN else import_function(name) for name in names]


def require(name: str) -> None:
    """ImportError with the mend where a built-in reward lacks its package."""
    if MODES.get(name, "exact") != "exact":
        require_math_verify()


def compute_score(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Any = None, mode: str = "boxed", **_: Any
) -> float:
    """The reward `math` of one completion in the form that verl asks for; 0 where there is no usable solution.

    In verl: ``custom_reward_function.path=pkg://viprl.rewards.functions custom_reward_function.name=compute_score``.
    """
    return score([solution_str], [ground_truth], mode)[0] or 0.0


def compute_scores(
    data_sources: Sequence[str], solution_strs: Sequence[str], ground_truths: Sequence[Any], extra_infos: Any = None,
    mode: str = "boxed", **_: Any,
) -> list[float]:  # fmt: skip
    """The same for a whole batch (verl's batch reward manager), which all checking processes share."""
    return [value or 0.0 for value in score(solution_strs, ground_truths, mode)]


def _text(completion: Any) -> str:
    """The text of a completion; of a chat completion, its last message."""
    return completion if isinstance(completion, str) else str(completion[-1].get("content") or "")
