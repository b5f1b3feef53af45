"""The reward `math` as verl calls a reward function."""

from __future__ import annotations

from typing import Any

from viprl.rewards.grading.answers import score


def compute_score(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Any = None, mode: str = "boxed", **_: Any
) -> float:
    """The reward `math` of one completion; 0 without a usable solution, because verl has no unscorable completions.

    In verl::

        reward.custom_reward_function.path=pkg://viprl.rewards
        reward.custom_reward_function.name=compute_score

    Args:
        data_source, extra_info: given by verl, not used.
        solution_str: the completion.
        ground_truth: the solution, a text or a number.
        mode: "boxed", "last_number" or "exact", see `viprl.rewards.grading.answers.EXTRACTORS`; in verl a key of
            `reward.custom_reward_function.reward_kwargs`.
    """
    return score([solution_str], [ground_truth], mode)[0] or 0.0
