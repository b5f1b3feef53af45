"""The batches of tinker-cookbook with planned group sizes, and the rewards that come back from them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tinker_cookbook.checkpoint_utils import get_last_checkpoint, load_checkpoints_file
from tinker_cookbook.rl.rollouts import get_rollout_executor
from tinker_cookbook.rl.types import EnvGroupBuilder, RLDataset

from viprl.allocation.waves.estimator import FirstLook
from viprl.engines.planned_batch import PlannedBatch, batch_metrics, both_waves, plan_batch
from viprl.engines.run_lines import RunSummary, announce, start_line
from viprl.engines.success import SuccessCriterion
from viprl.engines.tinker.group_size import group_size, resized
from viprl.engines.tinker.shaped_rewards import (
    pooled_totals,
    shaped_totals,
    trajectory_length,
    trajectory_logprob,
)
from viprl.engines.tinker.two_waves import FirstWaves, Rewards
from viprl.engines.vip_builder import load_state
from viprl.errors import InputError
from viprl.metrics import PREFIX, ROLLOUT_REWARD, ROLLOUTS, logged
from viprl.outcomes import scorable
from viprl.prompts import Prompt
from viprl.settings import EngineSettings
from viprl.utils.arrays import FloatArray
from viprl.utils.files import writing
from viprl.utils.words import count
from viprl.vip import VIP

logger = logging.getLogger(__name__)

STATE_FOLDER = "vip_state"
"""In log_path: one file for each step of checkpoints.jsonl and for the last two steps."""

Given = tuple[float, dict[str, Any]]
"""What a group builder returns for a rollout: its final reward and its metrics."""


def question(builder: Any) -> Prompt:
    """The question of a `ProblemGroupBuilder`, from an environment made for this purpose."""
    if not hasattr(builder, "env_thunk"):
        raise InputError(
            f"the prompt of a {type(builder).__name__} is unknown; pass prompt=, a function from the builder to it"
        )
    return builder.env_thunk().get_question()


@dataclasses.dataclass(frozen=True, eq=False)
class PlannedGroups(PlannedBatch):
    """The plan of one batch, and the groups that have finished so far."""

    budget: int
    """C; the counts sum to it, or to less where options of VIP save rollouts."""
    values: dict[int, list[float | None]] = dataclasses.field(default_factory=dict)
    """Group -> value of each rollout."""
    logprobs: dict[int, list[float | None]] = dataclasses.field(default_factory=dict)
    lengths: dict[int, list[float | None]] = dataclasses.field(default_factory=dict)
    started: set[int] = dataclasses.field(default_factory=set)
    """Groups whose environments were made."""
    rewards: dict[int, list[float | None]] = dataclasses.field(default_factory=dict)
    """Group -> total reward of each rollout, NaN where unscorable."""
    metrics: set[str] = dataclasses.field(default_factory=set)
    """Names of the metrics of the rollouts, collected if `success` names one."""

    def lists(self, finished: dict[int, list[float | None]]) -> list[list[float | None]]:
        """One list for each prompt, of the planned length; None for rollouts that failed."""
        groups = [finished.get(q, []) for q in range(len(self.counts))]
        return [[*group, *[None] * (n - len(group))] for group, n in zip(groups, self.counts, strict=True)]

    def look(self, q: int) -> tuple[FirstLook, float]:
        """What the first wave of group q showed, and the reward above which a rollout counts as marked."""
        waves = None if self.waves is None else self.waves.waves
        if waves is None or waves.labels is None:
            raise InputError(
                "a group of a step with two waves was graded before its second wave was planned; run the config that "
                "with_vip returns, whose rollout_error_tolerance samples the second wave"
            )
        return waves.labels[q], waves.threshold


class VIPDataset(RLDataset):
    """The batches of `inner` with group sizes that `self.vip` plans. Continues from the last checkpoint of `log_path`.

    With k `candidates` a step takes the next k batches of `inner`, which starts again after its last, and samples as
    many groups as one of them has, of the same average size. The others are not in the batch.

    Args:
        inner: the dataset whose group sizes become the average.
        vip: plans and learns.
        settings: the options it was built from; the estimator is not "auto".
        success: which reward decides whether a rollout succeeded.
        log_path: where tinker-cookbook writes its checkpoints.
        prompt: from a group builder to its prompt.

    Raises InputError if `inner` has fewer than k batches.
    """

    def __init__(
        self,
        inner: RLDataset,
        vip: VIP,
        settings: EngineSettings,
        success: SuccessCriterion,
        log_path: str | Path,
        prompt: Callable[[Any], Prompt] = question,
    ) -> None:
        self.inner, self.vip, self.settings, self.log_path, self.prompt = inner, vip, settings, str(log_path), prompt
        if settings.candidates > max(1, len(inner)):
            raise InputError(
                f"candidates is {settings.candidates}, but the dataset has {count(len(inner), 'batch', 'batches')}; "
                "lower candidates, or make the batches smaller"
            )
        self._success = success
        self._batch: PlannedGroups | None = None
        record = get_last_checkpoint(self.log_path)
        self.step = 0 if record is None else record.batch or 0
        """Batches that have been observed."""
        if self.step:
            load_state(self.vip, self._file(self.step))
        self._metrics: dict[str, float] = {}
        self._summary = RunSummary(self.step > 0, settings.candidates > 1, vip)
        self._started = False

    def __len__(self) -> int:
        return len(self.inner) // self.settings.candidates

    def get_batch(self, index: int) -> Sequence[EnvGroupBuilder]:
        """The group builders of a step. Raises InputError unless VIP has observed the step before."""
        if get_rollout_executor() is not None:
            raise InputError("rewards computed by a rollout executor do not reach VIP; run rl.train.main without one")
        if self._batch is not None:
            if not self._batch.started:
                raise InputError("a batch was requested before the last one was sampled; VIP needs one at a time")
            logger.warning("%d groups failed", len(self._batch.counts) - len(self._batch.values))
            self._observe(self._batch)
        if index != self.step % len(self):
            raise InputError(
                f"batch {index} was requested, but step {self.step} of {len(self)} batches is the next one"
            )
        builders, self._batch = self._plan()
        counts: list[int] = self._batch.counts.tolist()
        if not self._started:
            self._started = True
            where = f"step {self.step} of {self.log_path}" if self.step else None
            line = start_line(
                self.vip,
                self._success,
                prompts=len(counts),
                rollouts=self._batch.budget,
                resumed=where,
                candidates=self.settings.candidates,
                unbiased=self.settings.unbiased,
                waves=self.settings.waves,
            )
            announce(line)
        sized = [resized(builder, n) for builder, n in zip(builders, counts, strict=True)]
        first = None if self._batch.waves is None else FirstWaves(len(counts), self._plan_second)
        return [VIPGroupBuilder(builder, self, self._batch, q, first) for q, builder in enumerate(sized)]

    def _plan(self) -> tuple[list[EnvGroupBuilder], PlannedGroups]:
        """The builders of this step that are sampled, and their plan."""
        k, first = self.settings.candidates, self.step * self.settings.candidates
        batches = [self.inner.get_batch((first + j) % len(self.inner)) for j in range(k)]
        builders = [builder for batch in batches for builder in batch]
        prompts, rollouts = [self.prompt(builder) for builder in builders], sum(map(group_size, builders))
        groups = max(1, round(len(builders) / k))
        budget = round(groups * rollouts / max(1, len(builders)))
        options = self.settings
        positions, plan = plan_batch(self.vip, prompts, budget, groups, unbiased=options.unbiased, waves=options.waves)
        planned = PlannedGroups(plan.prompts, plan.counts, plan.weights, budget, waves=plan.waves)
        return [builders[i] for i in positions], planned

    def _plan_second(self, rewards: Rewards) -> PlannedGroups:
        """The plan of both waves of this step, after the rewards of all first ones."""
        if self._batch is None:
            raise RuntimeError("the first waves of a step ended after it was observed")
        first = np.array([reward for group in self._batch.lists(rewards) for reward in group], dtype=float)
        self._batch = both_waves(self.vip, self._batch, first)
        self._batch.rewards.update(rewards)  # also of a group whose second wave fails
        return self._batch

    def shaped(self, batch: PlannedGroups, q: int, trajectories: Sequence[Any], given: Sequence[Given]) -> list[Given]:
        """Keep the outcomes of group q, whose final rewards are `given`; return the rewards to train on."""
        steps = step_rewards(trajectories)
        given_total = steps + np.array([final for final, _ in given], dtype=float)
        total = np.where(scorable(given_total), given_total, np.nan)
        average, weight = batch.budget / len(batch.counts), float(batch.weights[q])
        if batch.waves is None:
            rewards = shaped_totals(total, average, self.settings.estimator, weight) - steps
        else:
            look, threshold = batch.look(q)
            rewards = pooled_totals(total, int(batch.counts[q]), look, threshold, average, weight) - steps
        metrics = [{**own, PREFIX + ROLLOUTS: int(batch.counts[q])} for _, own in given]
        for reward, own in zip(total.tolist(), metrics, strict=True):
            own |= {} if np.isnan(reward) else {PREFIX + ROLLOUT_REWARD: reward}
        by_total = self._success.column is None
        batch.rewards[q] = given_total.tolist()
        batch.values[q] = batch.rewards[q] if by_total else self._values(batch, trajectories, given)
        batch.logprobs[q] = [trajectory_logprob(trajectory) for trajectory in trajectories]
        batch.lengths[q] = [trajectory_length(trajectory) for trajectory in trajectories]
        if batch is self._batch and len(batch.values) == len(batch.counts):
            self._observe(batch)
            metrics[0] |= logged(self._metrics)
        return list(zip(rewards.tolist(), metrics, strict=True))

    def _values(self, batch: PlannedGroups, trajectories: Sequence[Any], given: Sequence[Given]) -> list[Any]:
        """[m] the metric that `success` names, of each rollout of a group."""
        metrics = [
            {name: value for step in one.transitions for name, value in step.metrics.items()} | own
            for one, (_, own) in zip(trajectories, given, strict=True)
        ]
        batch.metrics.update(*metrics)
        return [own.get(self._success.column) for own in metrics]

    def _observe(self, batch: PlannedGroups) -> None:
        """Let VIP learn from a batch, and save it before tinker-cookbook can write the checkpoint of this step."""
        self._batch, column = None, self._success.column
        if not self._success.tried and batch.metrics and column not in batch.metrics:
            raise self._success.not_found(column, sorted(batch.metrics))
        logprobs = batch.lists(batch.logprobs) if self.settings.use_logprobs else None
        rewards = batch.lists(batch.rewards)
        values, lengths = batch.lists(batch.values), batch.lists(batch.lengths)
        observation = self._success.observe(self.vip, batch, rewards, values, logprobs, lengths)
        flat = np.array([reward for group in rewards for reward in group], dtype=float)
        self._metrics = batch_metrics(self.vip, batch.advantages(np.where(scorable(flat), flat, np.nan)))
        self._summary.add(batch.counts, observation, self._metrics)
        self.step += 1
        if self.step % len(self) == 0:
            announce(self._summary.line(next(iter(self.vip.strategies))))
        self.vip.save(self._file(self.step))
        keep = {record.batch for record in load_checkpoints_file(self.log_path)} | {self.step, self.step - 1}
        for path in self._file(0).parent.glob("*.safetensors"):
            if path.stem.isdigit() and int(path.stem) not in keep:
                with writing(path):
                    path.unlink(missing_ok=True)

    def _file(self, step: int) -> Path:
        return Path(self.log_path) / STATE_FOLDER / f"{step:06d}.safetensors"


class VIPGroupBuilder(EnvGroupBuilder):
    """A group of the planned size that reports its rewards to the dataset that it came from."""

    def __init__(
        self,
        inner: EnvGroupBuilder,
        dataset: VIPDataset,
        batch: PlannedGroups,
        q: int,
        first_waves: FirstWaves[PlannedGroups] | None = None,
    ) -> None:
        self.inner, self._dataset, self._batch, self.q, self.first_waves = inner, dataset, batch, q, first_waves
        self._first: list[Given] = []
        self._again: EnvGroupBuilder | None = None

    def __reduce__(self) -> Any:
        raise TypeError("rewards computed by a rollout executor do not reach VIP; run rl.train.main without one")

    async def make_envs(self) -> Sequence[Any]:
        self._batch.started.add(self.q)
        return await made(self.inner, int(self._batch.counts[self.q]))

    async def grade_first_wave(self, trajectories: Sequence[Any], envs: Sequence[Any]) -> list[float | None]:
        """The total rewards of a first wave. The final rewards are kept for `compute_group_rewards`."""
        self._first = await self._graded(self.inner, trajectories, envs)
        return (step_rewards(trajectories) + np.array([final for final, _ in self._first], dtype=float)).tolist()

    def second_wave(self) -> EnvGroupBuilder | None:
        """The builder of the second wave, after the first waves of all groups; None if this group has none."""
        whole = None if self.first_waves is None else self.first_waves.whole
        if whole is None:
            raise RuntimeError("the second wave of this step was not planned; see the error of another group")
        more, self._batch = int(whole.counts[self.q] - self._batch.counts[self.q]), whole
        self._again = SecondWave(resized(self.inner, more), more) if more else None
        return self._again

    async def compute_group_rewards(self, trajectory_group: list[Any], env_group: Sequence[Any]) -> list[Any]:
        first = len(self._first)
        given = [*self._first]
        if self._again is not None:
            given += await self._graded(self._again, trajectory_group[first:], env_group[first:])
        elif not given:
            given = await self._graded(self.inner, trajectory_group, env_group)
        return self._dataset.shaped(self._batch, self.q, trajectory_group, given)

    async def _graded(self, builder: EnvGroupBuilder, trajectories: Sequence[Any], envs: Sequence[Any]) -> list[Given]:
        try:
            return await builder.compute_group_rewards(list(trajectories), envs)
        except Exception as error:
            error.add_note(f"raised by {type(self.inner).__name__} at training step {self._dataset.step + 1}")
            raise

    async def cleanup(self) -> None:
        await self.inner.cleanup()
        if self._again is not None:
            await self._again.cleanup()

    def logging_tags(self) -> list[str]:
        return self.inner.logging_tags()


class SecondWave(EnvGroupBuilder):
    """The second wave of a group, graded on its own."""

    def __init__(self, inner: EnvGroupBuilder, planned: int) -> None:
        self.inner, self.planned = inner, planned

    async def make_envs(self) -> Sequence[Any]:
        return await made(self.inner, self.planned)

    async def compute_group_rewards(self, trajectory_group: list[Any], env_group: Sequence[Any]) -> list[Any]:
        return await self.inner.compute_group_rewards(trajectory_group, env_group)

    async def cleanup(self) -> None:
        await self.inner.cleanup()


async def made(builder: EnvGroupBuilder, planned: int) -> Sequence[Any]:
    """The environments of a builder. Raises InputError for another number than planned."""
    envs = await builder.make_envs()
    if len(envs) != planned:
        raise InputError(f"{type(builder).__name__} made {len(envs)} environments, but {planned} were planned")
    return envs


def step_rewards(trajectories: Sequence[Any]) -> FloatArray:
    """[m] sum of the rewards of the steps of each trajectory. Raises InputError unless they are numbers."""
    steps = np.array([sum(step.reward for step in one.transitions) for one in trajectories], dtype=float)
    if not scorable(steps).all():
        wrong = steps[~scorable(steps)][0]
        raise InputError(f"the reward of a step is {wrong}; return a number, and NaN as a group reward if unscorable")
    return steps
