"""What the counts of a replayed batch spend, and what the gradient variance is with them.

symbol  meaning                                                      shape
n       counts of the batch                                          [Q]
e       uniform counts, of sum C                                     [Q]
a       true reward variances (`viprl.analysis.pool`)                [Q]
l       true mean lengths (`viprl.analysis.lengths`)                 [Q]
f       variance model                                               function
"""

from __future__ import annotations

import math

import numpy as np

from viprl.allocation.budget import Budget, even_counts
from viprl.utils.arrays import FloatArray, IntArray

ROLLOUTS, TOKENS = "rollouts_spent", "tokens_spent"
TRUE_RATIO, PER_TOKEN = "spent_variance_ratio", "variance_per_token"

SPENDING_SCORES = {
    ROLLOUTS: "rollouts of a batch, relative to its budget",
    TOKENS: "tokens of a batch, relative to uniform counts, with true mean lengths",
    TRUE_RATIO: "gradient variance with the counts that were spent, relative to uniform (lower is better)",
    PER_TOKEN: "variance of that gradient times its tokens, relative to uniform (lower is better)",
}
"""sum n / C;  l n / l e;  V = a f(n) / a f(e);  V times l n / l e."""


def spending_scores(
    counts: IntArray, variance: FloatArray, length: FloatArray | None, budget: Budget
) -> dict[str, float]:
    """The scores of counts n [Q], by the names of `SPENDING_SCORES`; those of tokens only with mean lengths [Q].

    Args:
        counts: n.
        variance: a.
        length: l; None if unknown.
        budget: of the batch.
    """
    even, model = even_counts(budget), budget.model
    uniform = float(variance @ model.interpolated_factor(even))
    ratio = float(variance @ model.factor(counts)) / uniform if uniform > 0 else math.nan
    scores = {ROLLOUTS: float(np.sum(counts)) / budget.total, TRUE_RATIO: ratio}
    if length is not None:
        tokens = float(length @ counts) / float(length @ even)
        scores |= {TOKENS: tokens, PER_TOKEN: ratio * tokens}
    return scores
