"""Stops a run if its first batch shows that success is undefined."""

from __future__ import annotations

import math
from collections.abc import Sequence

from viprl.engines.planned_batch import PlannedBatch
from viprl.errors import InputError
from viprl.vip import VIP, Observation

Values = Sequence[Sequence[float | None]]


class FirstBatchCheck:
    """Passes the outcomes of each batch to `VIP`, and checks those of the first one.

    If none of the first rewards can be read as success or failure, success was never defined for this run. Later
    unreadable rewards are counted as unscorable and only cause warnings.

    Args:
        option: how the engine spells the option `success`, for the error.
    """

    def __init__(self, option: str) -> None:
        self.option = option
        self.pending = True
        """Whether no batch has been observed yet."""

    def observe(self, vip: VIP, batch: PlannedBatch, values: Values, logprobs: Values | None = None) -> Observation:
        """`vip.observe` for a planned batch; `values` and `logprobs` have one list for each prompt.

        Raises InputError if no reward of the first batch could be read and at least one was not None or NaN.
        """
        before = vip.unreadable_rewards
        observation = vip.observe(batch.prompts, values, logprobs=logprobs)
        first, self.pending = self.pending, False
        if first and vip.unreadable_rewards > before and not observation.rollouts.any():
            example = next(v for group in values for v in group if v is not None and not math.isnan(v))
            raise InputError(
                f"no reward of the first batch is 0, 1 or -1 (the first one is {example!r}), so success is undefined; "
                f"set {self.option} to a threshold on the total reward, such as 0.5, or to the name of a reward"
            )
        return observation
