"""Many steps of the default predictor: do rounding errors grow?

usage: python benchmarks/stability.py [--steps 10000] [--batch 16] [--pool 2000]

Prints one JSON object. Two predictors observe the same outcomes: one with beliefs stored in float32, as it is, and one
with beliefs stored in float64. Both compute in float64.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import numpy as np
import stream
from rich.console import Console
from rich.progress import track

from viprl.predictors.base import Batch
from viprl.predictors.grid_filter import GridFilter, Z


def variants() -> dict[str, GridFilter]:
    """The predictor as it is, and with beliefs in float64."""
    default, double = GridFilter(), GridFilter()
    double.belief._belief, double.belief._score = np.empty((0, len(Z))), np.empty(0)
    return {"as it is": default, "beliefs in float64": double}


def health(predictor: GridFilter) -> dict[str, Any]:
    """Errors that must stay small after any number of steps."""
    precision = predictor.text.members[-1]._precision  # the largest prior variance has the worst condition
    assert precision is not None
    values = np.linalg.eigvalsh((precision + precision.T) / 2)
    used = len(predictor.belief)
    belief = predictor.belief._belief[:used].astype(np.float64)
    return {
        "asymmetry": float(np.abs(precision - precision.T).max() / np.abs(precision).max()),
        "smallest_eigenvalue": float(values[0]),
        "condition": float(values[-1] / values[0]),
        "belief_sum_error": float(np.abs(belief.sum(axis=1) - 1).max()),
        "smallest_belief": float(belief.min()),
        "histogram_error": float(np.abs(predictor.belief._histograms.sum(axis=0) - belief.sum(axis=0)).max()),
        "finite": bool(np.isfinite(precision).all() and np.isfinite(belief).all()),
    }


def run(steps: int, batch: int, pool: int) -> dict[str, Any]:
    """Errors after a hundredth, a tenth and all of the steps."""
    rng = np.random.default_rng(0)
    predictors = variants()
    marks = sorted({steps // 100, steps // 10, steps} - {0})
    found: dict[str, Any] = {"steps": steps, "batch": batch, "pool": pool, "at": {}}
    apart = dict.fromkeys(predictors, 0.0)
    least = dict.fromkeys(predictors, 1.0)
    vectors = stream.features().encode(stream.prompts(np.arange(pool))).astype(np.float64)
    for step in track(range(1, steps + 1), "steps", console=Console(file=sys.stderr), transient=True):
        rows = rng.choice(pool, batch, replace=False)
        asked = Batch(tuple(map(str, rows)), vectors[rows])
        k, n = stream.outcomes(rows, rng)
        reference = None
        for name, predictor in predictors.items():
            weight = predictor.predict(asked).reward_variance
            reference = weight if reference is None else reference  # of the first predictor
            apart[name] = max(apart[name], float(np.abs(weight - reference).max()))
            least[name] = min(least[name], float(weight.min()))
            predictor.observe(asked, k, n)
        if step in marks:
            found["at"][step] = {
                name: health(predictor) | {"apart": apart[name], "smallest_weight": least[name]}
                for name, predictor in predictors.items()
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--pool", type=int, default=2000)
    arguments = parser.parse_args()
    print(json.dumps(run(arguments.steps, arguments.batch, arguments.pool)))


if __name__ == "__main__":
    main()
