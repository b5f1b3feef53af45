"""What a batch may spend, and what it spent.

The options `spend` and `cost` of VIP turn the hard budget of a batch, C rollouts, into one of the other budgets of
`viprl.allocation.budget`:

    spend    cost       budget
    budget   rollouts   hard: C rollouts
    budget   tokens     limited: the tokens that uniform counts would cost, at most C rollouts
    match    rollouts   match: the fewest rollouts with uniform's variance, at most C
    match    tokens     match: the fewest tokens with uniform's variance, at most C rollouts
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from viprl import metrics as names
from viprl.allocation.budget import Budget, bounds, default_max_rollouts, even_counts
from viprl.allocation.running_price import RunningPrice
from viprl.allocation.variance_models import VarianceModel
from viprl.allocation.variance_target import VarianceTarget
from viprl.errors import InputError
from viprl.plans import Plan
from viprl.predictors.base import Batch, Prediction
from viprl.predictors.length_filter import LengthFilter
from viprl.reward_groups import RewardGroups
from viprl.settings import Settings
from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.sequences import LARGEST, positive_number, whole_number
from viprl.utils.state_checks import entry, mapping_entry
from viprl.utils.state_file import State


class Spending:
    """Turns hard budgets into those that the options ask for, and learns from what batches spent.

    Args:
        settings: `spend`, `variance_target` and `cost`.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.target = VarianceTarget()
        self.price = RunningPrice()
        self.lengths = LengthFilter()

    @property
    def counts_tokens(self) -> bool:
        """Whether lengths are needed."""
        return self.settings.cost == "tokens"

    def costs(self, batch: Batch, prediction: Prediction) -> FloatArray | None:
        """[Q] predicted tokens of a rollout of distinct prompts; None if rollouts count, and before any was seen."""
        if not self.counts_tokens or not self.lengths.ready:
            return None
        return self.lengths.predict(batch, prediction.success_probability)

    def check(self, hard: Budget, multiple: int, average: float | None) -> None:
        """Raise InputError for a multiple that C is not, and for arguments that contradict each other."""
        if hard.total % whole_number("multiple", multiple, least=1) and average is None:
            raise InputError(
                f"multiple is {multiple}, but the budget is {hard.total}; give a budget that is a multiple"
            )
        if average is not None and (multiple != 1 or self.settings.spend == "match"):
            other = "multiple" if multiple != 1 else "spend='match'"
            raise InputError(f"average and {other} contradict each other; leave out one of the two")

    def budget(self, hard: Budget, costs: FloatArray | None, multiple: int = 1) -> Budget:
        """The budget of a batch in place of the hard one; `costs` [Q] as from `costs`."""
        if self.settings.spend == "match":
            budget = hard.matching(self.target.aim(self.settings.variance_target), costs)
        elif costs is not None:
            budget = hard.limited(float(costs @ even_counts(hard)), costs)
        else:
            budget = hard
        return replace(budget, multiple=multiple)

    def priced(self, hard: Budget, costs: FloatArray | None, weights: FloatArray, average: float) -> Budget:
        """A budget that is met on average; `weights` [Q] are the predicted variance weights."""
        per_rollout = weights.mean() * float(hard.model.marginal(max(average, hard.model.min_rollouts)))
        costs = None if costs is None else costs / self.lengths.typical  # the price stays when lengths become known
        return hard.priced(self.price.price(max(per_rollout, 1e-100)), costs)

    def planned(self, budget: Budget, counts: IntArray, average: float | None) -> None:
        """Take note of the counts [Q] of a budget that is met on average."""
        if budget.price is not None and average is not None:
            self.price.spent(budget.price, int(counts.sum()), len(counts), average)

    def observe(self, budget: Budget, variance: tuple[float, float], predicted: float) -> None:
        """Learn from a batch: its realised variance and that of uniform counts, and the ratio that was predicted."""
        if budget.match is not None:
            self.target.observe(*variance, predicted)

    def metrics(self, plan: Plan, lengths: Sequence[FloatArray] | None) -> dict[str, float]:
        """What a batch spent, by the names in `viprl.metrics`; `lengths` [Q][n] in tokens, NaN where unknown."""
        budget, rollouts = plan.budget, int(plan.counts.sum())
        found: dict[str, float] = {}
        if budget.price is not None:
            found |= {names.SPENT_ROLLOUTS: rollouts, names.DRIFT: self.price.drift}
        elif not self.settings.spends_all:
            found |= {names.SPENT_ROLLOUTS: rollouts, names.SAVED_ROLLOUTS: 1 - rollouts / budget.total}
        if budget.match is not None:
            found[names.AIM] = budget.match
        if budget.costs is not None:
            unit = 1.0 if budget.price is None else self.lengths.typical
            found[names.PREDICTED_TOKENS] = unit * budget.cost(plan.counts)
        mean = RewardGroups.of_rewards(lengths or ()).mean
        known = ~np.isnan(mean)
        if known.any():
            spent, uniform = (float(mean[known] @ counts[known]) for counts in (plan.counts, even_counts(budget)))
            found |= {names.SPENT_TOKENS: spent, names.SAVED_TOKENS: 1 - names.ratio(spent, uniform)}
        return found

    def state_dict(self) -> State:
        lengths = self.lengths.state_dict() if self.counts_tokens else None
        return {"target": self.target.state_dict(), "price": self.price.state_dict(), "lengths": lengths}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Lengths that the state does not hold are learned afresh. Raises StateError for a damaged state."""
        self.target.load_state_dict(dict(mapping_entry(state, "target")))
        self.price.load_state_dict(dict(mapping_entry(state, "price")))
        if self.counts_tokens and entry(state, "lengths") is not None:
            self.lengths.load_state_dict(dict(mapping_entry(state, "lengths")))


def hard_budget(
    settings: Settings,
    model: VarianceModel,
    prompts: int,
    budget: int | None,
    min_rollouts: ArrayLike | None = None,
    max_rollouts: ArrayLike | None = None,
    *,
    average: float | None = None,
    rng: np.random.Generator | None = None,
) -> Budget:
    """The hard budget of Q prompts.

    Args:
        settings: the bounds where none are given.
        model: of the estimator.
        prompts: Q.
        budget: C; None with an average.
        min_rollouts, max_rollouts: numbers or [Q]. Default: the smallest legal group and six average groups.
        average: rollouts of a prompt; C is then the whole number next to it times Q that the bounds allow, up or down
            as `rng` decides, and bounds may be larger than C.

    Raises InputError for a budget that the bounds cannot meet, and unless either budget or average is given.
    """
    if (budget is None) == (average is None):
        raise InputError(f"give either budget or average; {'neither' if budget is None else 'both'} were given")
    given = settings.min_rollouts if min_rollouts is None else min_rollouts
    least = bounds("min_rollouts", model.min_rollouts if given is None else given, prompts)
    most = settings.max_rollouts if max_rollouts is None else max_rollouts
    if budget is not None:
        most = default_max_rollouts(prompts, budget, least) if most is None else most
        return Budget.of(prompts, budget, least, most, model)
    average = positive_number("average", average)
    most = max(math.ceil(6 * average), *least.tolist(), 0) if most is None else most
    most = np.minimum(bounds("max_rollouts", most, prompts, limitless=True), LARGEST // max(prompts, 1))
    if prompts and not least.mean() <= average <= most.mean():
        raise InputError(
            f"average is {average:g}, but the bounds allow {least.mean():g} to {most.mean():g} rollouts of a prompt; "
            "change the average or the bounds"
        )
    total = average * prompts + (0.0 if rng is None else rng.random())
    whole = int(np.clip(total, least.sum(), most.sum()))
    return replace(Budget.of(prompts, int(most.sum()), least, most, model), total=whole)
