"""Both waves of a step from verl's replay buffer.

verl sends the prompts of a step to the agent loops, and then waits in `ReplayBuffer.sample` until they are scored. All
that is between the two waves is done there: the rollout servers are awake, and verl's timer `gen` runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from transfer_queue import KVBatchMeta

SECONDS = "timing_s/second_wave"
"""Metric: time from the last reward of the first wave to the last of the second; a part of verl's `timing_s/gen`."""


class WaveBuffer:
    """verl's replay buffer, which samples the second wave of a training batch after the first.

    Args:
        buffer: verl's own, or the one that `trainer.v1.sampler.custom_sampler` names.
        send_second: gets the rows of the first wave, sends the second one to the agent loops and returns the number of
            its prompts, 0 for a step with one wave.
    """

    def __init__(self, buffer: Any, send_second: Callable[[KVBatchMeta], int]) -> None:
        self.buffer, self._send_second = buffer, send_second

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict[str, Any]]:
        """The rows of a batch of prompts, of both waves, and metrics."""
        where = {"global_steps": global_steps, "partition_id": partition_id}
        rows, metrics = self.buffer.sample(**where, batch_size=batch_size)
        if partition_id != "train":
            return rows, metrics
        began = time.perf_counter()
        prompts = self._send_second(rows)
        if not prompts:
            return rows, metrics | {SECONDS: 0.0}
        try:
            more, others = self.buffer.sample(**where, batch_size=prompts)
        except RuntimeError as error:  # verl's, if no rollout of any of them succeeded
            error.add_note(f"raised while waiting for the second wave, of {prompts} prompts, of step {global_steps}")
            raise
        seconds = time.perf_counter() - began
        both = replace(rows, keys=rows.keys + more.keys, tags=rows.tags + more.tags)
        return both, metrics | others | {SECONDS: seconds}
