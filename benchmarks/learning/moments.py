"""The second moment of the batch gradient along a training run, and what it is made of.

    symbol  meaning                                                                        shape
    p, g    success probability and gradient of each prompt of the pool                    [P]
    z1, z0  mean squared score |Z|^2 of the right and of the wrong completions             [P]
    b, v    mean and variance of the baseline of a rollout with n - 1 others               [P]
    c       1/(kappa + n - 1), the share of another rollout in it (`viprl.shrinkage`)      [P]

    E|G|^2 = S + V_b + V_s + V_w    (`viprl.analysis.second_moment`)
    V(n)   = (p z1 ((1-b)^2 + v) + (1-p) z0 (b^2 + v) - |g|^2)/n + (n-1)/n c^2 |g|^2

is the variance of the gradient of a prompt from n rollouts; kappa = 0 gives A/n + B/(n(n-1)). p, |g|^2 and z1 are
exact, z0 comes from sampled completions. R is E|G|^2 of an arm over that of uniform sampling, at the same parameters.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch

from learning.arms import Planned
from learning.training import Run
from viprl.advantages import RewardPrior
from viprl.utils.arrays import FloatArray, IntArray

UNIFORM = 32
"""Prompts of a step of uniform sampling."""


@dataclass(frozen=True)
class Moments:
    """At one step of a run."""

    step: int
    signal: float
    """S, the squared gradient of the mean success of the pool."""
    prompts: float
    """V_b of uniform sampling, from which prompts are in the batch."""
    rollouts: float
    """V_w of uniform sampling."""
    ratio: float
    """R."""


@dataclass(frozen=True)
class Laws:
    """Of each prompt of the pool."""

    p: FloatArray
    g2: FloatArray
    z1: FloatArray
    z0: FloatArray
    signal: float

    def variance(self, q: IntArray, n: IntArray, prior: RewardPrior | None = None) -> FloatArray:
        """V(n) of the prompts `q`."""
        p, kappa = self.p[q], np.zeros(len(q)) if prior is None else prior.rollouts
        c = 1 / (kappa + n - 1)
        b = p if prior is None else c * (kappa * prior.mean + (n - 1) * p)
        v = c**2 * (n - 1) * p * (1 - p)
        square = p * self.z1[q] * ((1 - b) ** 2 + v) + (1 - p) * self.z0[q] * (b**2 + v)
        return (square - self.g2[q]) / n + (n - 1) / n * c**2 * self.g2[q]


def moments(run: Run, arm: Planned, step: int, plans: int = 40) -> Moments:
    """Measure at the present parameters; neither the run nor the arm changes."""
    laws, pool, rng = measured_laws(run), len(run.pool), np.random.default_rng([run.seed, step])
    everyone, each = np.arange(pool), np.full(pool, run.setting.budget // UNIFORM)
    between = laws.g2.mean() - laws.signal
    prompts = between * (1 / UNIFORM - 1 / pool)
    rollouts = float(laws.variance(everyone, each).mean() / UNIFORM)
    totals = []
    for _ in range(plans):
        offered = rng.choice(pool, arm.candidates, replace=False)
        selection, prior = copy.deepcopy(arm).plan(run, [run.pool[q] for q in offered])
        pi, taken, n = selection.inclusion, selection.positions, selection.allocation.counts
        selected = ((1 / pi - 1) * laws.g2[offered]).sum() / arm.candidates**2
        own = (laws.variance(offered[taken], n, prior) / pi[taken] ** 2).sum() / arm.candidates**2
        totals.append(between * (1 / arm.candidates - 1 / pool) + selected + own)
    ratio = (laws.signal + np.mean(totals)) / (laws.signal + prompts + rollouts)
    return Moments(step, laws.signal, float(prompts), rollouts, float(ratio))


def measured_laws(run: Run, rollouts: int = 32, most: int = 4) -> Laws:
    """The laws of all prompts; z0 from the `most` frequent wrong completions among `rollouts`."""
    rng = torch.Generator().manual_seed(run.seed)
    p, size = run.policy.success(run.pool), len(run.pool)
    drawn = run.policy.sample([task.prompt for task in run.pool], np.full(size, rollouts), rng)
    z1, z0, total = np.zeros(size), np.full(size, np.nan), torch.zeros(())

    def score(prompt: tuple[int, ...], completion: tuple[int, ...]) -> torch.Tensor:
        logp = run.policy.logprobs([prompt], [completion])[0]
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(logp, run.policy.parameters)])

    for q, (task, group) in enumerate(zip(run.pool, drawn, strict=True)):
        right = score(task.prompt, task.solution)
        z1[q], total = float(right @ right), total + p[q] * right / size
        wrong = sorted((one for one in group if one.tokens != task.solution), key=lambda one: -one.times)[:most]
        if wrong:
            squares = [float(z @ z) for z in (score(task.prompt, one.tokens) for one in wrong)]
            z0[q] = np.average(squares, weights=[one.times for one in wrong])
    z0 = np.where(np.isnan(z0), np.nanmean(z0), z0)
    return Laws(p, p**2 * z1, z1, z0, float(total @ total))
