"""What a report says of a run whose prompts were chosen, or whose baselines were shrunk."""

from __future__ import annotations

import numpy as np

from viprl.analysis.curves import curve
from viprl.metrics import EFFECTIVE_PROMPTS, NEGLECTED, PREFIX, SHRINKAGE
from viprl.report.words import num
from viprl.runs.reader import Run


def chosen_prompts(run: Run, strategy: str) -> list[str]:
    """Sentences about the weights of chosen prompts and about the baselines; none for a run without them."""
    effective, neglected, shrinkage = (
        None if found is None else found.values[~np.isnan(found.values)]
        for found in (curve(run, strategy, PREFIX + name) for name in (EFFECTIVE_PROMPTS, NEGLECTED, SHRINKAGE))
    )
    words = []
    if effective is not None and neglected is not None:
        words.append(
            "the prompts of a step were chosen from several candidates; the variance ratio shows the effect of this on "
            "the noise of the rollouts alone. With "
            f"their weights a step had {num(float(np.median(effective)), 1)} effective prompts (median), and "
            f"{num(100 * neglected[-1], 0)}\u00a0% of the prompts of the last 100 batches were never sampled in them."
        )
    if shrinkage is not None:
        words.append(
            "baselines were shrunk towards expected rewards by "
            f"{num(100 * float(shrinkage.mean()), 0)}\u00a0% of what the predictions said (mean over the steps)."
        )
    return words
