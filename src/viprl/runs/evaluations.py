"""Evaluations in the log of a training: which of its rows are not training.

TRL writes the completions of an evaluation to the file of the training step before it, over or beside the rows of that
step. Nothing in a row says which it is, except the column of rollouts that the trainers of this package add. The
trainer's state lists the steps with an evaluation; the prompts that the files of all these steps share, and that no
other file has, are those of the evaluation.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from viprl.errors import DataError
from viprl.runs.files import METRICS_FILE
from viprl.runs.logged_rollouts import LoggedStep
from viprl.runs.trainer_state import trainer_state
from viprl.utils.json_lines import log_rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluations:
    """The evaluations of a run, as its trainer logged them."""

    steps: frozenset[int]
    """The steps after which the run evaluated."""
    last: int
    """The last step that the record covers."""


def recorded_evaluations(folder: Path) -> Evaluations | None:
    """The evaluations in the trainer's state or the metrics of a run; None if the folder has neither."""
    state = trainer_state(folder)
    if state is None and not (folder / METRICS_FILE).is_file():
        return None
    rows = list(log_rows(folder / METRICS_FILE)) if state is None else state.rows
    steps = [(row["step"], row) for row in rows if isinstance(row.get("step"), int)]
    evaluated = frozenset(step for step, row in steps if any(key.startswith("eval_") for key in row))
    last = max((step for step, _ in steps), default=0) if state is None else state.step
    return Evaluations(evaluated, last)


def without_evaluations(steps: Sequence[LoggedStep], recorded: Evaluations | None, where: str) -> Sequence[LoggedStep]:
    """The steps without the prompts of evaluations, which are left out with a warning.

    Args:
        steps: what the files of the steps hold.
        recorded: see `recorded_evaluations`. Without it nothing can be left out, and the warning says so.
        where: the log, for messages.

    Raises DataError if nothing else is left.
    """
    if recorded is None:
        logger.warning("%s", _unknown(steps, where))
        return steps
    suspects = [step for step in steps if step.step in recorded.steps or step.step == 0]
    if not suspects:
        return steps
    numbers = {step.step for step in suspects}
    trained = {key for step in steps if step.step <= recorded.last and step.step not in numbers for key in step.groups}
    evaluated = set.intersection(*(set(step.groups) for step in suspects)) - trained
    if evaluated:
        kept = [LoggedStep(s.step, {k: v for k, v in s.groups.items() if k not in evaluated}) for s in steps]
        what = f"the {len(evaluated)} prompts of the evaluations"
    else:  # the prompts of the evaluation are trained on, too
        kept = [step for step in steps if step.step not in numbers]
        what = f"the files of the {len(numbers)} steps with an evaluation"
    kept = [step for step in kept if step.groups]
    if not kept:
        raise DataError(
            f"{where} has evaluations only: TRL writes them over the training rows of the same step, and every logged "
            "step was evaluated; log more often than you evaluate (logging_steps=1 and a larger eval_steps)"
        )
    logger.warning("%s: left out %s, which TRL writes to the files of training steps", where, what)
    return kept


def repeated_prompts(steps: Sequence[LoggedStep]) -> tuple[int, list[int]]:
    """How many prompts end several steps in the same order, and these steps; (0, []) if there are none.

    Every evaluation has the same prompts in the same order, while training shuffles them.
    """
    classes: dict[tuple[str, ...], list[LoggedStep]] = defaultdict(list)
    for step in steps:
        order = tuple(step.groups)
        if len(order) > 1:
            classes[order[-2:]].append(step)
    alike = max(classes.values(), key=len, default=[])
    if len(alike) < 2:
        return 0, []
    ends = [list(step.groups)[::-1] for step in alike]
    shared = 0
    for keys in zip(*ends, strict=False):
        if len(set(keys)) > 1:
            break
        shared += 1
    return shared, [step.step for step in alike]


def _unknown(steps: Sequence[LoggedStep], where: str) -> str:
    """The warning for a log without a record of evaluations."""
    prompts, numbers = repeated_prompts(steps)
    found = (
        f" The last {prompts} prompts are the same in the same order in the files of the steps "
        f"{', '.join(map(str, numbers[:5]))}{', ...' if len(numbers) > 5 else ''}, as evaluations have them."
        if numbers
        else ""
    )
    return (
        f"{where} may hold evaluations, which TRL writes to the files of training steps: prompts that are not in the "
        f"training set would count as training.{found} To leave them out, copy trainer_state.json of the run's last "
        "checkpoint into the folder. If the run never evaluated, ignore this"
    )
