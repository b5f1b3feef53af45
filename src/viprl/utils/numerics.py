"""Numerical routines that several models share."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from viprl.utils.arrays import FloatArray


def bisect(
    is_below: Callable[[float], bool],
    lower: float,
    upper: float,
    *,
    geometric: bool = False,
    done: Callable[[], bool] = lambda: False,
) -> tuple[float, float]:
    """Narrow an interval around a root until its ends are neighbouring floats, or until `done`.

    Args:
        is_below: whether a number is below the root.
        lower, upper: the interval; both positive if `geometric`.
        geometric: halve the interval of the logarithms.
        done: asked before each step.

    Returns: the ends of the last interval.
    """
    for _ in range(200):
        middle = float(np.sqrt(lower) * np.sqrt(upper)) if geometric else (lower + upper) / 2
        if done() or not lower < middle < upper:
            break
        if is_below(middle):
            lower = middle
        else:
            upper = middle
    return lower, upper


def laplace(
    start: FloatArray,
    precision: FloatArray,
    x: FloatArray,
    loss: Callable[[FloatArray], float],
    derivatives: Callable[[FloatArray], tuple[FloatArray, FloatArray]],
) -> tuple[FloatArray, FloatArray]:
    """Laplace approximation of the posterior of the coefficients b of a generalised linear model.

    Damped Newton steps to the mode of -log posterior = loss(x b) + (b - start)^T precision (b - start) / 2.

    Args:
        start: [d] mean of the Gaussian prior.
        precision: [d, d] of the prior.
        x: [Q, d] regressors.
        loss: from the linear predictor x b [Q] to -log likelihood, convex.
        derivatives: its first and second derivative in each entry of x b, [Q] each.

    Returns: [d] the mode and [d, d] the precision there.
    """
    from scipy.linalg import cho_factor, cho_solve

    def total(b: FloatArray) -> float:
        move = b - start
        return float(loss(x @ b) + 0.5 * move @ (precision @ move))

    def curvature(second: FloatArray) -> FloatArray:
        root = np.sqrt(second)[:, None] * x
        return precision + root.T @ root  # a product with its own transpose: half the work, and exactly symmetric

    mode, value = start, total(start)
    for _ in range(20):
        first, second = derivatives(x @ mode)
        hessian = curvature(second)
        step = cho_solve(cho_factor(hessian, lower=True), x.T @ first + precision @ (mode - start))
        scale = 1.0
        while (new := total(mode - scale * step)) > value and scale > 1e-4:
            scale /= 2  # undamped Newton can cycle for ever on logistic losses
        if value - new < 1e-6:
            return mode, hessian
        mode, value = mode - scale * step, new
    return mode, curvature(derivatives(x @ mode)[1])


def expit(x: FloatArray) -> FloatArray:
    """1/(1 + exp(-x)). SciPy's special functions take a tenth of a second to import, so they are imported here."""
    from scipy import special

    return special.expit(x)


def logit(p: FloatArray) -> FloatArray:
    """log(p/(1 - p))."""
    from scipy import special

    return special.logit(p)


def number(value: object) -> float:
    """`value` as a finite float; NaN for everything else: None, text, booleans, infinity, integers beyond float64."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value) if math.isfinite(value) else math.nan
    except OverflowError:
        return math.nan
