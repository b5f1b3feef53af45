"""What the TRL trainers ask of a training set: an order that can be resumed, and columns that say what a prompt is."""

from __future__ import annotations

import logging
from typing import Any

from trl.trainer.utils import RepeatSampler

logger = logging.getLogger(__name__)


class EpochSampler(RepeatSampler):
    """TRL's sampler with an order that (seed, epoch) decide. TRL's own order depends on how many epochs the process
    has seen, so a run resumed in its second epoch would see the first one's order again."""

    @classmethod
    def of(cls, sampler: RepeatSampler) -> EpochSampler:
        """The same batches as TRL's sampler."""
        return cls(
            sampler.data_source,
            sampler.mini_repeat_count,
            sampler.batch_size,
            sampler.repeat_count,
            sampler.shuffle,
            sampler.seed,
        )

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at the start of each epoch, resumed ones included."""
        if self.shuffle:
            self.generator.manual_seed((self.seed or 0) + epoch)


def check_dataset(data: Any, args: Any, *, environments: bool) -> None:
    """What can be told of a training set before the first step. Raises ValueError for one that cannot be trained on.

    `environments`: the trainer's environments own the task, so that a `prompt` is optional.
    """
    columns = getattr(data, "column_names", None)
    if columns and args.vip_id_column is not None and args.vip_id_column not in columns:
        raise ValueError(f"vip_id_column is {args.vip_id_column!r}, but the dataset has {', '.join(columns)}")
    if columns and "prompt" not in columns and not environments:
        raise ValueError(f"the dataset has the columns {', '.join(columns)}, but no `prompt`; rename one")
    if columns and "prompt" not in columns and args.vip_id_column is None:
        logger.warning(
            "the dataset has no `prompt`, so all its rows are one prompt to the predictor; set vip_id_column to the "
            "column that tells tasks apart (%s)", ", ".join(columns)
        )  # fmt: skip
    sized = hasattr(data, "__len__")
    if args.vip_register_pool and not sized:
        raise ValueError(
            "vip_register_pool=True reads the whole training set before the first step, but this one is a stream; "
            "leave vip_register_pool out"
        )
    prompts = args.generation_batch_size // args.num_generations
    if sized and len(data) < prompts:
        raise ValueError(
            f"the dataset holds {len(data)} prompts, but a generation batch takes {prompts} (generation_batch_size "
            f"{args.generation_batch_size} / num_generations {args.num_generations}); nothing would be trained"
        )
