"""An order of the training set that a resumed run continues."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback
from trl.trainer.utils import RepeatSampler

from viprl.engines.trl.trl_api import SAMPLER


class EpochSampler(RepeatSampler):
    """TRL's sampler with an order that depends on (seed, epoch) alone.

    TRL's own order depends on how many epochs the process has seen, so a run that is resumed in its second epoch would
    see the order of the first one again.
    """

    @classmethod
    def of(cls, sampler: RepeatSampler) -> EpochSampler:
        """A sampler with the batches of TRL's sampler."""
        return cls(*(getattr(sampler, name) for name in SAMPLER))

    def set_epoch(self, epoch: int) -> None:
        """Called at the start of each epoch."""
        if self.shuffle:
            self.generator.manual_seed((self.seed or 0) + epoch)


class EpochOrder(TrainerCallback):
    """Tells a sampler which epoch begins.

    The trainer does so itself, except for a run of several processes that is resumed within an epoch: then accelerate
    hides the sampler below the batches to skip.
    """

    def __init__(self) -> None:
        self.sampler: EpochSampler | None = None

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.sampler is not None:
            self.sampler.set_epoch(int((state.epoch or 0) + 1e-9))
