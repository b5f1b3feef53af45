"""Checks of what a trainer is given, before and in its first steps."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from viprl.engines.trl.equal_groups import cuts_equal_groups
from viprl.engines.trl.row_prompts import row_prompt, task_names
from viprl.errors import InputError
from viprl.prompts import identity

logger = logging.getLogger(__name__)

SUGGESTED_PROMPTS = 8
"""Prompts of a batch that a warning suggests."""


def check_training_set(data: Any, args: Any, tasks: Collection[str] | None = (), *, environments: bool) -> None:
    """Raise InputError for a training set that cannot be trained on, and warn of batches of one prompt.

    Args:
        data: a data set or a stream.
        args: the config of the trainer.
        tasks: the columns from which environments make the task of a row; None for all.
        environments: the trainer has environments, so that the column `prompt` is optional.
    """
    columns = getattr(data, "column_names", None)
    listed = ", ".join(columns or ())
    if columns and args.vip_id_column is not None and args.vip_id_column.partition(".")[0] not in columns:
        raise InputError(f"vip_id_column is {args.vip_id_column!r}, but the data set has the columns {listed}")
    if columns and "prompt" not in columns and not environments:
        raise InputError(f"the data set has the columns {listed}, but no `prompt`; rename one of them")
    if columns and "prompt" not in columns and args.vip_id_column is None and not task_names(columns, tasks):
        logger.warning(
            "the data set has no column `prompt`, and reset() of the environments reads none of its columns, so all "
            "rows count as the same prompt; set vip_id_column to the column that identifies a task (%s)",
            listed,
        )
    sized = hasattr(data, "__len__")
    if args.vip_register_pool and not sized:
        raise InputError(
            "vip_register_pool=True reads the whole training set before the first step, but the training set is a "
            "stream; set vip_register_pool=False"
        )
    prompts = args.generation_batch_size // args.num_generations
    where = f"generation_batch_size={args.generation_batch_size} / num_generations={args.num_generations}"
    if sized and len(data) < prompts:
        raise InputError(
            f"the data set has {len(data)} prompts, but a generation batch needs {prompts} ({where}); lower "
            "generation_batch_size"
        )
    if prompts == 1 and args.vip_strategy != "uniform":
        share = args.generation_batch_size // args.steps_per_generation
        steps = -(-SUGGESTED_PROMPTS * args.num_generations // share)
        logger.warning(
            "a generation batch has one prompt (%s), which always gets num_generations rollouts, so VIP changes "
            "nothing; for %d prompts in a batch set gradient_accumulation_steps or steps_per_generation to %d (now %d "
            "and %d), or generation_batch_size to %d",
            where,
            SUGGESTED_PROMPTS,
            steps,
            args.gradient_accumulation_steps,
            args.steps_per_generation,
            SUGGESTED_PROMPTS * args.num_generations,
        )


def check_functions(functions: Mapping[str, Any], args: Any) -> None:
    """Warn of reward functions and rollout functions that seem to cut the batch into groups of `num_generations`."""
    for name, function in functions.items():
        if function is not None and cuts_equal_groups(function, args.num_generations):
            logger.warning(
                "%s seems to cut the batch into groups of num_generations=%d, but with VIP prompts have different "
                "numbers of rollouts; group completions by their prompt, or by the argument `vip_group` that reward "
                "functions get",
                name,
                args.num_generations,
            )


class PromptVariety:
    """Warns once if the first prompts of a run are all the same.

    Args:
        id_column: the option; with it nothing is checked.
    """

    ROWS = 4
    """Rows that are looked at, if the first batch has fewer than 2."""

    def __init__(self, id_column: str | None) -> None:
        self._rows = 0
        self._done = id_column is not None
        self._prompts: set[str] = set()
        self._messages: set[str] = set()

    def look(self, rows: Sequence[Mapping[str, Any]], tasks: Collection[str] | None) -> None:
        """Take the rows of a batch into account; `tasks` as for `check_training_set`."""
        if self._done:
            return
        self._rows += len(rows)
        self._prompts |= {identity(row_prompt(row, None, tasks)) for row in rows}
        self._messages |= {identity(row_prompt({"prompt": row.get("prompt", "")}, None)) for row in rows}
        if len(rows) < 2 and self._rows < self.ROWS and len(self._messages) == 1:
            return
        self._done = True
        columns = task_names(rows[0], tasks)
        if len(self._prompts) == 1:
            logger.warning(
                "the first %d rows are one and the same prompt, so VIP cannot tell them apart; set vip_id_column to a "
                "column of the training set that identifies a row%s",
                self._rows,
                " (environments that make the task in reset() need one too)" if tasks != set() else "",
            )
        elif len(self._messages) == 1 and columns:
            logger.warning(
                "the first %d rows have the same messages; they are told apart by the columns that reset() reads (%s), "
                "and their features are the same; set vip_id_column to identify them by another column",
                self._rows,
                ", ".join(columns),
            )
