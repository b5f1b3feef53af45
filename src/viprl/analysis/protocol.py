"""How a log is replayed, and what a log itself says about that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from viprl.allocation.budget import Budget, default_max_rollouts
from viprl.allocation.variance_models import get_variance_model
from viprl.errors import InputError
from viprl.runs.logged_rollouts import LoggedRun
from viprl.settings import Settings

USUAL_BATCH = 64
"""Prompts of a batch if the log does not say how many a step had."""
REACH = 4
"""Visits before and after one that count for its truth."""


def around(visit: int) -> slice:
    """The visits t-4 to t+4, fewer at the ends."""
    return slice(max(0, visit - REACH), visit + REACH + 1)


@dataclass(frozen=True)
class Protocol:
    """How a log is replayed.

    Args:
        batch_size: Q, prompts of a batch.
        rollouts: rollouts of a prompt on average; the budget of a batch is C = rollouts x batch_size.
        min_rollouts, max_rollouts: bounds for each prompt.
        visits: replay this many visits of the prompts that have as many.
        seeds: repetitions, with seeds 0 to seeds - 1.
        closed: observe only the allocated rollouts (closed loop) instead of all logged ones (open loop).
        estimator: of the advantage, see `viprl.allocation.variance_models`.
        spend, variance_target, cost: as for `viprl.VIP`: what a batch spends of its budget.

    Raises InputError for numbers below 1, for bounds that cannot meet the budget, and for values of `spend` and `cost`
    that do not exist.
    """

    batch_size: int = USUAL_BATCH
    rollouts: int = 8
    min_rollouts: int = 4
    max_rollouts: int = 16
    visits: int = 40
    seeds: int = 3
    closed: bool = False
    estimator: str = "rloo"
    spend: str = "budget"
    variance_target: float = 1.0
    cost: str = "rollouts"

    def __post_init__(self) -> None:
        self.spending.check_choices()
        for name in ("batch_size", "rollouts", "visits", "seeds"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 1")
        if not self.min_rollouts <= self.rollouts <= self.max_rollouts:
            raise InputError(
                f"rollouts is {self.rollouts}, min_rollouts {self.min_rollouts} and max_rollouts {self.max_rollouts}; "
                "set rollouts to a number within the bounds, or change the bounds (--rollouts, --min-rollouts, "
                "--max-rollouts)"
            )
        self.budget()

    @classmethod
    def of(cls, log: LoggedRun, **given: Any) -> Protocol:
        """The protocol that suits a log; `given` are the parameters that are set by hand, None counts as not given.

        The batch has as many prompts as a step of the run, and the budget as many rollouts. The bounds are those of the
        run; if the log does not have them, they are those of the logged groups, and if these are all equal, the
        defaults of `viprl.VIP`. The number of visits, 2 or more if possible, is the one that replays most outcomes.
        """
        known = {name: value for name, value in given.items() if value is not None}
        prompts = np.sort([len(history.rollouts) for history in log.histories])[::-1]  # [N] visits, most first
        sizes = np.concatenate([history.rollouts for history in log.histories])
        least = get_variance_model(known.get("estimator", cls.estimator)).min_rollouts
        size = known.setdefault("batch_size", min(log.batch_size or USUAL_BATCH, len(prompts)))
        known.setdefault("visits", best_visits(prompts.tolist(), size))
        rollouts = known.setdefault("rollouts", max(least, round(float(sizes.mean()))))
        low, high = log.min_rollouts, log.max_rollouts
        if not log.own and sizes.min() < sizes.max():
            low, high = (int(sizes.min()) if low is None else low), (int(sizes.max()) if high is None else high)
        low = max(least, least if low is None else low)
        high = default_max_rollouts(1, rollouts, low) if high is None else high
        # bounds that are not given must not contradict those that are
        known.setdefault("min_rollouts", max(least, min(low, rollouts, known.get("max_rollouts", low))))
        known.setdefault("max_rollouts", max(high, rollouts, known["min_rollouts"]))
        return cls(**known)

    @property
    def spending(self) -> Settings:
        """The options that turn the budget of a batch into what it may spend."""
        return Settings(spend=self.spend, variance_target=self.variance_target, cost=self.cost)

    def budget(self) -> Budget:
        """The budget of a batch, as a hard one."""
        total = self.rollouts * self.batch_size
        return Budget.of(self.batch_size, total, self.min_rollouts, self.max_rollouts, self.estimator)


def best_visits(visits: list[int], batch_size: int) -> int:
    """The number of visits that replays most outcomes in whole batches; 1 only if no more fill a batch.

    Args:
        visits: of each prompt, most first.
        batch_size: prompts of a batch.
    """
    replayed: dict[int, int] = {}
    for position, most in enumerate(visits, start=1):
        replayed[most] = most * (position // batch_size)  # prompts with at least `most` visits: all up to this one
    several = {count: outcomes for count, outcomes in replayed.items() if count > 1 and outcomes > 0}
    return max(several, key=lambda count: (several[count], count), default=1)


DEFAULT_PROTOCOL = Protocol()
"""For logs of many visits."""
