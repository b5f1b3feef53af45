"""The second moment of the batch gradient, E|G|^2, and what it is made of. It is what Adam normalises by.

A step draws M candidates without replacement from a pool of P prompts. Candidate q is sampled with probability pi_q,
with n_q rollouts, and enters the batch gradient with the Horvitz-Thompson weight 1/pi_q:

    G = (1/M) sum_q (I_q / pi_q) g^_q,        E[g^_q | q] = g_q,   Var[g^_q | q] = V_q(n_q).

Then E G is the mean gradient g of the pool, and with independent inclusions I_q

    E|G|^2 = S + V_b + V_s + V_w                                                                         (1)
    S   = |g|^2                                            signal
    V_b = (m - c) (1/M - 1/P)                              which prompts are candidates
    V_s = (1/M) mean_q (1/pi_q - 1) |g_q|^2                which candidates are sampled; 0 if pi = 1
    V_w = (1/M) mean_q V_q(n_q) / pi_q                     rollouts, given the prompts

where m = mean |g_q|^2 and c = mean g_q . g_q' over pairs of different prompts, so that S = c + (m - c)/P. The sum
S + V_b = c + (m - c)/M does not depend on P: how large the pool is decides only how it is split. Selection of a fixed
size (systematic, pivotal) lowers V_s and V_w a little further, so (1) is an upper bound for it.

Everything is estimated without bias from N prompts drawn at random from the pool (or from all of it, N = P), each with
a law (`viprl.analysis.gradient_variance`) and a gradient estimate of its own rollouts: c from products of estimates of
*different* prompts, which are independent, m and V_q from the U-statistics of the laws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from viprl.analysis.gradient_variance import Numbers, VarianceLaw
from viprl.analysis.statistics import Estimate
from viprl.errors import InputError
from viprl.utils.arrays import FloatArray

if TYPE_CHECKING:
    import torch


def stacked(laws: Sequence[VarianceLaw]) -> VarianceLaw:
    """The laws of N prompts as one, with arrays [N]."""
    return VarianceLaw(*(np.array([getattr(law, name) for law in laws]) for name in ("A", "B", "squared_gradient")))


def gradient_products(gradients: Sequence[torch.Tensor | None], laws: VarianceLaw) -> FloatArray:
    """[N, N] unbiased estimates of g_q . g_q'.

    Args:
        gradients: an unbiased gradient estimate of each prompt, projected, [k]; None for 0.
        laws: of the N prompts. Their `squared_gradient` is the diagonal: the product of an estimate with itself would
            contain its variance.
    """
    import torch

    products = np.zeros((len(gradients), len(gradients)))
    there = [q for q, gradient in enumerate(gradients) if gradient is not None]
    if there:
        vectors = torch.stack([gradient for gradient in gradients if gradient is not None])
        products[np.ix_(there, there)] = (vectors @ vectors.T).double().cpu().numpy()
    np.fill_diagonal(products, laws.squared_gradient)
    return products


@dataclass(frozen=True)
class Terms:
    """What a design contributes to the second moment: means over candidates, numbers or arrays [resamples]."""

    candidates: int
    """M."""
    selection: Numbers
    """mean (1/pi - 1) |g|^2."""
    rollouts: Numbers
    """mean V(n) / pi."""


def terms(laws: VarianceLaw, candidates: int, counts: ArrayLike, inclusion: ArrayLike = 1.0) -> Terms:
    """The terms of a design that treats each of N prompts in its own way, whatever the other candidates are.

    Args:
        laws: of N prompts.
        candidates: M, candidates of a step.
        counts: [N] or a number: rollouts of each prompt if it is sampled, at least 2; need not be whole.
        inclusion: [N] or a number: the probability pi that a candidate is sampled, 0 < pi <= 1.
    """
    pi = np.asarray(inclusion, dtype=np.float64)
    if np.any(~((pi > 0) & (pi <= 1))):
        raise InputError(f"inclusion probabilities are {pi.min()} to {pi.max()}; expected 0 < pi <= 1")
    if candidates < 1:
        raise InputError(f"candidates is {candidates}; expected at least 1")
    selection, rollouts = (1 / pi - 1) * laws.squared_gradient, laws.variance(counts) / pi
    return Terms(candidates, np.float64(np.mean(selection)), np.float64(np.mean(rollouts)))


@dataclass(frozen=True)
class SecondMoment:
    """The parts of E|G|^2, numbers or arrays [resamples]."""

    signal: Numbers
    """S, the squared norm of the mean gradient of the pool."""
    prompts: Numbers
    """V_b, from which prompts are candidates."""
    selection: Numbers
    """V_s, from which candidates are sampled."""
    rollouts: Numbers
    """V_w, from the rollouts, given the prompts."""

    @property
    def total(self) -> Numbers:
        """E|G|^2."""
        return self.signal + self.prompts + self.selection + self.rollouts


def second_moment(
    cross: FloatArray, design: Terms, pool: float = math.inf, weights: FloatArray | None = None
) -> SecondMoment:
    """E|G|^2 of a design, equation (1).

    Args:
        cross: [N, N] products of the prompts' gradients, see `gradient_products`; N >= 2.
        design: its `terms`.
        pool: P, prompts in the pool from which candidates are drawn without replacement; infinite for independent
            draws.
        weights: [N] or [resamples, N] how often each prompt occurs in a resample. Default: once.

    Raises InputError for another shape, and for fewer prompts in the pool than candidates.
    """
    n = len(cross)
    if n < 2 or cross.shape != (n, n):
        raise InputError(f"cross has shape {cross.shape}; expected [N, N] with N >= 2")
    w = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    size, own = w.sum(-1), np.diag(cross)
    # copies of a prompt in a resample are no pair: their product is the diagonal's
    pairs = ((w @ cross) * w).sum(-1) - w**2 @ own
    return split(pairs / (size**2 - (w**2).sum(-1)), w @ own / size, design, pool)


def split(c: Numbers, m: Numbers, design: Terms, pool: float = math.inf) -> SecondMoment:
    """E|G|^2 from its ingredients.

    Args:
        c: mean product g_q . g_q' of the gradients of different prompts.
        m: mean |g_q|^2.
        design, pool: as for `second_moment`.
    """
    M = design.candidates
    if pool < max(M, 2):
        raise InputError(f"the pool has {pool} prompts, but a step has {M} candidates")
    return SecondMoment(
        signal=c + (m - c) / pool,
        prompts=(m - c) * (1 / M - 1 / pool),
        selection=design.selection / M,
        rollouts=design.rollouts / M,
    )


def estimate(value: Any, drawn: Any, n: int) -> Estimate:
    """A value of n prompts with its 95 % percentile interval over resamples; without one if none is finite."""
    finite = np.asarray(drawn)[np.isfinite(drawn)]
    if finite.size == 0:
        return Estimate(float(value), n)
    low, high = np.quantile(finite, [0.025, 0.975])
    return Estimate(float(value), n, None, float(low), float(high))
