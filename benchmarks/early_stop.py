"""An early stop of long rollouts: tokens saved, and what that costs in bias and variance of the gradient.

    python benchmarks/early_stop.py

DUET (arXiv 2605.08441) aborts a rollout that has not answered after K tokens, except with probability e. What is left
of an aborted rollout has advantage 0. Estimators of a prompt's gradient from n = 8 rollouts, z the score of a
rollout:

    full          RLOO, nothing is stopped
    aborted 0     RLOO with aborted rollouts as failures, whose advantages are 0
    weighted      the same, with weights 1/e for rollouts that were kept beyond K, in the gradient and in the baseline:
                  sum_{i != j} w_i w_j (r_i - r_j) z_i / (n (n-1)), which is unbiased for any K and e

z = sqrt(length) noise + (r - p) mu, with E[(r - p) z] = p(1-p) mu. Lengths are log-normal (sd .4 of the log); failures
are longer by a factor. K is a quantile of the lengths of the prompt. For each estimator: tokens, bias relative to the
gradient b, variance, and variance times tokens over (1 + b)^2, all but the bias relative to `full`; below 1 it pays.
"""

from __future__ import annotations

import argparse

import numpy as np

from viprl.utils.arrays import FloatArray

ROLLOUTS, MU = 8, 0.5


def rloo(r: FloatArray, z: FloatArray) -> FloatArray:
    """[M] gradient estimates from rewards and scores [M, n]."""
    n = r.shape[1]
    return ((r - r.mean(axis=1, keepdims=True)) * z).sum(axis=1) / (n - 1)


def weighted(r: FloatArray, z: FloatArray, w: FloatArray) -> FloatArray:
    """[M] the same over pairs of rollouts with weights w [M, n]."""
    n = r.shape[1]
    others = w.sum(axis=1, keepdims=True) - w, (w * r).sum(axis=1, keepdims=True) - w * r
    return (w * (r * others[0] - others[1]) * z).sum(axis=1) / (n * (n - 1))


def case(p: float, longer: float, quantile: float, keep: float, groups: int, seed: int) -> dict[str, list[float]]:
    """Tokens, bias and variance of each estimator."""
    rng = np.random.default_rng(seed)
    shape = (groups, ROLLOUTS)
    r = (rng.random(shape) < p).astype(float)
    length = np.where(r > 0, 1.0, longer) * rng.lognormal(0, 0.4, shape)
    z = np.sqrt(length / length.mean()) * rng.normal(size=shape) + (r - p) * MU
    k = float(np.quantile(length, quantile))
    late, kept = length > k, rng.random(shape) < keep
    aborted = late & ~kept
    tokens = float(np.where(aborted, k, length).mean() / length.mean())
    seen = np.where(aborted, 0.0, r)
    values = {
        "full": (rloo(r, z), 1.0),
        "aborted 0": (rloo(seen, np.where(aborted, 0.0, z)), tokens),
        "weighted": (weighted(r, z, np.where(late, kept / keep, 1.0)), tokens),
    }
    truth, reference = p * (1 - p) * MU, float(np.var(values["full"][0]))
    return {
        name: [cost, float(found.mean() / truth - 1), float(np.var(found)) / reference]
        for name, (found, cost) in values.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(
        "failures  p    K at  e      | aborted 0: tokens  bias  variance  pays | weighted: tokens  bias  variance  pays"
    )
    for longer in (1.0, 1.3, 3.0):
        for p in (0.1, 0.5):
            for quantile in (0.5, 0.75, 0.9):
                for keep in (0.05, 0.5):
                    found = case(p, longer, quantile, keep, options.groups, options.seed)
                    cells = [
                        f"{t:7.2f} {b:+7.2f} {v:8.2f} {v * t / (1 + b) ** 2:6.2f}"
                        for t, b, v in (found[name] for name in ("aborted 0", "weighted"))
                    ]
                    print(f"x{longer:<6} {p:4} {quantile:6} {keep:5}  | {cells[0]}   | {cells[1]}")


if __name__ == "__main__":
    main()
