"""Plans that wait for their rewards: what was allocated to a batch, and what it takes to learn from the outcome."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from viprl.allocation import Budget, IntArray
from viprl.predictors.protocol import Batch
from viprl.strategies import Proposal

OUTSTANDING = 16
"""Plans remembered; engines that drop batches must not fill the memory."""


@dataclass(frozen=True)
class Plan:
    """One batch, planned by every strategy."""

    spec: Budget
    proposals: dict[str, Proposal]
    batches: dict[str, Batch]
    counts: IntArray
    """[Q] what the engine was told to sample."""


class Plans:
    """Outstanding plans by the identities of their prompts, the oldest forgotten first."""

    def __init__(self) -> None:
        self._plans: OrderedDict[tuple[str, ...], Plan] = OrderedDict()

    def __len__(self) -> int:
        return len(self._plans)

    def add(self, keys: tuple[str, ...], plan: Plan) -> None:
        """Remember the plan of these prompts, in place of an earlier one of the same."""
        self._plans[keys] = plan
        self._plans.move_to_end(keys)
        while len(self._plans) > OUTSTANDING:
            self._plans.popitem(last=False)

    def take(self, keys: tuple[str, ...], rewards: Sequence[Sequence[Any]]) -> Plan | None:
        """The plan that these rewards answer, no longer outstanding; None where these prompts were not planned.

        Raises ValueError, and leaves the plan, where a group has another size than planned and where the prompts are
        only some of a planned batch.
        """
        plan = self._plans.get(keys)
        if plan is None:
            self._refuse_part(keys)
            return None
        _check_lengths(rewards, plan.counts)
        return self._plans.pop(keys)

    def clear(self) -> None:
        """Forget all."""
        self._plans.clear()

    def _refuse_part(self, keys: tuple[str, ...]) -> None:
        """ValueError where these prompts are some of a planned batch, or all in another order: groups were dropped."""
        given = Counter(keys)
        for planned in self._plans:
            if keys and given <= Counter(planned):
                raise ValueError(
                    f"these {len(keys)} prompts are part of a batch of {len(planned)} that was planned, or that batch "
                    "in another order; observe all of it in the order of `allocate`, with a list of None for a group "
                    "that was lost (or `observe_counts` for outcomes that have nothing to do with the plan)"
                )


def _check_lengths(rewards: Sequence[Sequence[Any]], counts: IntArray) -> None:
    got = np.array([len(group) for group in rewards])
    if (got != counts).any():
        q = int(np.argmax(got != counts))
        raise ValueError(
            f"the plan gave prompt {q} of the batch {counts[q]} rollouts, but {got[q]} rewards came for it "
            f"({int((got != counts).sum())} of {len(counts)} prompts differ); pass one reward a rollout, in the "
            "order of the prompts, None for an unscorable one"
        )
