"""An order of the training set that a resumed run continues."""

from __future__ import annotations

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
        """Called by the trainer at the start of each epoch, also after a resume."""
        if self.shuffle:
            self.generator.manual_seed((self.seed or 0) + epoch)
