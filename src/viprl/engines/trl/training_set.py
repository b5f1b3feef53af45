"""Checks of a training set before the first step."""

from __future__ import annotations

import logging
from typing import Any

from viprl.errors import InputError

logger = logging.getLogger(__name__)


def check_training_set(data: Any, args: Any, *, environments: bool) -> None:
    """Raise InputError for a training set that cannot be trained on.

    Args:
        data: a data set or a stream.
        args: the config of the trainer.
        environments: the trainer's environments define the task, so that the column `prompt` is optional.
    """
    columns = getattr(data, "column_names", None)
    listed = ", ".join(columns or ())
    if columns and args.vip_id_column is not None and args.vip_id_column.partition(".")[0] not in columns:
        raise InputError(f"vip_id_column is {args.vip_id_column!r}, but the data set has the columns {listed}")
    if columns and "prompt" not in columns and not environments:
        raise InputError(f"the data set has the columns {listed}, but no `prompt`; rename one of them")
    if columns and "prompt" not in columns and args.vip_id_column is None:
        logger.warning(
            "the data set has no column `prompt`, so all its rows count as the same prompt; set vip_id_column to the "
            "column that identifies a task (%s)",
            listed,
        )
    sized = hasattr(data, "__len__")
    if args.vip_register_pool and not sized:
        raise InputError(
            "vip_register_pool=True reads the whole training set before the first step, but the training set is a "
            "stream; set vip_register_pool=False"
        )
    prompts = args.generation_batch_size // args.num_generations
    if sized and len(data) < prompts:
        raise InputError(
            f"the data set has {len(data)} prompts, but a generation batch needs {prompts} (generation_batch_size="
            f"{args.generation_batch_size} / num_generations={args.num_generations}); lower generation_batch_size"
        )
