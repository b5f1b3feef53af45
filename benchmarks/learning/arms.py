"""The arms of the comparison: ways to choose prompts and their numbers of rollouts.

Published methods are charged for every rollout that they sample, also for those that they throw away.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from learning.policy import Task
from learning.training import Arm, Rolled, Run, Update
from viprl import VIP, Selection
from viprl.advantages import RewardPrior
from viprl.features.encoders import FeatureChoice
from viprl.predictors.base import Batch, Prediction
from viprl.strategies import Strategy, build_strategy
from viprl.utils.arrays import FloatArray

CERTAIN = 1e6
"""Rollouts that the true success probability is worth as an expectation."""


class Even:
    """`prompts` prompts in the order of the stream, the same number of rollouts for each: what trainers do."""

    def __init__(self, prompts: int = 32) -> None:
        self.prompts = prompts

    def step(self, run: Run) -> Update:
        counts = np.full(self.prompts, run.setting.budget // self.prompts)
        return Update(run.roll(run.draw(self.prompts), counts))


class Planned:
    """VIP plans.

    Args:
        strategy: of VIP; "oracle" is given the true success probabilities.
        prompts: m, prompts that are sampled.
        candidates: M; equal to m for counts alone.
        expected: shrink baselines towards the expected reward.
        unbiased: weight the selected prompts.
        match: spend what it takes for this share of the variance of uniform counts; the run then has as many steps as
            theirs.
        waves: 2 for two waves inside a step where they pay.
        signal: that they assume.
    """

    def __init__(
        self,
        strategy: str | Strategy,
        features: FeatureChoice,
        seed: int,
        *,
        prompts: int = 32,
        candidates: int = 32,
        expected: bool = False,
        unbiased: bool = True,
        match: float | None = None,
        waves: int = 1,
        signal: float = 1.0,
    ) -> None:
        self.vip = VIP(
            strategy=strategy,
            features=features,
            cache=None,
            seed=seed,
            min_rollouts=2,
            max_rollouts=48,
            baseline="expected" if expected else "group",
            spend="budget" if match is None else "match",
            variance_target=1.0 if match is None else match,
            score_signal=signal,
        )
        self.prompts, self.candidates, self.expected = prompts, candidates, expected
        self.unbiased, self.oracle, self.waves = unbiased, strategy == "oracle", waves

    def plan(self, run: Run, offered: Sequence[Task]) -> tuple[Selection, RewardPrior | None]:
        """Who is sampled and how often, and what the baselines are shrunk towards."""
        keys = [task.key for task in offered]
        if self.oracle:
            truth = run.policy.success(offered)
            self.vip.tell_oracle(keys, truth)
        selection = self.vip.select(keys, run.setting.budget, self.prompts, unbiased=self.unbiased, waves=self.waves)
        if not self.expected:
            return selection, None
        if self.oracle:
            return selection, RewardPrior(truth[selection.positions], np.full(self.prompts, CERTAIN))
        return selection, selection.allocation.prior

    def step(self, run: Run) -> Update:
        offered = run.draw(self.candidates)
        selection, prior = self.plan(run, offered)
        plan = selection.allocation
        rolled = run.roll([offered[q] for q in selection.positions], plan.counts)
        if plan.waves is not None:
            plan = self.vip.next(plan, rolled.rewards)
            more = np.flatnonzero(plan.counts).tolist()
            if more:
                rolled = rolled.with_more(run.roll([rolled.tasks[q] for q in more], plan.counts[more]), more)
        self.vip.observe([task.key for task in rolled.tasks], rolled.rewards, logprobs=rolled.logprobs)
        return Update(rolled, selection.weights, prior, None if plan.waves is None else plan)


class Sized(Strategy):
    """The default strategy with another size of gradients for the selection, as an ablation."""

    def __init__(self, size: Callable[[Prediction], FloatArray]) -> None:
        default = build_strategy("default")
        super().__init__(default.predictor, default.rule, weights=default.weights, guard=default.guard, name="default")
        self.size = size

    def gradient_sizes(self, batch: Batch) -> FloatArray:
        return self.size(self.predict(batch))


def unsettled(prediction: Prediction) -> FloatArray:
    """1 for prompts that may be live, 0 for settled ones, whose size is below a quarter of the mean."""
    size = prediction.rms_weight
    return (size > size.mean() / 4).astype(float)


class DynamicSampling:
    """DAPO (arXiv 2503.14476): groups of equal size until `groups` of them are mixed; the others are thrown away."""

    def __init__(self, groups: int, prompts: int = 32, rollouts: int = 4) -> None:
        self.groups, self.prompts, self.rollouts = groups, prompts, rollouts

    def step(self, run: Run) -> Update:
        kept: list[Rolled] = []
        while sum(len(rolled.tasks) for rolled in kept) < self.groups:
            tasks = self.draw(run)
            rolled = run.roll(tasks, np.full(len(tasks), self.rollouts))
            self.learn(rolled)
            kept.append(rolled.only(mixed(rolled)))
            if run.spent >= run.setting.steps * run.setting.budget:
                break
        mixed_tasks = [task for rolled in kept for task in rolled.tasks][: self.groups]
        completions = [group for rolled in kept for group in rolled.completions][: self.groups]
        return Update(Rolled(mixed_tasks, np.full(len(mixed_tasks), self.rollouts), completions))

    def draw(self, run: Run) -> list[Task]:
        """The prompts of one round."""
        return run.draw(self.prompts)

    def learn(self, rolled: Rolled) -> None:
        """For methods that remember outcomes."""


class Greso(DynamicSampling):
    """GRESO (arXiv 2506.02177): dynamic sampling, but a prompt whose last z groups were all right or all wrong is
    skipped with probability 1 - p^z before it is sampled; p adapts separately for easy and hard prompts so that a
    quarter of the sampled groups is of equal rewards (1/12 easy, 1/6 hard)."""

    def __init__(self, groups: int, seed: int) -> None:
        super().__init__(groups)
        self.rng = np.random.default_rng([seed, 9])
        self.streak: dict[str, tuple[int, bool]] = {}
        self.explore = {True: 0.5, False: 0.5}
        self.target = {True: 1 / 12, False: 1 / 6}

    def draw(self, run: Run) -> list[Task]:
        kept: list[Task] = []
        for _ in range(8 * len(run.pool)):
            (task,) = run.draw(1)
            length, right = self.streak.get(task.key, (0, False))
            if self.rng.random() < max(self.explore[right] ** length, 0.01):
                kept.append(task)
            if len(kept) == self.prompts:
                break
        return kept

    def learn(self, rolled: Rolled) -> None:
        shares: Mapping[bool, list[float]] = {True: [], False: []}
        for task, group in zip(rolled.tasks, rolled.rewards, strict=True):
            equal, right = len(set(group)) == 1, group[0] == 1.0
            before = self.streak.get(task.key, (0, right))
            self.streak[task.key] = (before[0] + 1 if before[1] == right else 1, right) if equal else (0, right)
            for kind, share in shares.items():
                share.append(float(equal and right == kind))
        for kind, share in shares.items():
            change = -0.01 if np.mean(share) >= self.target[kind] else 0.01
            self.explore[kind] = float(np.clip(self.explore[kind] + change, 0.05, 0.95))


class Thompson:
    """MoPPS (arXiv 2507.04632): of M candidates the m whose sampled success probability is nearest to 1/2, each with
    the same number of rollouts and the same weight; Beta counts of each prompt, discounted by `decay`."""

    def __init__(self, seed: int, *, prompts: int = 32, candidates: int = 128, decay: float = 0.5) -> None:
        self.rng = np.random.default_rng([seed, 9])
        self.prompts, self.candidates, self.decay = prompts, candidates, decay
        self.counts: dict[str, np.ndarray] = defaultdict(lambda: np.ones(2))

    def step(self, run: Run) -> Update:
        offered = run.draw(self.candidates)
        p = np.array([self.rng.beta(*self.counts[task.key]) for task in offered])
        chosen = np.argsort(np.abs(p - 0.5))[: self.prompts]
        counts = np.full(self.prompts, run.setting.budget // self.prompts)
        rolled = run.roll([offered[q] for q in chosen], counts)
        for task, group in zip(rolled.tasks, rolled.rewards, strict=True):
            seen = np.array([sum(group), len(group) - sum(group)])
            self.counts[task.key] = self.decay * self.counts[task.key] + (1 - self.decay) + seen
        return Update(rolled)


def mixed(rolled: Rolled) -> list[int]:
    """Positions of the groups whose rewards differ."""
    return [q for q, group in enumerate(rolled.rewards) if len(set(group)) > 1]


@dataclass(frozen=True)
class Plan:
    """An arm by name."""

    title: str
    build: Callable[[FeatureChoice, int], Arm]
    """From the features of the pool and the seed."""
    lr: float = 3e-4
    """The best of 1.5e-4, 3e-4 and 5e-4 on seeds 100 to 102, by the mean of both areas; 8e-4 and 1.2e-3 were tried for
    dynamic sampling, 4e-4 for uniform sampling, counts, selection and expected baselines."""
    published: bool = False
    """Whether it is another published method."""
    by_steps: bool = False
    """Whether a run has the steps of uniform sampling and is compared at equal steps, not at equal rollouts."""


def _planned(strategy: str | Callable[[], Strategy], **options: object) -> Callable[[FeatureChoice, int], Arm]:
    def build(features: FeatureChoice, seed: int) -> Arm:
        return Planned(strategy if isinstance(strategy, str) else strategy(), features, seed, **options)  # type: ignore[arg-type]

    return build


def _expected(strategy: str | Callable[[], Strategy], **options: object) -> Callable[[FeatureChoice, int], Arm]:
    return _planned(strategy, prompts=64, candidates=128, expected=True, **options)


ARMS: dict[str, Plan] = {
    "uniform": Plan("uniform, 32 prompts, 4 rollouts each", lambda *_: Even()),
    "counts": Plan("counts (default), 32 prompts", _planned("default")),
    "paper": Plan("counts as published (paper), 32 prompts", _planned("paper")),
    "selection": Plan("selection, 32 of 64 prompts", _planned("default", candidates=64)),
    "selection128": Plan("selection, 32 of 128 prompts", _planned("default", candidates=128)),
    "expected": Plan(
        "selection and expected baselines, 64 of 128 prompts",
        _expected("default"),
        4e-4,
    ),
    "oracle counts": Plan("counts with true p, 32 prompts", _planned("oracle")),
    "oracle selection": Plan("selection with true p, 32 of 128 prompts", _planned("oracle", candidates=128)),
    "oracle expected": Plan(
        "selection and expected baselines with true p, 64 of 128 prompts",
        _expected("oracle"),
        4e-4,
    ),
    "dynamic8": Plan("dynamic sampling (DAPO), 8 groups", lambda *_: DynamicSampling(8), 5e-4, published=True),
    "dynamic32": Plan("dynamic sampling (DAPO), 32 groups", lambda *_: DynamicSampling(32), 1.2e-3, published=True),
    # uniform's curve with fewer rollouts; 1.25: the best of 1, 1.25 and 1.4 on seeds 100 to 107
    "match": Plan("counts for uniform's variance", _planned("default", match=1.0), by_steps=True),
    "match expected": Plan(
        "counts and expected baselines for uniform's variance",
        _planned("default", match=1.0, expected=True),
        by_steps=True,
    ),
    "match selection": Plan(
        "selection, 32 of 64, and expected baselines for 1.25 times uniform's variance",
        _planned("default", match=1.25, expected=True, candidates=64),
        by_steps=True,
    ),
    "match selection 1": Plan(
        "selection, 32 of 64, and expected baselines for uniform's variance",
        _planned("default", match=1.0, expected=True, candidates=64),
        by_steps=True,
    ),
    "oracle match": Plan("counts for uniform's variance, true p", _planned("oracle", match=1.0), by_steps=True),
    # two waves
    "counts waves": Plan("counts, two waves, 32 prompts", _planned("default", waves=2)),
    "selection waves": Plan("selection and two waves, 32 of 64", _planned("default", candidates=64, waves=2)),
    "selection waves 3": Plan(
        "selection and two waves, 32 of 64, signal 3", _planned("default", candidates=64, waves=2, signal=3.0)
    ),
    "selection waves 0.3": Plan(
        "selection and two waves, 32 of 64, signal .3", _planned("default", candidates=64, waves=2, signal=0.3)
    ),
    "counts expected waves": Plan(
        "counts, expected baselines and two waves, 32 prompts", _planned("default", expected=True, waves=2)
    ),
    "expected waves": Plan(
        "selection, expected baselines and two waves, 64 of 128 prompts", _expected("default", waves=2), 4e-4
    ),
    "match waves": Plan(
        "counts and two waves for uniform's variance", _planned("default", match=1.0, waves=2), by_steps=True
    ),
    # further ablations and peers
    "uniform64": Plan("uniform, 64 prompts, 2 rollouts each", lambda *_: Even(64)),
    "uniform64 expected": Plan(
        "uniform with expected baselines, 64 prompts, 2 rollouts each",
        _planned("default", prompts=64, candidates=64, expected=True),
    ),
    "selection64": Plan(
        "selection: 64 of 128 prompts, group baselines", _planned("default", prompts=64, candidates=128)
    ),
    "counts expected": Plan("counts and expected baselines, 32 prompts", _planned("default", expected=True)),
    "biased": Plan(
        "selection without weights, 32 of 64 prompts",
        _planned("default", candidates=64, unbiased=False),
        published=True,
    ),
    "biased expected": Plan(
        "selection without weights, expected baselines, 64 of 128 prompts",
        _expected("default", unbiased=False),
        4e-4,
        published=True,
    ),
    "size mean": Plan(
        "size E[a], 64 of 128 prompts, expected baselines", _expected(lambda: Sized(lambda one: one.weight)), 4e-4
    ),
    "size root": Plan(
        "size E[a]^(1/2), 64 of 128 prompts, expected baselines",
        _expected(lambda: Sized(lambda one: np.sqrt(one.weight))),
        4e-4,
    ),
    "size skip": Plan(
        "settled prompts skipped, 64 of 128 prompts, expected baselines", _expected(lambda: Sized(unsettled)), 4e-4
    ),
    "greso": Plan("GRESO, 8 groups", lambda _, seed: Greso(8, seed), published=True),
    "thompson": Plan("MoPPS, 32 of 128 prompts", lambda _, seed: Thompson(seed), published=True),
}
MAIN = (
    "uniform",
    "counts",
    "paper",
    "selection",
    "expected",
    "oracle counts",
    "oracle expected",
    "dynamic8",
    "match expected",
    "match selection",
)
"""The arms of `make learning`."""
