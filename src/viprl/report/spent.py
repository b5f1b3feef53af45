"""What a run spent of its budget, from its training log."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from viprl.analysis.curves import curve
from viprl.analysis.statistics import Estimate, over_blocks
from viprl.metrics import PREFIX, REALISED_RATIO, SAVED_ROLLOUTS, SAVED_TOKENS, SPENT_ROLLOUTS, SPENT_TOKENS
from viprl.report.words import interval, num
from viprl.runs.reader import Run

UNITS = {"rollouts": (SPENT_ROLLOUTS, SAVED_ROLLOUTS), "tokens": (SPENT_TOKENS, SAVED_TOKENS)}
"""The metrics of what was spent, and of the share that was saved."""


@dataclass(frozen=True)
class Spent:
    """Totals of one strategy over all steps and seeds of a run."""

    strategy: str
    unit: str
    total: float
    uniform: float
    """What uniform counts would have spent."""
    ratio: Estimate | None
    """Realised gradient variance relative to uniform."""

    @property
    def saved(self) -> float:
        """Share that was not spent."""
        return 1 - self.total / self.uniform

    @property
    def at(self) -> str:
        """The variance at which it was saved, in words; empty if the log does not say."""
        if self.ratio is None:
            return ""
        return f" at a realised variance ratio of {num(self.ratio.mean)}{interval(self.ratio)}"

    @property
    def words(self) -> str:
        """One sentence without its end."""
        share = f"{num(100 * abs(self.saved), 1)}\u00a0% {'saved' if self.saved >= 0 else 'more'}"
        return f"{self.total:,.0f} {self.unit} instead of {self.uniform:,.0f}: {share}{self.at}"


def spent(run: Run, strategy: str, unit: str) -> Spent | None:
    """What a strategy spent; None if the log does not say, or if nothing could be spent."""
    total, share = (curve(run, strategy, PREFIX + name) for name in UNITS[unit])
    if total is None or share is None or total.values.shape != share.values.shape:
        return None
    uniform = total.values / np.maximum(1 - share.values, 1e-9)
    ratio = curve(run, strategy, PREFIX + REALISED_RATIO)
    sums = [float(np.nansum(values)) * run.logging_steps for values in (total.values, uniform)]
    estimate = None if ratio is None else over_blocks(ratio.values)
    return Spent(strategy, unit, sums[0], sums[1], estimate) if sums[1] > 0 else None
