"""Skip prompts by chance and give their rollouts to the others, as GRESO does (arXiv 2506.02177)."""

from __future__ import annotations

import numpy as np

from viprl.allocation import Budget, IntArray, exact_counts
from viprl.predictors.protocol import Prediction


def skip_and_redistribute(prediction: Prediction, spec: Budget, rng: np.random.Generator) -> IntArray:
    """Each prompt is kept with probability 4 E[p(1-p)] (1 where nothing speaks against it; see `predictors.greso`).

    Chosen here: those skipped get L, the kept share the rest evenly up to U; what they cannot take goes evenly to the
    skipped, and all share evenly where none is kept. Who is kept, and ties, are drawn from `rng`.
    """
    kept = rng.random(len(prediction.reward_variance)) < 4 * prediction.reward_variance
    return exact_counts(kept.astype(float), spec, rng)
