"""GRESO: how likely a prompt is worth its rollouts, from its run of zero-variance visits (arXiv 2506.02177).

    z       visits in a row, up to the latest, whose rollouts were all right or all wrong
    p_e     base probability to explore, one for easy prompts (the latest visit all right), one for hard (all wrong)
    keep    max(p_e^z, .01): the chance not to be skipped; 1 after a mixed visit and for a prompt never seen

After a step p_easy and p_hard fall by .01 where the share of their kind in the batch reaches its target, otherwise they
rise by .01, within [.05, .95].

The rule draws which prompts are skipped. The predictor passes keep/4 as the reward variance: 1/4 for a prompt that is
surely kept.

Chosen here: both p_e start at .5; the targets are 1/12 easy and 1/6 hard, a quarter of the batch in all. A skipped
prompt still gets L rollouts, which count as a visit; the paper samples other prompts instead. So the share that drives
p_e is the expected one, in which each prompt of the batch has the weight keep. A run continues when all right turns
into all wrong. E[p], used for reports only, is (k + 1/2)/(n + 1) of the latest visit.
"""

from __future__ import annotations

import numpy as np

from viprl.allocation.budget import Budget
from viprl.allocation.exact import exact_counts
from viprl.allocation.rules import Rule
from viprl.predictors.base import Batch, Prediction, Predictor
from viprl.predictors.table import PromptTable
from viprl.utils.arrays import FloatArray, IntArray
from viprl.utils.state_checks import array_entry, entry
from viprl.utils.state_file import State


class ZeroVarianceRuns(Predictor):
    """The chance of each prompt not to be skipped (GRESO, arXiv 2506.02177).

    Equations: `viprl.baselines.greso`.

    Args:
        explore: p_e at the start, of easy and of hard prompts.
        step: change of p_e after each batch.
        targets: shares of easy and of hard prompts at which p_e falls.
    """

    def __init__(
        self, *, explore: float = 0.5, step: float = 0.01, targets: tuple[float, float] = (1 / 12, 1 / 6)
    ) -> None:
        self.step, self.targets = step, np.array(targets, dtype=float)
        self.explore = np.full(2, explore, dtype=float)
        """[2] p_e of easy and of hard prompts."""
        self._visits = PromptTable([0.0, 0.5])  # z, E[p] from the latest visit

    def predict(self, batch: Batch) -> Prediction:
        run, p = self._visits.read(batch.keys).T
        return Prediction(p, self._keep(run, p) / 4)

    def observe(self, batch: Batch, successes: FloatArray, rollouts: FloatArray) -> None:
        seen = rollouts > 0
        if not seen.any():
            return
        run, p = self._visits.read(batch.keys).T
        kinds = np.array([successes == rollouts, successes == 0]) & seen  # easy, hard
        keep = self._keep(run, p)
        shares = kinds @ keep / keep[seen].sum()
        self.explore = np.clip(self.explore + np.where(shares >= self.targets, -self.step, self.step), 0.05, 0.95)
        run = np.where(kinds.any(axis=0), run + 1, 0)
        self._visits.write(batch.keys, np.column_stack([run, (successes + 0.5) / (rollouts + 1)]), seen)

    def _keep(self, run: FloatArray, p: FloatArray) -> FloatArray:
        easy, hard = self.explore
        return np.maximum(np.where(p > 0.5, easy, hard) ** run, 0.01)

    def state_dict(self) -> State:
        return {"visits": self._visits.state_dict(), "explore": self.explore.copy()}

    def load_state_dict(self, state: State) -> None:
        explore = array_entry(state, "explore", 2, least=0, most=1)
        self._visits.load_state_dict(entry(state, "visits"))
        self.explore = explore


class SkipAndRedistribute(Rule):
    """Each prompt is kept with probability 4 E[p(1-p)]; the rollouts of the others go to those that are kept.

    Chosen here: skipped prompts get L, kept ones share the rest evenly up to U; what they cannot take goes evenly to
    the skipped ones, and all share evenly if none is kept.
    """

    def __call__(self, prediction: Prediction, budget: Budget, rng: np.random.Generator) -> IntArray:
        kept = rng.random(len(prediction.reward_variance)) < 4 * prediction.reward_variance
        return exact_counts(kept.astype(float), budget, rng)
