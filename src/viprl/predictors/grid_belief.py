"""Beliefs about one latent number of each prompt, on a grid, with drift, prior and text learned online.

    symbol  meaning                                                                        shape
    z       grid of the latent number                                                       [G]
    b       belief about the z of a prompt, given all its outcomes                          [N, G]
    T_c     candidate transitions: how z moves between two visits                           [c, G, G]
    w       weight of each candidate: how well it has predicted the outcomes                [c]
    t       text score of a prompt: what its text alone suggests                            [N]
    h       mean belief of the prompts at each of R levels of t                             [R, G]

At a visit with the likelihood l(z) of what was seen:

    drift       b <- sum_c w_c b T_c
    likelihood  b <- b l, normalised

The prior of a new prompt is the mean belief of the prompts with a similar text score, h(t), shrunk towards the mean
belief of all prompts. An uninformative text therefore falls back to the population's prior, and an informative one is
calibrated by the outcomes of similar prompts. When the text score of a prompt changes later, because similar prompts
were observed, its belief is multiplied by h(t_new)/h(t_old): the old prior is replaced by the new one.

A step costs O(Q G^2 c). Memory is N (G + 1) numbers of 4 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from viprl.errors import StateError
from viprl.predictors.table import RowIndex, grown
from viprl.utils.arrays import FloatArray
from viprl.utils.state_checks import array_entry, keys_entry
from viprl.utils.state_file import State

SCORES = np.linspace(-5.0, 5.0, 9)
"""Levels of the text score; h is interpolated between two of them."""


@dataclass(frozen=True)
class Grid:
    """What a belief is about: the grid, how its numbers may move, and what is believed before any data."""

    z: FloatArray
    """[G] equidistant."""
    walks: FloatArray
    """[c, G, G] candidate transitions of one visit, see `walk`."""
    start: FloatArray
    """[G] the prior before any data, of any sum."""


class GridBelief:
    """Beliefs of prompts by key.

    Args:
        grid: what the beliefs are about.
        forgetting_factor: share of the log weights of the transitions that a step keeps.
        prior_pseudocounts: prompts that `grid.start` counts as.
        shrinkage: prompts that the population counts as at each level of the text score.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        forgetting_factor: float = 0.95,
        prior_pseudocounts: float = 20.0,
        shrinkage: float = 2.0,
    ) -> None:
        self.grid, self.forgetting_factor, self.shrinkage = grid, forgetting_factor, shrinkage
        self._start = prior_pseudocounts * grid.start / grid.start.sum()
        self._log_weights = np.zeros(len(grid.walks))
        self._index = RowIndex()
        self._belief = np.empty((0, len(grid.z)), dtype=np.float32)
        self._score = np.empty(0, dtype=np.float32)
        self._histograms = np.zeros((len(SCORES), len(grid.z)))

    def __len__(self) -> int:
        return len(self._index)

    def knows(self, keys: tuple[str, ...]) -> np.ndarray:
        """[Q] whether each prompt was observed."""
        return self._index.find(keys) >= 0

    def before(self, keys: tuple[str, ...], score: FloatArray) -> FloatArray:
        """[Q, G] beliefs now, before anything is seen of this visit; `score` is [Q]."""
        rows = self._index.find(keys)
        return self._drifted(self._at_last_visit(rows, score), rows >= 0)

    def observe(self, keys: tuple[str, ...], score: FloatArray, likelihood: FloatArray) -> None:
        """Learn from the likelihood [Q, G] of what was seen of Q distinct prompts with the scores [Q]."""
        rows = self._index.find(keys)
        known = rows >= 0
        before = self._at_last_visit(rows, score)
        # the floor keeps every z possible
        belief = normalised(np.maximum(self._drifted(before, known), 1e-30) * likelihood)
        self._weigh_walks(before[known], likelihood[known])
        self._histograms -= _membership(self._score[rows[known]]).T @ self._belief[rows[known]]
        rows = self._index.add(keys)
        self._belief, self._score = grown(self._belief, len(self._index)), grown(self._score, len(self._index))
        self._belief[rows], self._score[rows] = belief, score
        self._histograms += _membership(self._score[rows]).T @ self._belief[rows]
        np.maximum(self._histograms, 0.0, out=self._histograms)  # subtracting what was added can round below 0

    def pass_over(self, keys: tuple[str, ...]) -> None:
        """Let the beliefs of Q distinct prompts drift, as between two visits. Prompts that are not known have none."""
        rows = self._index.find(keys)
        rows = rows[rows >= 0]
        before = self._belief[rows]
        self._belief[rows] = self._drifted(before, np.ones(len(rows), dtype=bool))
        self._histograms += _membership(self._score[rows]).T @ (self._belief[rows] - before)
        np.maximum(self._histograms, 0.0, out=self._histograms)

    def prior(self, score: FloatArray) -> FloatArray:
        """[Q, G] mean belief of the prompts with similar scores."""
        population = normalised(self._start + self._histograms.sum(axis=0))
        return _membership(score) @ normalised(self._histograms + self.shrinkage * population)

    def state_dict(self) -> State:
        used = len(self._index)
        return {
            "keys": list(self._index.keys),
            "belief": self._belief[:used].copy(),
            "score": self._score[:used].copy(),
            "histograms": self._histograms.copy(),
            "log_weights": self._log_weights.copy(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        keys, columns = keys_entry(state), len(self.grid.z)
        belief = array_entry(state, "belief", len(keys), columns, least=0, dtype=np.float32)
        if not belief.any(axis=1).all():
            raise StateError("the entry 'belief' has a row without any probability")
        score = array_entry(state, "score", len(keys), dtype=np.float32)
        histograms = array_entry(state, "histograms", len(SCORES), columns, least=0)
        log_weights = array_entry(state, "log_weights", len(self.grid.walks))
        self._index, self._belief, self._score = RowIndex(keys), belief, score
        self._histograms, self._log_weights = histograms, log_weights

    def _at_last_visit(self, rows: np.ndarray, score: FloatArray) -> FloatArray:
        """[Q, G] belief at the last visit, with the prior that the text suggests now; for new prompts that prior."""
        known = rows >= 0
        belief = self.prior(score)
        if known.any():
            exchanged = self._belief[rows[known]] * belief[known] / self.prior(self._score[rows[known]])
            belief[known] = normalised(exchanged)
        return belief

    def _drifted(self, belief: FloatArray, known: np.ndarray) -> FloatArray:
        """[Q, G] belief after the drift since the last visit; new prompts have not drifted."""
        weights = normalised(np.exp(self._log_weights - self._log_weights.max()))
        return np.where(known[:, None], belief @ np.tensordot(weights, self.grid.walks, axes=1), belief)

    def _weigh_walks(self, belief: FloatArray, likelihood: FloatArray) -> None:
        """Update the weight of each candidate with its likelihood for the outcomes of prompts seen before."""
        moved = np.tensordot(belief, self.grid.walks, axes=(1, 1))  # [Q, c, G], one matrix product
        predicted = np.einsum("qcg,qg->cq", moved, likelihood)
        self._log_weights = self.forgetting_factor * self._log_weights + np.log(np.maximum(predicted, 1e-300)).sum(
            axis=1
        )
        self._log_weights -= self._log_weights.max()


def walk(z: FloatArray, variance: float, trend: float, rate: FloatArray) -> FloatArray:
    """[G, G] the transition of one visit: steps to neighbouring points of mean `trend` and variance `variance`, both
    times `rate` [G]. If the variance is too small for the trend, no step goes back and half of the trend remains."""
    gap = z[1] - z[0]
    steps = max(1, int(np.ceil((variance / gap**2 + abs(trend) / gap) / 0.9)))
    spread, shift = rate * variance / steps / (2 * gap**2), rate * trend / steps / (2 * gap)
    up, down = np.maximum(spread + shift, 0.0), np.maximum(spread - shift, 0.0)
    single = np.diag(up[:-1], 1) + np.diag(down[1:], -1)
    single += np.diag(1 - single.sum(axis=1))
    return np.linalg.matrix_power(single, steps)


def normalised(weights: FloatArray) -> FloatArray:
    """Rows of sum 1."""
    return weights / weights.sum(axis=-1, keepdims=True)


def _membership(score: FloatArray) -> FloatArray:
    """[Q, R] weights of the two levels around each score, sum 1."""
    gap = SCORES[1] - SCORES[0]
    inside = np.clip(np.asarray(score, dtype=float), SCORES[0], SCORES[-1])
    return np.maximum(1 - np.abs(inside[:, None] - SCORES) / gap, 0.0)
