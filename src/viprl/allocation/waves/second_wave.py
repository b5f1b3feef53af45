"""The rollouts of both waves, after the first one.

Each prompt has a table of its expected variance by its rollouts: that of its label for a prompt with a look, that of
one wave for the others. The rest of the budget follows the exact path of `viprl.allocation.exact` on these tables. So
the second wave of a prompt depends on its own first wave through its label alone, given the labels of the others:
exactly what the estimator allows (`viprl.allocation.waves.estimator`). A hard budget is spent to the last rollout. A
variance is matched to that of uniform counts, given the labels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from viprl.allocation.budget import Budget, even_counts
from viprl.allocation.exact import counts_of_new_and_known
from viprl.allocation.waves.beliefs import Beliefs
from viprl.allocation.waves.look_plan import LookPlan
from viprl.allocation.waves.options import one_wave_values
from viprl.allocation.waves.tabulated import TabulatedVariance
from viprl.allocation.waves.variance import factors, look_table
from viprl.utils.arrays import FloatArray, IntArray


def second_counts(plan: LookPlan, successes: IntArray, budget: Budget, rng: np.random.Generator) -> IntArray:
    """[Q] rollouts of both waves, after [Q] successes in the first ones."""
    if not plan.looks.any():
        return plan.first.copy()
    _, most = limits(budget)
    labels, beliefs = plan.labels(successes), plan.beliefs
    mean, values, chance = beliefs.mean, one_wave_values(beliefs, most), beliefs.chance.copy()
    for q in np.flatnonzero(plan.looks):
        table = look_table(labels[q].size, most, beliefs.p, beliefs.signal)
        row = table.label(min(labels[q].marked), max(labels[q].marked))
        probability = max(float(table.chance[row] @ chance[q]), 1e-12)
        moments = table.moments[:, row] @ chance[q]  # [6, U+1]
        values[q] = beliefs.scale[q] * factors(plan.share[q], mean[q]) @ moments / probability
        chance[q] *= table.chance[row] / probability
    after = replace(beliefs, chance=chance, new=beliefs.unseen & ~plan.looks)
    return spend(values, after, plan.first, budget, rng)


def spend(values: FloatArray, beliefs: Beliefs, least: IntArray, budget: Budget, rng: np.random.Generator) -> IntArray:
    """[Q] counts of at least `least` [Q] for expected variances [Q, U + 1]."""
    low, most = limits(budget)
    least = np.maximum(least, low)
    uniform = uniform_variances(beliefs, budget)[:, None].repeat(most + 1, axis=1)
    own = replace(
        budget,
        min_rollouts=least,
        max_rollouts=np.maximum(np.minimum(budget.max_rollouts, most), least),
        model=TabulatedVariance.of(values - beliefs.constant[:, None], least),
        reference=TabulatedVariance(uniform, np.zeros_like(uniform)),
        reference_factors=None,
    )
    return counts_of_new_and_known(np.ones(len(least)), beliefs.unseen, own, rng)


def uniform_variances(beliefs: Beliefs, budget: Budget) -> FloatArray:
    """[Q] what the variance of each prompt adds to that of uniform counts with baselines of the group."""
    _, most = limits(budget)
    values, every = one_wave_values(beliefs.of_groups(), most), np.arange(len(beliefs.scale))
    even = np.minimum(even_counts(budget), most)
    whole = np.floor(even).astype(np.int64)
    low, high = values[every, whole], values[every, np.minimum(whole + 1, most)]
    variance = low + (even - whole) * (high - low) - beliefs.constant
    return variance if budget.reference_factors is None else variance * budget.reference_factors


LARGEST_GROUP = 128
"""Most rollouts that are planned for a prompt, unless two average groups are more: the tables grow with it."""


def limits(budget: Budget) -> tuple[int, int]:
    """L and U of the plans: at most six average groups, and `LARGEST_GROUP`."""
    least = int(budget.min_rollouts.max())
    average = -(-budget.total // len(budget.min_rollouts))
    most = min(int(budget.max_rollouts.max()), 6 * average, max(LARGEST_GROUP, 2 * average))
    return least, max(most, least, average)
