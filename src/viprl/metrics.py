"""What a run logs of a planned and observed batch."""

from __future__ import annotations

import numpy as np

from viprl.strategies import Proposal
from viprl.variance import FloatArray


def batch_metrics(proposal: Proposal, successes: FloatArray, rollouts: FloatArray) -> dict[str, float]:
    """Counts, the variance predicted, and how good the prediction was; see `viprl.VIP.metrics`."""
    counts, p = proposal.allocation.counts, proposal.prediction.success_probability
    seen = rollouts > 0
    settled = seen & ((successes == 0) | (successes == rollouts))
    rate, guess = successes[seen] / rollouts[seen], p[seen]
    safe = np.clip(guess, 1e-4, 1 - 1e-4)
    return {
        "counts/min": float(counts.min()),
        "counts/mean": float(counts.mean()),
        "counts/max": float(counts.max()),
        "variance_ratio/predicted": proposal.allocation.variance_ratio,
        "zero_advantage_rollouts": ratio(float(counts[settled].sum()), float(counts[seen].sum())),
        "unscorable": float(1 - rollouts.sum() / counts.sum()),
        "brier": _mean(rate * (1 - guess) ** 2 + (1 - rate) * guess**2),
        "log_loss": _mean(-rate * np.log(safe) - (1 - rate) * np.log1p(-safe)),
    }


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def ratio(value: float, reference: float) -> float:
    """NaN where no group of the batch was mixed: then nothing was measured."""
    return float(value / reference) if reference > 0 else float("nan")
