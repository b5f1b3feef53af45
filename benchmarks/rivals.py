"""Prediction and learning with the default predictor and with Gaussian processes, on the same embeddings.

usage: python benchmarks/rivals.py POOL [--steps 5]

Prints one JSON object: milliseconds to predict 512 prompts and learn from their outcomes, after POOL prompts have been
seen once. Allocation, texts and files are left out. The Gaussian processes have a fixed kernel and a fixed noise;
fitting them would add to the time.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Callable
from functools import partial

import numpy as np
import stream
from measure import timed
from scipy.special import logit

from viprl.predictors.base import Batch, Predictor
from viprl.predictors.gaussian_process import GaussianProcess
from viprl.predictors.grid_filter import GridFilter

Q = 512
LIMITS = {"default": 10**9, "paper": 20_000, "scikit-learn": 2_000, "GPyTorch": 2_000}
"""Largest pools. Above, a step takes minutes or does not fit in memory."""

Step = Callable[[], None]


def data(numbers: np.ndarray, rng: np.random.Generator) -> tuple[Batch, np.ndarray, np.ndarray]:
    """A batch of prompts with random successes and rollouts."""
    keys = tuple(map(str, numbers))
    vectors = stream.features().encode(stream.prompts(numbers)).astype(np.float64)
    return Batch(keys, vectors), *stream.outcomes(numbers, rng)


def ours(build: Callable[[], Predictor], pool: int, rng: np.random.Generator) -> Step:
    """A step of a predictor of this package that has seen the pool."""
    predictor = build()
    for start in range(0, pool, 2048):
        predictor.observe(*data(np.arange(start, min(start + 2048, pool)), rng))
    batches = [data(rng.choice(pool, min(Q, pool), replace=False), rng) for _ in range(4)]
    turn = iter(range(10**9))

    def step() -> None:
        batch, k, n = batches[next(turn) % len(batches)]
        predictor.predict(batch)
        predictor.observe(batch, k, n)

    return step


def targets(k: np.ndarray, n: np.ndarray) -> np.ndarray:
    """What the Gaussian processes regress on."""
    return logit(np.clip(k / n, 0.05, 0.95))


def sklearn_refitted(pool: int, rng: np.random.Generator) -> Step:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF

    batch, k, n = data(np.arange(pool), rng)
    asked, _, _ = data(rng.choice(pool, min(Q, pool), replace=False), rng)
    process = partial(GaussianProcessRegressor, RBF(1.0), alpha=1e-2, optimizer=None)

    def step() -> None:
        process().fit(batch.features, targets(k, n)).predict(asked.features)

    return step


def gpytorch_steps(pool: int, rng: np.random.Generator) -> dict[str, Step]:
    import gpytorch
    import torch

    class Process(gpytorch.models.ExactGP):
        def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
            likelihood = gpytorch.likelihoods.GaussianLikelihood()
            super().__init__(x, y, likelihood)
            self.mean_module = gpytorch.means.ConstantMean()
            self.covar_module = gpytorch.kernels.RBFKernel()
            likelihood.noise, self.covar_module.lengthscale = 1e-2, 1.0
            self.double().eval()

        def forward(self, x: torch.Tensor) -> gpytorch.distributions.MultivariateNormal:
            return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))

    def tensors(numbers: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        batch, k, n = data(numbers, rng)
        return torch.tensor(batch.features), torch.tensor(targets(k, n))

    x, y = tensors(np.arange(pool))
    asked, seen = tensors(rng.choice(pool, min(Q, pool), replace=False))
    warm = Process(x, y)

    def refitted() -> None:
        with torch.no_grad(), gpytorch.settings.fast_pred_var():
            _ = Process(x, y)(asked).variance

    def updated() -> None:
        """Always from the same state. In a run, the state would grow by Q rows in each step."""
        with torch.no_grad(), gpytorch.settings.fast_pred_var():
            _ = warm(asked).variance
            fresh = asked + 1e-3 * torch.randn_like(asked)  # new prompts, because equal rows make the update singular
            _ = warm.get_fantasy_model(fresh, seen)

    updated()  # builds the caches that the update uses
    return {"GPyTorch, online update": updated, "GPyTorch, refitted": refitted}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", type=int)
    parser.add_argument("--steps", type=int, default=5)
    arguments = parser.parse_args()
    pool, rng = arguments.pool, np.random.default_rng(0)
    found: dict[str, object] = {}
    steps: dict[str, Step] = {"default": ours(GridFilter, pool, rng)}
    if pool <= LIMITS["paper"]:
        steps["paper, dense recursion"] = ours(GaussianProcess, pool, rng)
    if pool <= LIMITS["scikit-learn"]:
        if importlib.util.find_spec("sklearn"):
            steps["scikit-learn, refitted"] = sklearn_refitted(pool, rng)
        else:
            found["scikit-learn, refitted"] = "not installed: pip install scikit-learn"
    if pool <= LIMITS["GPyTorch"]:
        if importlib.util.find_spec("gpytorch"):
            steps |= gpytorch_steps(pool, rng)
        else:
            found["GPyTorch"] = "not installed: pip install gpytorch"
    for name, step in steps.items():
        step()
        found[name] = timed(step, arguments.steps * (5 if name == "default" else 1)).summary()
    print(json.dumps({"pool": pool, "rivals": found}))


if __name__ == "__main__":
    main()
