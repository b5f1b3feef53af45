"""How long the rollouts of each prompt will be, in tokens.

    symbol  meaning                                                                               shape
    len     length of a rollout                                                                   scalar
    h       half of the range in which its reward is: 1 upper (a success), 0 lower or unscorable  scalar
    z       log length of the rollouts of a prompt, in units, on a grid with drift, prior and
            text learned online (`viprl.predictors.grid_belief`)                                  [G]
    e       what the upper half adds to the log length                                            scalar
    s2      variance of the log length within a prompt and half                                   scalar
    k       mean length / exp(z + e h); each step closes a share of the gap                       scalar

    log len = z + e h + noise of variance s2,    predicted length = k E[exp(z)] (p exp(e) + 1 - p)

e, s2 and k are running estimates over all prompts. A half that a prompt never showed is predicted from the other one.
The unit is the geometric mean length of the first batch. After a warm start from a log, which may count characters
where this run counts tokens, it is set once more: so that the first batch is as long as expected.

Likelihoods are no narrower than half of the grid's spacing, so that the mean between two points is kept.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from viprl.predictors.base import Batch
from viprl.predictors.grid_belief import Grid, GridBelief, walk
from viprl.predictors.text_regression import TextMixture
from viprl.utils.arrays import FloatArray
from viprl.utils.numerics import logit
from viprl.utils.state_checks import array_entry, entry, number_entry
from viprl.utils.state_file import State
from viprl.utils.threads import single_threaded

Z = np.linspace(-4.0, 4.0, 61)
"""Fine enough for 8 rollouts: with twice the spacing the widening of likelihoods loses to a running mean."""
WALKS = ((0.0002, 0.0), (0.001, 0.0), (0.005, 0.0), (0.02, -0.05), (0.02, 0.0), (0.02, 0.05), (0.1, 0.0))
"""(variance, trend) of z between two visits."""
GAIN = 0.3
"""Share of the gap in k that a step closes: quickly, because z follows lengths that change as well, if later."""


@functools.cache
def length_grid() -> Grid:
    """The grid of z = log(length/unit), with a prior of variance 1."""
    walks = [walk(Z, *pair, np.ones(len(Z))) for pair in WALKS]
    return Grid(Z, np.array(walks), np.exp(-(Z**2) / 2))


class LengthFilter:
    """Beliefs about the lengths of each prompt's rollouts.

    Args:
        forgetting_factor: share that a step keeps of the sums for e, s2 and k.
    """

    def __init__(self, *, forgetting_factor: float = 0.95) -> None:
        self.forgetting_factor = forgetting_factor
        self.belief = GridBelief(length_grid())
        self.text = TextMixture()
        self._unit = 0.0
        self._unit_expires = False  # whether the next batch may be in another unit
        self._effect = np.zeros(2)  # weighted sum of differences between the halves, sum of weights
        self._noise = np.zeros(2)  # squares within prompts and halves, degrees of freedom
        self._log_k: float | None = None

    @property
    def ready(self) -> bool:
        """Whether it has seen any length."""
        return self._unit > 0

    @property
    def typical(self) -> float:
        """The length at z = 0."""
        return self._unit * self._calibration

    @single_threaded
    def predict(self, batch: Batch, success_probability: FloatArray) -> FloatArray:
        """[Q] expected length of a rollout; 1 before any was seen. `success_probability` [Q] as predicted."""
        if not self.ready:
            return np.ones(len(batch))
        length = self.belief.before(batch.keys, self._scores(batch)) @ np.exp(Z)
        halves = success_probability * np.exp(self._upper_effect) + 1 - success_probability
        return self._unit * self._calibration * length * halves

    @single_threaded
    def observe(self, batch: Batch, lengths: Sequence[FloatArray], halves: Sequence[FloatArray]) -> None:
        """Learn from the lengths [Q][n] of the rollouts of distinct prompts, NaN where unknown, and the half of the
        rewards of each, NaN where unscorable."""
        length = np.concatenate([np.empty(0), *lengths])
        known = ~np.isnan(length)
        if not known.any():
            return
        owner = np.repeat(np.arange(len(lengths)), [len(group) for group in lengths])[known]
        length = np.maximum(length[known], 1.0)
        upper = np.nan_to_num(np.concatenate(halves))[known] == 1
        self._choose_unit(batch, owner, length, upper)
        y = np.log(length / self._unit)
        self._learn_shared(owner, y, upper, len(lengths))
        y = y - self._upper_effect * upper
        n = np.bincount(owner, minlength=len(lengths)).astype(float)
        seen = n > 0
        mean = np.bincount(owner, y, minlength=len(lengths))[seen] / n[seen]
        part, score = batch.select(seen), self._scores(batch.select(seen))
        variance = self._variance / n[seen] + ((Z[1] - Z[0]) / 2) ** 2
        square = (mean[:, None] - Z) ** 2 / variance[:, None]
        self.belief.observe(part.keys, score, np.exp(-(square - square.min(axis=1, keepdims=True)) / 2))
        self._learn_calibration(part, score, length, upper, np.cumsum(seen)[owner] - 1)
        if part.features is not None:
            ratio = np.exp(np.clip(mean, Z[0], Z[-1]))
            self.text.observe(part.features, ratio / (1 + ratio), np.ones(len(mean)), prior_pseudocounts=1.0)

    def expect_other_unit(self) -> None:
        """What was observed so far is of another run, whose lengths may have another unit."""
        self._unit_expires = self.ready

    @single_threaded
    def pass_over(self, batch: Batch) -> None:
        """Let the beliefs of prompts drift that were not sampled."""
        self.belief.pass_over(batch.keys)

    def state_dict(self) -> State:
        sums = {"effect": self._effect.copy(), "noise": self._noise.copy(), "log_k": self._log_k}
        return {
            **self.belief.state_dict(),
            "text": self.text.state_dict(),
            "unit": np.array([self._unit, self._unit_expires], dtype=float),
            **sums,
        }

    def load_state_dict(self, state: State) -> None:
        """Raises StateError for a damaged state."""
        unit = array_entry(state, "unit", 2, least=0)
        effect = array_entry(state, "effect", 2)
        noise = array_entry(state, "noise", 2, least=0)
        log_k = None if entry(state, "log_k") is None else number_entry(state, "log_k", least=-50, most=50)
        self.belief.load_state_dict(state)
        self.text.load_state_dict(entry(state, "text"))
        self._unit, self._unit_expires = float(unit[0]), bool(unit[1])
        self._effect, self._noise, self._log_k = effect, noise, log_k

    @property
    def _upper_effect(self) -> float:
        """e, shrunk: before any data the halves are equally long."""
        return float(self._effect[0] / (self._effect[1] + 1.0))

    @property
    def _variance(self) -> float:
        """s2; .25 before any data."""
        return float((self._noise[0] + 0.25) / (self._noise[1] + 1.0))

    @property
    def _calibration(self) -> float:
        """k; for a log-normal length at first."""
        return math.exp(self._variance / 2 if self._log_k is None else self._log_k)

    def _choose_unit(self, batch: Batch, owner: np.ndarray, length: FloatArray, upper: np.ndarray) -> None:
        """Set the unit if there is none, or if it is that of another run; lengths [M] of the prompts `owner` [M]."""
        if self.ready and not self._unit_expires:
            return
        expected = np.zeros(len(length))
        if self.ready:
            expected = (self.belief.before(batch.keys, self._scores(batch)) @ Z)[owner] + self._upper_effect * upper
        unit = float(np.exp((np.log(length) - expected).mean()))
        self._unit, self._unit_expires = unit, False

    def _learn_shared(self, owner: np.ndarray, y: FloatArray, upper: np.ndarray, prompts: int) -> None:
        """e and s2, from the log lengths y [M] and halves of a batch."""
        cell = 2 * owner + upper
        n = np.bincount(cell, minlength=2 * prompts).astype(float)
        mean = np.bincount(cell, y, minlength=2 * prompts) / np.maximum(n, 1)
        squares = np.bincount(cell, (y - mean[cell]) ** 2, minlength=2 * prompts)
        self._noise = self.forgetting_factor * self._noise + [squares.sum(), np.maximum(n - 1, 0).sum()]
        lower_n, upper_n = n.reshape(-1, 2).T
        lower_mean, upper_mean = mean.reshape(-1, 2).T
        weight = lower_n * upper_n / np.maximum(lower_n + upper_n, 1)  # 1/variance of the difference
        self._effect = self.forgetting_factor * self._effect + [weight @ (upper_mean - lower_mean), weight.sum()]

    def _learn_calibration(
        self, batch: Batch, score: FloatArray, length: FloatArray, upper: np.ndarray, row: np.ndarray
    ) -> None:
        """k, from the lengths [M] of a batch and what is believed of them afterwards; `row` [M] is their prompt."""
        expected = self.belief.before(batch.keys, score) @ np.exp(Z)
        predicted = self._unit * expected[row] * np.exp(self._upper_effect * upper)
        gap = math.log(length.sum() / predicted.sum()) - math.log(self._calibration)
        self._log_k = float(np.clip(math.log(self._calibration) + GAIN * gap, -50, 50))

    def _scores(self, batch: Batch) -> FloatArray:
        """[Q] z that the text suggests: the logit of length/(length + unit)."""
        if batch.features is None:
            return np.zeros(len(batch))
        return logit(self.text.predict(batch.features)).astype(np.float32)
