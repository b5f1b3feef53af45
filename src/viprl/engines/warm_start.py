"""Learning from the log of an earlier run before the first step."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from rich.progress import track

from viprl.engines.success import SuccessCriterion
from viprl.errors import DataError
from viprl.prompts import Prompt, identity
from viprl.runs.engine_logs import read_history
from viprl.runs.history import PromptHistory
from viprl.runs.trl_completions import trl_files
from viprl.vip import VIP

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingRow:
    """A prompt of this run, and how a rollout dump writes it."""

    prompt: Prompt
    text: str
    """The prompt as the model sees it, chat template included."""
    ground_truth: str | None = None


def warm_start(
    vip: VIP,
    path: str | Path,
    success: SuccessCriterion,
    *,
    match: str = "prompt",
    training_set: Iterable[TrainingRow] | None = None,
) -> None:
    """Let `vip` observe the visits of an earlier run in their order.

    Args:
        path: what `viprl.runs.engine_logs.read_history` reads: a history file, a run folder, verl's rollout_data_dir,
            TRL's completions.
        success: names the column of TRL's logs to learn from, if they have several. Thresholds are for metrics.
        match: how prompts are recognised without a training set: by content ("prompt") or by "id".
        training_set: the prompts of this run, for logs that hold decoded texts. Each prompt of the log is then matched
            with a row by id, by content, by text and ground truth, or, if the log has no ground truths, by text.

    Raises DataError if no prompt of the log is in the training set, otherwise see `read_history`.
    """
    column = success.column if trl_files(Path(path)) else None  # other logs have the total
    if training_set is None:
        vip.learn_from_log(path, match=match, reward=column)
        return
    logged = read_history(path, reward=column)
    found = matched(logged, training_set)
    if not found:
        raise DataError(
            f"warm start: none of the {len(logged)} prompts of {path} is in the training set. The prompts of a rollout "
            "dump are matched by their text: use the data, chat template and tokenizer of the run that wrote it"
        )
    vip.observe_histories(found)
    logger.warning("warm start: %d of %d prompts of %s are in the training set", len(found), len(logged), path)


def matched(logged: list[PromptHistory], rows: Iterable[TrainingRow]) -> list[PromptHistory]:
    """The histories whose prompts are in `rows`, with the prompts of the rows. Stops reading when all are found."""
    positions: dict[tuple[str, ...], int] = {}
    for position, history in enumerate(logged):
        for name in _logged_names(history):
            positions.setdefault(name, position)
    found: dict[int, PromptHistory] = {}
    for row in track(rows, "warm start: reading the training set", transient=True):
        match = next((positions[name] for name in _row_names(row) if name in positions), None)
        if match is not None and match not in found:
            found[match] = replace(logged[match], prompt=row.prompt)
            if len(found) == len(logged):
                break
    return [found[position] for position in sorted(found)]


def _logged_names(history: PromptHistory) -> list[tuple[str, ...]]:
    """Names under which a training row finds a history. With a ground truth, the text alone is not one of them."""
    names: list[tuple[str, ...]] = [("identity", f"id:{history.id}")]
    if history.ground_truth is None:
        names.append(("identity", identity(history.prompt)))
    if isinstance(history.prompt, str):
        names.append(("text", history.prompt, *([] if history.ground_truth is None else [history.ground_truth])))
    return names


def _row_names(row: TrainingRow) -> list[tuple[str, ...]]:
    """The names of a training row, the safest first."""
    names: list[tuple[str, ...]] = [("identity", identity(row.prompt))]
    if row.ground_truth is not None:
        names.append(("text", row.text, row.ground_truth))
    return [*names, ("text", row.text)]
