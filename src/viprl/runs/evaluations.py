"""Evaluations in the log of a training: which of its rows are not training.

TRL writes the completions of an evaluation to the file of the training step before it, over or beside the rows of that
step. Nothing in a row says which it is, except the column of rollouts that the trainers of this package add. The
trainer's state lists the steps with an evaluation; the prompts that the files of all these steps share, and that no
other file has, are those of the evaluation.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence, Set
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from viprl.errors import DataError
from viprl.metrics import EVALUATION_PREFIX
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
    """The evaluations in the trainer's state or the metrics of a run; None if neither can be read."""
    try:
        state = trainer_state(folder)
    except DataError as error:
        logger.warning("%s", error)
        state = None
    if state is None and not (folder / METRICS_FILE).is_file():
        return None
    rows = list(log_rows(folder / METRICS_FILE)) if state is None else state.rows
    steps = [(row["step"], row) for row in rows if isinstance(row.get("step"), int)]
    evaluated = frozenset(step for step, row in steps if any(key.startswith(EVALUATION_PREFIX) for key in row))
    last = max((step for step, _ in steps), default=0) if state is None else state.step
    return Evaluations(evaluated, last)


def without_evaluations(steps: Sequence[LoggedStep], recorded: Evaluations | None, where: str) -> Sequence[LoggedStep]:
    """The steps without the prompts of evaluations, which are left out with a warning.

    Args:
        steps: what the files of the steps hold.
        recorded: see `recorded_evaluations`. Without it, only a clear repetition is left out; in any case a warning
            says that evaluations may be among the rows.
        where: the log, for messages.

    Raises DataError if nothing else is left.
    """
    if recorded is None:
        return _without_repetitions(steps, where)
    suspects = [step for step in steps if step.step in recorded.steps or step.step == 0]
    if not suspects:
        return steps
    numbers = {step.step for step in suspects}
    trained = {key for step in steps if step.step <= recorded.last and step.step not in numbers for key in step.groups}
    evaluated = set.intersection(*(set(step.groups) for step in suspects)) - trained
    if evaluated:
        kept = _without(steps, evaluated)
        what = f"the {len(evaluated)} prompts of the evaluations"
    else:  # the prompts of the evaluation are trained on, too
        kept = [step for step in steps if step.step not in numbers]
        what = f"the files of the {len(numbers)} steps with an evaluation"
    if not kept:
        raise DataError(
            f"{where} has evaluations only: TRL writes them over the training rows of the same step, and every logged "
            "step was evaluated; log more often than you evaluate (logging_steps=1 and a larger eval_steps)"
        )
    logger.warning("%s: left out %s, which TRL writes to the files of training steps", where, what)
    return kept


class Repetition(NamedTuple):
    """Prompts at the end of several steps."""

    prompts: list[str]
    """In the order of the log."""
    steps: list[int]
    mixed: bool
    """Whether other prompts are before them in the files."""


def repetition(steps: Sequence[LoggedStep]) -> Repetition | None:
    """The prompts that end several steps in the same order and are in no other step; None if there are none.

    Every evaluation has the same prompts in the same order, while training shuffles them.
    """
    ends: dict[tuple[str, ...], list[LoggedStep]] = defaultdict(list)
    times: Counter[str] = Counter()
    for step in steps:
        order = tuple(step.groups)
        times.update(order)
        if len(order) > 1:
            ends[order[-2:]].append(step)
    alike = [same for keys, same in ends.items() if len(same) > 1 and all(times[key] == len(same) for key in keys)]
    if not alike:
        return None
    most = max(alike, key=len)
    reverse = zip(*(reversed(step.groups) for step in most), strict=False)
    shared = [keys[0] for keys in takewhile(lambda keys: len(set(keys)) == 1, reverse)]
    longer = sum(len(step.groups) > len(shared) for step in most)
    return Repetition(shared[::-1], [step.step for step in most], longer > 1)


def _without_repetitions(steps: Sequence[LoggedStep], where: str) -> Sequence[LoggedStep]:
    """Without a record of evaluations: leave out what is clearly one, and warn."""
    found = repetition(steps)
    record = "copy trainer_state.json of the run's last checkpoint into the folder"
    if found is None:
        logger.warning(
            "%s may hold evaluations, which TRL writes to the files of training steps; their prompts count as trained. "
            "To leave them out, %s. If the run never evaluated, ignore this",
            where,
            record,
        )
        return steps
    named = ", ".join(map(str, found.steps[:5])) + (", ..." if len(found.steps) > 5 else "")
    same = f"{len(found.prompts)} prompts are in the files of the steps {named} alone, in the same order"
    if found.mixed:
        logger.warning(
            "%s: left out evaluations, which TRL writes to the files of training steps: %s. If that is wrong, or to "
            "find all of them, %s",
            where,
            same,
            record,
        )
        return _without(steps, set(found.prompts))
    logger.warning(
        "%s seems to hold evaluations, which TRL writes over training steps: %s. To leave them out, %s. If the run "
        "never evaluated, ignore this",
        where,
        same,
        record,
    )
    return steps


def _without(steps: Sequence[LoggedStep], keys: Set[str]) -> list[LoggedStep]:
    """The steps without some prompts; steps that are then empty are left out."""
    kept = [LoggedStep(step.step, {k: v for k, v in step.groups.items() if k not in keys}) for step in steps]
    return [step for step in kept if step.groups]
