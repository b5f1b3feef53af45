"""Rewards with several values, by one exact filter for each step between two of them.

    symbol  meaning                                                               shape
    v_0 < ... < v_K   the values that rewards take                                [K + 1]
    d_t     v_t - v_(t-1), the height of step t                                   [K]
    q_t     P(r >= v_t), the probability that a rollout passes step t             [Q, K]

A reward is v_0 plus the heights of the steps that it passes, and whether it passes one is a binary outcome. So each
step has the filter of binary rewards (`viprl.predictors.grid_filter`), and

    E[r]   = v_0 + sum_t d_t q_t
    Var(r) = sum_t d_t^2 q_t (1 - q_t) + 2 sum_(s<t) d_s d_t q_t (1 - q_s)

because a rollout that passes step t also passes every lower step s. Rewards of two values are one step: this predictor
is then the filter of binary rewards itself. The expectation of q_t (1 - q_t) is exact under the belief; that of
q_t (1 - q_s) treats q_t and q_s as independent.

A new value inside a step splits it. Both halves continue with the history of the whole, which is theirs as well: no
reward had been between. More than `MOST_LEVELS` values are sorted into `BINS` + 1 levels of equal width, and the
variance inside the levels is added, as a mean over all prompts.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from viprl.errors import StateError
from viprl.predictors.base import Batch, Prediction
from viprl.predictors.grid_filter import GridFilter
from viprl.reward_groups import RewardGroups, RewardScale
from viprl.utils.arrays import FloatArray
from viprl.utils.numerics import expit, logit
from viprl.utils.state_checks import array_entry, entry, flag_entry
from viprl.utils.state_file import State

BINS = 6
"""Steps if there are more values than can be told apart."""


class ThresholdFilter:
    """Beliefs about the mean and the variance of each prompt's reward.

    Args:
        forgetting_factor: share of the sums of the variance inside the levels that a step keeps.
    """

    def __init__(self, *, forgetting_factor: float = 0.95) -> None:
        self.forgetting_factor = forgetting_factor
        self._steps: list[tuple[float, float]] = []  # ends of each step, ascending
        self._filters: list[GridFilter] = []
        self._binned = False
        self._inside = np.zeros(2)  # squared distances to the level, rollouts

    def predict(self, batch: Batch) -> Prediction:
        """Mean reward as a position in the range of the rewards, and variance in the unit of rewards."""
        if not self._filters:
            return GridFilter().predict(batch)
        beliefs = [each.predict(batch) for each in self._filters]
        if len(beliefs) == 1 and not self._binned:
            low, high = self._steps[0]
            height = high - low if np.isfinite(high - low) else 1.0
            return replace(
                beliefs[0],
                reward_variance=height**2 * beliefs[0].reward_variance,
                variance_rms=height**2 * np.asarray(beliefs[0].variance_rms),
            )
        heights = np.array([high - low for low, high in self._steps])
        passed = np.array([belief.success_probability for belief in beliefs])
        passed = np.minimum.accumulate(passed, axis=0)  # a higher step is not passed more often
        variance = sum(d**2 * belief.reward_variance for d, belief in zip(heights, beliefs, strict=True))
        for t in range(1, len(heights)):
            below = heights[:t, None] * (1 - passed[:t])
            variance = variance + 2 * heights[t] * passed[t] * below.sum(axis=0)
        variance = variance + self._variance_inside
        share = heights / heights.sum()
        text = np.array([expit(belief.text_score) for belief in beliefs if belief.text_score is not None])
        score = logit(np.clip(share @ text, 1e-4, 1 - 1e-4))
        # relative to its expectation the variance is as uncertain as that of the steps
        of_steps = np.array([belief.reward_variance for belief in beliefs])
        rms = share**2 @ np.array([np.asarray(belief.variance_rms) for belief in beliefs])
        uncertainty = rms / np.maximum(share**2 @ of_steps, 1e-12)
        # at most, because the steps of a prompt rise and fall together; as a position in the range
        sd = share @ np.sqrt(of_steps / np.array([np.asarray(belief.pseudocounts) for belief in beliefs]))
        return Prediction(
            share @ passed,
            variance,
            score,
            variance_rms=variance * uncertainty,
            pseudocounts=variance / heights.sum() ** 2 / np.maximum(sd**2, 1e-12),
        )

    def observe(self, batch: Batch, groups: RewardGroups, scale: RewardScale) -> None:
        """Learn from the rewards of Q distinct prompts; `scale` has seen them."""
        self._set_steps(scale)
        n = groups.rollouts
        for (low, high), each in zip(self._steps, self._filters, strict=True):
            each.observe(batch, groups.above(_threshold(low, high)), n)
        if self._binned:
            levels = np.array([self._steps[0][0], *(high for _, high in self._steps)])
            nearest = np.abs(groups.reward[:, None] - levels).argmin(axis=1)
            inside = (np.clip(groups.reward, levels[0], levels[-1]) - levels[nearest]) ** 2
            self._inside = self.forgetting_factor * self._inside + [inside.sum(), len(inside)]

    def observe_counts(self, batch: Batch, successes: FloatArray, rollouts: FloatArray) -> None:
        """Learn from [Q] successes among [Q] rollouts: a success passes every step, a failure none."""
        if not self._steps:
            self._steps, self._filters = [(-np.inf, np.inf)], [GridFilter()]  # whatever the rewards will be
        for each in self._filters:
            each.observe(batch, successes, rollouts)

    def success_belief(self, batch: Batch) -> tuple[FloatArray, FloatArray] | None:
        """That of the only step; None if there are several."""
        if len(self._filters) > 1:
            return None
        return (self._filters or [GridFilter()])[0].success_belief(batch)

    def knows(self, batch: Batch) -> np.ndarray:
        """[Q] whether each prompt was observed."""
        return self._filters[0].knows(batch) if self._filters else np.zeros(len(batch), dtype=bool)

    def pass_over(self, batch: Batch) -> None:
        """Let the beliefs of prompts drift that were not sampled."""
        for each in self._filters:
            each.pass_over(batch)

    @property
    def _variance_inside(self) -> float:
        return float(self._inside[0] / max(self._inside[1], 1.0))

    def _set_steps(self, scale: RewardScale) -> None:
        """Steps for the values so far; each takes the history of the step that it was part of."""
        if self._binned:
            return
        self._binned = scale.levels is None
        low, high = scale.range
        steps = _steps(np.linspace(low, high, BINS + 1).tolist() if self._binned else scale.levels or ())
        if steps == self._steps:
            return
        filters, used = [], set()
        for step in steps:
            parent = next((i for i, whole in enumerate(self._steps) if _holds(whole, step, self._binned)), None)
            if parent is None:
                filters.append(GridFilter())
            else:
                filters.append(copy.deepcopy(self._filters[parent]) if parent in used else self._filters[parent])
                used.add(parent)
        self._steps, self._filters = steps, filters

    def state_dict(self) -> State:
        return {
            "ends": np.array(self._steps).reshape(-1, 2),
            "filters": [each.state_dict() for each in self._filters],
            "binned": self._binned,
            "inside": self._inside.copy(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises StateError for a damaged state."""
        ends, saved = entry(state, "ends"), entry(state, "filters")
        filters = [GridFilter() for _ in saved]
        if np.shape(ends) != (len(filters), 2) or np.isnan(ends).any():
            raise StateError(f"the entry 'ends' has the shape {np.shape(ends)}; expected ({len(filters)}, 2)")
        for each, of_step in zip(filters, saved, strict=True):
            each.load_state_dict(of_step)
        self._inside, self._binned = array_entry(state, "inside", 2, least=0), flag_entry(state, "binned")
        self._steps, self._filters = [(float(low), float(high)) for low, high in ends], filters


def _steps(levels: Sequence[float]) -> list[tuple[float, float]]:
    """The steps between the levels. Of a single one: above it if it is a failure, below it if it is a success (1)."""
    if len(levels) == 1:
        return [(-np.inf, levels[0])] if levels[0] == 1.0 else [(levels[0], np.inf)]
    return list(pairwise(levels))


def _threshold(low: float, high: float) -> float:
    """A number inside the step."""
    if np.isinf(high):
        return float(np.nextafter(low, np.inf))
    return float(np.nextafter(high, -np.inf)) if np.isinf(low) else (low + high) / 2


def _holds(whole: tuple[float, float], part: tuple[float, float], binned: bool) -> bool:
    """Whether a step holds another, or of bins its threshold."""
    if binned:
        return whole[0] < _threshold(*part) < whole[1]
    return whole[0] <= part[0] and part[1] <= whole[1]
