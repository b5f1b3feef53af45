"""Plans that wait for their rewards."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from viprl.advantages import RewardPrior
from viprl.allocation.budget import Budget
from viprl.allocation.optimum import Allocation
from viprl.allocation.selection_guard import Draw
from viprl.allocation.waves.pooled import Waves
from viprl.errors import InputError, InputTypeError, PredictionError
from viprl.outcomes import RewardReader, check_group_sizes, rollout_groups
from viprl.predictors.base import Batch
from viprl.strategies import Proposal
from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.sequences import short

MOST_PENDING, MOST_PROMPTS = 16, 4096
"""Plans that are kept, and more if they have fewer prompts than this in all; engines that drop batches must not fill
the memory."""


@dataclass(frozen=True)
class Choice:
    """How Q prompts were chosen among M candidates."""

    offered: tuple[str, ...]
    """[M] identities of the candidates."""
    draw: Draw
    weights: FloatArray
    """[Q] v, of the prompts in the batch gradient."""
    error: PredictionError | None = None
    """Why nothing could be predicted of the candidates, so that chance alone chose."""

    @property
    def reference(self) -> FloatArray:
        """[Q] what v^2 a has to be multiplied by for an unbiased estimate of a in the mean over prompts that are chosen
        by chance: 1/v of weights that correct for the selection."""
        pi = self.draw.inclusion
        return pi.mean() / pi[self.draw.positions] / self.weights**2


@dataclass(frozen=True)
class Plan:
    """What was allocated to a batch, and what it takes to learn from the outcomes."""

    budget: Budget
    proposals: dict[str, Proposal]
    """By strategy, shadows included."""
    batches: dict[str, Batch]
    counts: IntArray
    """[Q] the rollouts that the engine was given."""
    prior: RewardPrior | None
    """What was expected of the rewards, without the guard of `viprl.shrinkage`; None if baselines are not shrunk."""
    choice: Choice | None = None
    """How the prompts were chosen; None if they were given."""
    waves: Waves | None = None
    """The two waves of the batch; None if it is sampled at once."""
    share: float = 1.0
    """How far the guard lets baselines be shrunk."""
    asked: int = 1
    """Waves that were asked for."""

    @property
    def usable(self) -> bool:
        """Whether the predictions of the strategy that acts could be used."""
        return next(iter(self.proposals.values())).usable

    @property
    def factors(self) -> FloatArray | None:
        """[Q] by which the variance of a prompt counts in that of the batch gradient; None if equally."""
        return None if self.choice is None else self.choice.weights**2


class PendingPlans:
    """Plans by the identities of their prompts; the oldest are forgotten first."""

    def __init__(self) -> None:
        self._plans: OrderedDict[tuple[str, ...], Plan] = OrderedDict()

    def __len__(self) -> int:
        return len(self._plans)

    def add(self, keys: tuple[str, ...], plan: Plan) -> None:
        """Keep the plan of these prompts, in place of an earlier one for the same batch."""
        self._plans[keys] = plan
        self._plans.move_to_end(keys)
        while len(self._plans) > MOST_PENDING and sum(map(len, self._plans)) > MOST_PROMPTS:
            self._plans.popitem(last=False)

    def after_first(self, plan: Allocation, rewards: Any, reader: RewardReader) -> Allocation:
        """Take note of the rewards of the first wave of a pending plan, and return the allocation of both waves: the
        plan itself if it has one wave.

        Raises InputError if the plan is not pending, and for rewards of other groups.
        """
        if not isinstance(plan, Allocation):
            raise InputTypeError(
                f"plan is {short(plan)}; expected the allocation that `allocate` returned, or `selection.allocation`"
            )
        groups = rollout_groups("rewards", rewards, len(plan.counts))
        if plan.waves is None:
            check_group_sizes(groups, plan.counts)
            return plan
        for keys, pending in self._plans.items():
            if pending.waves is plan.waves and pending.waves.labels is None:
                both, counts = pending.waves.after(reader.batch(groups))
                active, proposal = next(iter(pending.proposals.items()))
                cost = pending.budget.cost(counts)
                allocation = replace(proposal.allocation, counts=counts, cost=cost, waves=both)
                proposals = {**pending.proposals, active: replace(proposal, allocation=allocation)}
                self._plans[keys] = replace(pending, proposals=proposals, counts=counts, waves=both)
                return allocation
        raise InputError(
            "this plan is not waiting for its first wave; give the plan that `allocate` of this VIP returned, once"
        )

    def find(self, keys: tuple[str, ...], rewards: Sequence[Sequence[Any]]) -> Plan | None:
        """The plan of these prompts; None if they were not planned.

        Raises InputError if a group has another size than planned, if the second wave was not planned yet, and if the
        prompts are part of a planned batch or the candidates of a selection.
        """
        plan = self._plans.get(keys)
        if plan is None:
            self._refuse_part(keys)
            self._refuse_candidates(keys)
        else:
            if plan.waves is not None and plan.waves.labels is None:
                raise InputError(
                    "this batch was planned in two waves, but the first one was not given to `next`; call "
                    "`vip.next(plan, rewards)` with its rewards, and then `observe` those of both waves"
                )
            check_group_sizes(rewards, plan.counts)
            if plan.waves is not None:
                plan.waves.check(RewardReader().batch(rewards))
        return plan

    def remove(self, keys: tuple[str, ...]) -> None:
        """Forget the plan of these prompts, if there is one."""
        self._plans.pop(keys, None)

    def clear(self) -> None:
        """Forget all plans."""
        self._plans.clear()

    def _refuse_part(self, keys: tuple[str, ...]) -> None:
        """Raise InputError if these prompts are part of a planned batch, or a planned batch in another order."""
        given = Counter(keys)
        for planned in self._plans:
            if keys and given <= Counter(planned):
                raise InputError(
                    f"these {len(keys)} prompts are part of a planned batch of {len(planned)}, or that batch in "
                    "another order; observe the whole batch in the order of `allocate`, with a list of None for a "
                    "group that was lost (use `observe_counts` for outcomes without a plan)"
                )

    def _refuse_candidates(self, keys: tuple[str, ...]) -> None:
        """Raise InputError if these are all candidates of a selection."""
        for planned, plan in self._plans.items():
            if plan.choice is not None and plan.choice.offered == keys:
                raise InputError(
                    f"these {len(keys)} prompts are the candidates of a selection that sampled {len(planned)} of them; "
                    "observe [candidates[i] for i in selection.positions] and their rewards (use `observe_counts` for "
                    "outcomes without a plan)"
                )
