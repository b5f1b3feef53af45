"""The published predictor: a Gaussian process over prompt embeddings with a recursive mean (arXiv 2602.01601, 5.1).

    symbol  meaning                                                         shape
    x       prompt features                                                 [N, d]
    h       bandwidth, median distance of prompts                           scalar
    K       k(x, x') = exp(-|x - x'|^2 / (2 h^2))                           [N, N]
    m       latent mean; success probability p = sigmoid(m)                 [N]
    B       prompts of the batch
    g_hat   logit of the clipped success rate, clip(k/n, eps, 1 - eps)      [B]
    c       coefficients of the mean, m(x) = m0 + sum_j k(x, x_j) c_j       [N]

After a step every prompt gets m += K_{.B} K_BB^-1 (g_hat - m_B), and the means of the batch itself become g_hat: a
noise-free conditional whose mean is carried over while the covariance is K again at every step. Each step adds K_{.B}
times coefficients, so the sum of all steps is m(x) = m0 + k(x, X) c, and a prompt that arrives later gets exactly the
mean that it would have as part of a pool known in advance (with the same bandwidth).

The paper does not give the following; chosen here: eps = .05, m0 = 0, jitter 1e-4 on the diagonal of K_BB, repeated
prompts of a batch merged before the step, and h from the pool if one is registered, otherwise from the prompts seen so
far (at most `median_of` of them), recomputed while they grow.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from viprl.errors import InputError
from viprl.predictors.base import Batch, Prediction, Predictor
from viprl.predictors.table import RowIndex, grown
from viprl.utils.arrays import FloatArray
from viprl.utils.numerics import expit, logit
from viprl.utils.state_checks import array_entry, entry, flag_entry, keys_entry, number_entry
from viprl.utils.state_file import State


class GaussianProcess(Predictor):
    """The predictor of arXiv 2602.01601: a Gaussian process over prompt embeddings with a recursive mean.

    A step costs O(N Q d) time and O(N d) memory, and O(N^2) memory for distances kept up to `cached` prompts.
    Equations: `viprl.predictors.gaussian_process`.

    Args:
        clip: eps, success rates are clipped to [eps, 1 - eps].
        prior_mean: m0.
        jitter: added to the diagonal of K_BB.
        bandwidth: h; None for the median distance.
        cached: prompts up to which all distances are kept.
        median_of: prompts from which the median distance is computed.
    """

    features: ClassVar[str | None] = "minilm"
    needs_features: ClassVar[bool] = True
    reads_pool: ClassVar[bool] = True

    def __init__(
        self,
        *,
        clip: float = 0.05,
        prior_mean: float = 0.0,
        jitter: float = 1e-4,
        bandwidth: float | None = None,
        cached: int = 4096,
        median_of: int = 1000,
    ) -> None:
        self.clip, self.prior_mean, self.jitter = clip, prior_mean, jitter
        self.bandwidth, self.cached, self.median_of = bandwidth, cached, median_of
        self._fixed = bandwidth is not None
        self._index = RowIndex()
        self._x = np.empty((0, 0))
        self._coefficients = np.empty(0)
        self._mean = np.empty(0)
        self._distances = np.empty((0, 0))  # squared, of the first rows; derived from x, so never saved

    def register(self, batch: Batch) -> None:
        """Prompts known in advance: they set the bandwidth and receive every update."""
        self._add(batch)
        if not self._fixed:
            self.bandwidth, self._fixed = self._median_distance(), True

    def predict(self, batch: Batch) -> Prediction:
        return Prediction.of_points(expit(self._latent_mean(batch)))

    def observe(self, batch: Batch, successes: FloatArray, rollouts: FloatArray) -> None:
        from scipy.linalg import cho_factor, cho_solve

        seen = rollouts > 0
        if not seen.any():
            return
        before = len(self._index)
        self._add(batch)
        if not self._fixed and len(self._index) > before:
            self.bandwidth = self._median_distance()
        b = self._index.find(batch.keys)[seen]
        observed = logit(np.clip(successes[seen] / rollouts[seen], self.clip, 1 - self.clip))  # g_hat
        covariance = self._kernel(self._distances_to(b))  # K_{.B}, [N, B]
        gram = covariance[b] + self.jitter * np.eye(len(b))  # K_BB
        step = cho_solve(cho_factor(gram, lower=True), observed - self._mean[b])
        self._used(self._coefficients)[b] += step
        self._used(self._mean)[:] += covariance @ step
        self._mean[b] = observed

    def state_dict(self) -> State:
        return {
            "keys": list(self._index.keys),
            "x": self._used(self._x).astype(np.float32),
            "coefficients": self._used(self._coefficients).copy(),
            "mean": self._used(self._mean).copy(),
            "bandwidth": self.bandwidth,
            "fixed": self._fixed,
        }

    def load_state_dict(self, state: State) -> None:
        keys = keys_entry(state)
        x = array_entry(state, "x", len(keys), None)
        coefficients, mean = (array_entry(state, name, len(keys)) for name in ("coefficients", "mean"))
        bandwidth, fixed = entry(state, "bandwidth"), flag_entry(state, "fixed")
        self.bandwidth = None if bandwidth is None else number_entry(state, "bandwidth", least=1e-300)
        self._index, self._x, self._coefficients, self._mean = RowIndex(keys), x, coefficients, mean
        self._fixed = fixed
        self._distances = np.empty((0, 0))

    def _latent_mean(self, batch: Batch) -> FloatArray:
        """[Q] m: kept for prompts seen, k(x, X) c for new ones."""
        rows = self._index.find(batch.keys)
        mean = np.full(len(batch), self.prior_mean)
        mean[rows >= 0] = self._mean[rows[rows >= 0]]
        new = rows < 0
        if new.any() and len(self._index) and self.bandwidth is not None:
            x = _features(batch)[new]
            mean[new] += self._kernel(_squared_distances(x, self._used(self._x))) @ self._used(self._coefficients)
        return mean

    def _add(self, batch: Batch) -> None:
        """Give new prompts a row, with the mean that the steps so far imply for them."""
        new = self._index.find(batch.keys) < 0
        if not new.any():
            return
        keys = tuple(key for key, is_new in zip(batch.keys, new, strict=True) if is_new)
        x = _features(batch)[new]
        mean = self._latent_mean(Batch(keys, x))
        before = len(self._index)
        self._index.add(keys)
        after = len(self._index)
        if self._x.size == 0:
            self._x = np.empty((0, x.shape[1]))
        self._x, self._coefficients, self._mean = (
            grown(self._x, after), grown(self._coefficients, after), grown(self._mean, after)
        )  # fmt: skip
        # float32 is what is saved: the same rounding now makes a resumed run identical to an uninterrupted one
        self._x[before:after], self._coefficients[before:after] = x.astype(np.float32), 0.0
        self._mean[before:after] = mean

    def _used(self, array: np.ndarray) -> np.ndarray:
        return array[: len(self._index)]

    def _kernel(self, squared_distances: FloatArray) -> FloatArray:
        bandwidth = self.bandwidth or 1.0
        return np.exp(-squared_distances / (2 * bandwidth**2))

    def _distances_to(self, rows: np.ndarray) -> FloatArray:
        """[N, B] squared distances of all prompts to those of `rows`, from the cache while the pool is small."""
        x = self._used(self._x)
        if len(x) > self.cached:
            self._distances = np.empty((0, 0))
            return _squared_distances(x, x[rows])
        known = len(self._distances)
        if known < len(x):
            fresh = _squared_distances(x, x[known:])  # [N, new]
            self._distances = np.block([[self._distances, fresh[:known]], [fresh.T]]) if known else fresh
        return self._distances[:, rows]

    def _median_distance(self) -> float:
        """Median over the pairs of an even sample of the rows; 1 without two different prompts."""
        from scipy.spatial.distance import pdist

        x = self._used(self._x)
        x = x[np.unique(np.linspace(0, len(x) - 1, min(len(x), self.median_of)).astype(int))]
        median = float(np.median(pdist(x))) if len(x) > 1 else 0.0
        return median if median > 0 else 1.0


def _features(batch: Batch) -> FloatArray:
    if batch.features is None:
        raise InputError("the Gaussian process needs prompt features, but features is None; set features='minilm'")
    return np.asarray(batch.features, dtype=float)


def _squared_distances(x: FloatArray, y: FloatArray) -> FloatArray:
    """[len(x), len(y)] from inner products: one matrix product instead of N Q d differences."""
    gram = x @ y.T
    return np.maximum((x * x).sum(1)[:, None] + (y * y).sum(1)[None] - 2 * gram, 0.0)
