"""The default predictor: beliefs about the reward variance of each prompt, whatever the rewards are.

Binary rewards have one filter, exact, for the probability of success (`viprl.predictors.grid_filter`). Rewards with
more values have two predictions of their variance, which suit different kinds:

    steps      one binary filter for each step between two values (`viprl.predictors.threshold_filter`): format credit,
               partial credit, sums of several functions
    variance   a filter for the variance itself (`viprl.predictors.variance_filter`): scores of a reward model

Their mean is weighted by how well they have predicted the sample variances s2 so far, by the quasi-likelihood of a
Poisson variable, sum_q s2 log v - v, which the true expectation of s2 maximises whatever its distribution. At first the
steps are preferred if rewards have few values (`PREFERENCE`).
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import ClassVar

import numpy as np

from viprl.predictors.base import Batch, Prediction, Predictor
from viprl.predictors.grid_belief import normalised
from viprl.predictors.threshold_filter import ThresholdFilter
from viprl.predictors.variance_filter import VarianceFilter
from viprl.reward_groups import GroupOutcomes, RewardGroups, RewardScale
from viprl.utils.arrays import FloatArray
from viprl.utils.state_checks import array_entry, mapping_entry
from viprl.utils.state_file import State

logger = logging.getLogger(__name__)

PREFERENCE = 4.0
"""Log weight by which the steps are ahead at first, if rewards have few values: they are exact there."""


class RewardFilter(Predictor):
    """Exact Bayesian filters for the reward of each prompt; drift, prior and text are learned online.

    Equations: `viprl.predictors.reward_filter`. Rewards may be of any kind and any scale.

    Args:
        forgetting_factor: share of the log weights of the two predictions that a step keeps.
    """

    features: ClassVar[str | None] = "minilm+length"

    def __init__(self, *, forgetting_factor: float = 0.98) -> None:
        self.forgetting_factor = forgetting_factor
        self._scale = RewardScale()
        self._steps, self._variance = ThresholdFilter(), VarianceFilter()
        self._log_weights = np.zeros(2)

    def predict(self, batch: Batch) -> Prediction:
        prediction, unit = self._steps.predict(batch), self._scale.unit_variance
        variance, rms = prediction.reward_variance, np.asarray(prediction.variance_rms)
        if self._variance.ready:
            weights, (other, other_rms) = normalised(np.exp(self._log_weights)), self._variance.moments(batch)
            variance = weights @ np.array([variance, other])
            rms = np.sqrt(weights @ np.array([rms, other_rms]) ** 2)
        return replace(prediction, reward_variance=variance / unit, variance_rms=rms / unit)

    def observe(self, batch: Batch, successes: FloatArray, rollouts: FloatArray) -> None:
        self._steps.observe_counts(batch, successes, rollouts)

    def observe_outcomes(self, batch: Batch, outcomes: GroupOutcomes) -> None:
        groups, was_binary = outcomes.rewards, self._scale.binary
        if groups is None:
            return self.observe(batch, outcomes.successes, outcomes.rollouts)
        self._scale.observe(groups)
        if not self._scale.binary:
            if was_binary:
                logger.info("rewards have more than two values: their variance is predicted instead of p(1-p)")
                self._log_weights = np.array([0.0, 0.0 if self._scale.levels is None else -PREFERENCE])
            self._weigh(batch, groups)
            self._variance.observe(batch, groups)
        self._steps.observe(batch, groups, self._scale)

    def success_belief(self, batch: Batch) -> tuple[FloatArray, FloatArray] | None:
        return self._steps.success_belief(batch)

    def knows(self, batch: Batch) -> np.ndarray:
        return self._steps.knows(batch)

    def pass_over(self, batch: Batch) -> None:
        self._steps.pass_over(batch)
        self._variance.pass_over(batch)

    def _weigh(self, batch: Batch, groups: RewardGroups) -> None:
        """Update the weights of the two predictions with the sample variances [Q] of a batch."""
        measured = groups.variance
        known = ~np.isnan(measured) & self._variance.knows(batch)  # of a new prompt both know the population alone
        if not known.any():
            return
        unit = self._scale.unit_variance
        both = np.array([self._steps.predict(batch).reward_variance, self._variance.predict(batch)])
        both = np.maximum(both[:, known] / unit, 1e-6)
        evidence = 8 * (measured[known] / unit * np.log(both) - both).sum(axis=1)
        self._log_weights = self.forgetting_factor * self._log_weights + evidence
        self._log_weights -= self._log_weights.max()

    def state_dict(self) -> State:
        return {
            "scale": self._scale.state_dict(),
            "steps": self._steps.state_dict(),
            "variance": self._variance.state_dict(),
            "log_weights": self._log_weights.copy(),
        }

    def load_state_dict(self, state: State) -> None:
        self._scale.load_state_dict(mapping_entry(state, "scale"))
        self._steps.load_state_dict(mapping_entry(state, "steps"))
        self._variance.load_state_dict(mapping_entry(state, "variance"))
        self._log_weights = array_entry(state, "log_weights", 2)
