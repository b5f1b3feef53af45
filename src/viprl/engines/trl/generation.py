"""One generation batch of a training with TRL, and the calls of TRL's generation that it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from viprl.advantages import group_index
from viprl.engines.planned_batch import PlannedBatch
from viprl.prompts import Prompt
from viprl.utils.arrays import FloatArray, IntArray
from viprl.vip import Observation


@dataclass(frozen=True)
class Groups:
    """One generation batch, the argument of `trainer.vip_listeners`."""

    prompts: list[Prompt]
    """[Q] prompts that were sampled, in global order, the same on every process."""
    counts: list[int]
    """[Q] rollouts of each, of both waves if there are two. Their sum N is the budget C, or less where VIP saves
    rollouts."""
    rewards: list[list[float]]
    """Total reward of each rollout, one list for each prompt, the first wave first; NaN where unscorable."""
    advantages: FloatArray
    """[N] before the weights of prompts."""
    observation: Observation | None
    """How VIP read the rewards; None on all processes but the main one."""
    weights: FloatArray
    """[Q] weight of each prompt in the batch gradient; 1 if nothing was selected."""


class Generation:
    """State of one call of TRL's generation, shared by the overrides: of a whole batch, or of one of its waves.

    Args:
        counts: [Q] rollouts of each prompt that are planned so far.
        rank: the number of this process.
        processes: how many there are; each has the same number of rollouts.
        before: [Q] those that an earlier wave has sampled; None if there was none.
    """

    def __init__(self, counts: IntArray, rank: int, processes: int, before: IntArray | None = None) -> None:
        self.counts, self.rank, self.processes = counts, rank, processes
        self.wave = 1 if before is None else 2
        self.group = group_index(counts if before is None else counts - before)
        """[N] the prompt of each rollout of this call, on all processes."""
        self.rewards: torch.Tensor | None = None
        """[N, F]; infinite where a reward cannot be trained on."""
        self.lengths: FloatArray | None = None
        """[N] tokens of the completions, those of tools included."""
        self.logprobs: FloatArray | None = None
        """[N] log probability of each completion under the policy that sampled it, where it is known."""

    def own(self, values: Any) -> Any:
        """Those of values [N] that belong to the rollouts of this process."""
        return np.split(values, self.processes)[self.rank]

    @property
    def local(self) -> IntArray:
        """[N / processes] the prompt of each rollout of this process."""
        return self.own(self.group)


class Sampled:
    """The rollouts of a batch, prompt by prompt.

    Each process holds its rollouts of the first wave before those of the second one.

    Args:
        plan: of the whole batch.
        waves: one or two calls, which have rewards.
    """

    def __init__(self, plan: PlannedBatch, waves: Sequence[Generation]) -> None:
        self.plan, self.waves = plan, waves
        self.order: IntArray = np.argsort(np.concatenate([wave.group for wave in waves]), kind="stable")
        """[N] from the rollouts wave by wave to those prompt by prompt, the first wave first."""
        self.rewards = self._by_prompt(
            [np.asarray(wave.rewards.double().cpu()) for wave in waves if wave.rewards is not None]
        )
        """[N, F]."""
        self.lengths = self._by_prompt([wave.lengths for wave in waves])
        """[N]."""
        known = all(wave.logprobs is not None for wave in waves)
        self.logprobs = self._by_prompt([wave.logprobs for wave in waves]) if known else None
        """[N], or None."""

    def _by_prompt(self, values: Sequence[Any]) -> FloatArray:
        return np.concatenate(values)[self.order]

    def own(self, values: FloatArray) -> FloatArray:
        """[N / processes] those of values [N], prompt by prompt, that belong to the rollouts of this process."""
        in_waves = np.empty_like(values)
        in_waves[self.order] = values
        ends = np.cumsum([len(wave.group) for wave in self.waves])[:-1]
        parts = zip(self.waves, np.split(in_waves, ends), strict=True)
        return np.concatenate([wave.own(part) for wave, part in parts])


def sampling_logprobs(output: Mapping[str, Any]) -> torch.Tensor | None:
    """[rows] log probability of each completion under the policy that sampled it, if TRL has computed it: always for
    RLOO; for GRPO with vLLM's importance sampling, or if a batch serves several optimizer steps."""
    mask = output["completion_mask"] * output.get("tool_mask", 1)
    for name in ("old_per_token_logps", "sampling_per_token_logps"):
        if output.get(name) is not None:
            return (output[name] * mask).sum(1).detach()
    return None if output.get("old_logps") is None else output["old_logps"].detach()
