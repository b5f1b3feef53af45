"""RewardReader of an earlier run, so that prediction does not start at nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from rich.progress import track

from viprl.engines.success import SuccessCriterion
from viprl.prompts import Prompt, identity
from viprl.runs.engine_logs import read_history
from viprl.runs.history import PromptHistory, visits
from viprl.vip import VIP

logger = logging.getLogger(__name__)


def observe_log(vip: VIP, path: str | Path, prompts: Iterable[tuple[Prompt, str]], success: SuccessCriterion) -> int:
    """Let `vip` observe the visits of `path` in their order; returns the number of prompts that were found again.

    Args:
        path: what `viprl.runs.history.read_history` reads, such as verl's rollout_data_dir.
        prompts: each prompt of this run, and the text under which a dump of verl knows it.
        success: how the values of a dump are read.

    Raises ValueError when no prompt of the log is one of this run.
    """
    logged = read_history(path, reward=success.column, success=success.rule)
    found = matched(logged, prompts)
    if not found:
        raise ValueError(
            f"warm start: none of the {len(logged)} prompts of {path} is in the training set. A dump is matched by its "
            "text: data, chat template and tokenizer must be those of the run that wrote it"
        )
    for batch, successes, rollouts in visits(found):
        vip.observe_counts([trajectory.prompt for trajectory in batch], successes, rollouts)
    logger.warning("warm start: %d of %d prompts of %s are in the training set", len(found), len(logged), path)
    return len(found)


def matched(logged: list[PromptHistory], prompts: Iterable[tuple[Prompt, str]]) -> list[PromptHistory]:
    """The part of `logged` whose prompts are known, by identity or by text, under the run's own prompts. Stops looking
    when all are found."""
    by_name: dict[str, int] = {}
    for position, trajectory in enumerate(logged):
        by_name |= {f"id:{trajectory.id}": position, identity(trajectory.prompt): position}
        if isinstance(trajectory.prompt, str):
            by_name[f"text:{trajectory.prompt}"] = position
    found: dict[int, PromptHistory] = {}
    for prompt, text in track(prompts, "warm start: reading the training set", transient=True):
        at = by_name.get(identity(prompt), by_name.get(f"text:{text}"))
        if at is not None and at not in found:
            found[at] = replace(logged[at], prompt=prompt)
            if len(found) == len(logged):
                break
    return [found[position] for position in sorted(found)]
