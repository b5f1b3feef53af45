"""Calls TRL's own generation and scoring once or twice for a batch.

The first call samples the plan, or its first wave. After that has been scored on all processes, the main process plans
the second wave, which a second call samples. Each process has rollouts of both waves. What TRL returns is merged
(`merged_outputs`), and what it logs (`wave_logs`); its advantages, which are of one wave alone, are replaced later.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
from accelerate.utils import broadcast_object_list

from viprl.engines.planned_batch import PlannedBatch, both_waves
from viprl.engines.trl.generation import Generation, Sampled, sampling_logprobs
from viprl.engines.trl.merged_outputs import check_fields, merged
from viprl.engines.trl.micro_batches import Rows
from viprl.engines.trl.ragged_advantages import weighted_total
from viprl.engines.trl.wave_logs import WaveLogs
from viprl.utils.arrays import FloatArray, IntArray

_Host: Any = object  # for a type checker: a trainer, whose attributes are not declared


class SamplingInWaves(_Host):
    """Mixin to place before a TRL trainer, which plans batches and has a `vip`."""

    _vip_generation: Generation | None = None
    """The call of TRL's generation that goes on; None outside of it, and in an evaluation."""

    def _vip_sample(self, rows: list[dict[str, Any]], plan: PlannedBatch) -> tuple[Rows, Sampled]:
        """What TRL returns of the rollouts of this process, and the rollouts of the batch.

        Args:
            rows: [Q] of the data set.
            plan: of the batch, or of its first wave.
        """
        if plan.waves is None:
            output, only = self._vip_wave(rows, plan.counts)
            return output, Sampled(plan, [only])
        logs = WaveLogs(self)
        with logs.of_a_wave():
            output, first = self._vip_wave(rows, plan.counts)
        outputs, waves = [output], [first]
        whole = self._vip_on_main(lambda: both_waves(self.vip, plan, self._vip_totals(Sampled(plan, waves).rewards)[1]))
        if (whole.counts > plan.counts).any():
            with logs.of_a_wave():
                output, second = self._vip_wave(rows, whole.counts, before=plan.counts)
            outputs, waves = [*outputs, output], [*waves, second]
        sampled = Sampled(whole, waves)
        logs.log(sampled)
        tokenizer: Any = getattr(self.processing_class, "tokenizer", self.processing_class)
        return merged(outputs, tokenizer.pad_token_id), sampled

    def _vip_wave(
        self, rows: list[dict[str, Any]], counts: IntArray, before: IntArray | None = None
    ) -> tuple[Rows, Generation]:
        """One call of TRL's generation and scoring; the arguments are those of `Generation`."""
        accelerator = self.accelerator
        wave = Generation(counts, accelerator.process_index, accelerator.num_processes, before)
        self._vip_generation = wave
        try:
            # Each row is one rollout. TRL must neither merge rows for generation (the server mode of vLLM keeps every
            # num_generations-th prompt) nor scale rewards by groups of equal size.
            with self._vip_set(num_generations=1, scale_rewards="none", normalize_advantages=False):
                # each rollout gets its own copy: TRL and reward functions write into the rows
                output = super()._generate_and_score_completions([copy.deepcopy(rows[group]) for group in wave.local])
        finally:
            self._vip_generation = None
        if wave.rewards is None or wave.lengths is None:
            raise RuntimeError("TRL computed no rewards for a generation batch: _calculate_rewards was not called")
        if self.args.vip_waves > 1:  # at the first batch already, which may have one wave
            check_fields(output)
        logprobs = sampling_logprobs(output) if self.args.vip_use_logprobs else None
        if logprobs is not None:
            wave.logprobs = accelerator.gather(logprobs).double().cpu().numpy()
        return output, wave

    def _vip_totals(self, rewards: FloatArray) -> tuple[FloatArray, FloatArray]:
        """From rewards [N, F]: [N] totals, NaN where unscorable; [N] what VIP is given, which counts rewards that it
        cannot read, so that these are infinite for it."""
        total, unreadable = weighted_total(rewards, self.reward_weights.double().cpu().numpy())
        return total, np.where(unreadable, np.inf, total)

    def _vip_on_main(self, make: Any) -> Any:
        """What a function returns on the main process, whose VIP is the only one that is used."""
        box = [make() if self.accelerator.is_main_process else None]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(box, from_process=0)
        return box[0]

    @contextlib.contextmanager
    def _vip_set(self, **values: Any) -> Iterator[None]:
        """Other values of those attributes that the trainer has, for a while."""
        saved = {name: getattr(self, name) for name in values if hasattr(self, name)}
        for name in saved:
            setattr(self, name, values[name])
        try:
            yield
        finally:
            for name, value in saved.items():
                setattr(self, name, value)
