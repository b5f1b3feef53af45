"""Checks of what a trainer is given, before and in its first steps."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from viprl.engines.trl.equal_groups import cuts_equal_groups
from viprl.engines.trl.row_prompts import row_prompt, task_names
from viprl.errors import InputError
from viprl.prompts import identity

logger = logging.getLogger(__name__)

SUGGESTED_PROMPTS = 8
"""Prompts of a batch that a warning suggests."""


def check_training_set(data: Any, args: Any, *, environments: bool) -> None:
    """Raise InputError for a training set that cannot be trained on, and warn of batches of one prompt.

    Args:
        data: a data set or a stream.
        args: the config of the trainer.
        environments: the trainer has environments, so that the column `prompt` is optional.
    """
    columns = getattr(data, "column_names", None)
    listed = ", ".join(columns or ())
    if columns and args.vip_id_column is not None and args.vip_id_column.partition(".")[0] not in columns:
        raise InputError(f"vip_id_column is {args.vip_id_column!r}, but the data set has the columns {listed}")
    if columns and "prompt" not in columns and not environments:
        raise InputError(f"the data set has the columns {listed}, but no `prompt`; rename one of them")
    sized = hasattr(data, "__len__")
    if args.vip_register_pool and not sized:
        raise InputError(
            "vip_register_pool=True reads the whole training set before the first step, but the training set is a "
            "stream; set vip_register_pool=False"
        )
    where = f"generation_batch_size={args.generation_batch_size} / num_generations={args.num_generations}"
    if sized and len(data) < args.vip_offered:
        times, lower = "", "generation_batch_size"
        if args.vip_candidates > 1:
            times, lower = f" * vip_candidates={args.vip_candidates}", f"vip_candidates or {lower}"
        raise InputError(
            f"the data set has {len(data)} prompts, but a generation batch needs {args.vip_offered} ({where}{times}); "
            f"lower {lower}"
        )
    if args.vip_offered == 1 and args.vip_strategy != "uniform":
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
    """Warns once if prompts from all over a data set, or the first ones of a stream, are all the same.

    Args:
        id_column: the option; with it nothing is checked.
        tasks: the columns from which environments make the task of a row; None for all.
    """

    ROWS = 8
    """Rows of a data set that are looked at, and of a stream if the first batch has fewer than 2."""

    def __init__(self, id_column: str | None, tasks: Collection[str] | None) -> None:
        self._tasks, self._done = tasks, id_column is not None
        self._rows = 0
        self._prompts: set[str] = set()
        self._messages: set[str] = set()

    def look_at_data(self, data: Any) -> None:
        """Look at some rows of a data set that has a length."""
        if not self._done and hasattr(data, "__len__") and len(data) > 1:
            self.look([data[int(i)] for i in np.unique(np.linspace(0, len(data) - 1, self.ROWS).astype(int))])

    def look(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Look at the rows of a batch."""
        if self._done:
            return
        self._rows += len(rows)
        self._prompts |= {identity(row_prompt(row, None, self._tasks)) for row in rows}
        self._messages |= {identity(row_prompt({"prompt": row.get("prompt", "")}, None)) for row in rows}
        if len(rows) < 2 and self._rows < self.ROWS and len(self._messages) == 1:
            return
        self._done = True
        columns = task_names(rows[0], self._tasks)
        if len(self._prompts) == 1:
            where = ", ".join(rows[0]) or "(no columns)"
            logger.warning(
                "%d rows of the training set were looked at, and to VIP they are one prompt; set vip_id_column to a "
                "column that identifies a row (%s)%s",
                self._rows,
                where,
                "" if self._tasks == set() else ". If environments make their tasks without the row, add such a column",
            )
        elif len(self._messages) == 1 and columns:
            logger.warning(
                "%d rows of the training set were looked at, and their messages are the same; VIP tells them apart by "
                "what reset() of the environment gets (%s), but their features are the same; set vip_id_column to "
                "identify them by another column",
                self._rows,
                ", ".join(columns),
            )
