"""The batches of tinker-cookbook with planned group sizes, and the rewards that come back from them."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tinker_cookbook.checkpoint_utils import get_last_checkpoint, load_checkpoints_file
from tinker_cookbook.rl.rollouts import get_rollout_executor
from tinker_cookbook.rl.types import EnvGroupBuilder, RLDataset

from viprl.advantages import group_advantages
from viprl.prompts import Prompt
from viprl.utils.arrays import FloatArray
from viprl.vip import VIP

logger = logging.getLogger(__name__)

STATE_FOLDER = "vip_state"
"""Within log_path: one file a step, for the steps of checkpoints.jsonl and the last two."""


def question(builder: Any) -> Prompt:
    """The question of a `ProblemGroupBuilder`, from an environment made for this purpose."""
    if not hasattr(builder, "env_thunk"):
        raise ValueError(f"what is the prompt of a {type(builder).__name__}? Pass prompt=, a function of the builder")
    return builder.env_thunk().get_question()


def group_size(builder: Any) -> int:
    """Environments that a builder makes."""
    return getattr(builder, _size_field(builder))


def resized(builder: Any, size: int) -> Any:
    """A copy of the builder that makes `size` environments."""
    field = _size_field(builder)
    if dataclasses.is_dataclass(builder):
        return dataclasses.replace(builder, **{field: size})  # type: ignore[type-var]
    other = copy.copy(builder)
    setattr(other, field, size)
    return other


def _size_field(builder: Any) -> str:
    for field in ("num_envs", "group_size"):
        if hasattr(builder, field):
            return field
    raise ValueError(
        f"{type(builder).__name__} has neither num_envs nor group_size; wrap it in a builder that has num_envs"
    )


@dataclasses.dataclass
class _Round:
    """One batch: what was planned and what has come of it so far."""

    prompts: list[Prompt]
    counts: list[int]
    values: dict[int, list[float | None]] = dataclasses.field(default_factory=dict)
    surprise: dict[int, list[float | None]] = dataclasses.field(default_factory=dict)
    started: bool = False

    def lists(self, came: dict[int, list[float | None]]) -> list[list[float | None]]:
        """One list a prompt of the planned length, None for rollouts that failed."""
        return [[*came.get(q, ()), *[None] * (n - len(came.get(q, ())))] for q, n in enumerate(self.counts)]


class VIPDataset(RLDataset):
    """The batches of `inner` with group sizes that `self.vip` plans; goes on from the last checkpoint of `log_path`."""

    def __init__(
        self,
        inner: RLDataset,
        vip: VIP,
        log_path: str | Path,
        *,
        column: str | None = None,
        prompt: Callable[[Any], Prompt] = question,
    ) -> None:
        self.inner, self.vip, self.log_path, self.column, self.prompt = inner, vip, str(log_path), column, prompt
        self._round: _Round | None = None
        self._first = True
        record = get_last_checkpoint(self.log_path)
        self.step = 0 if record is None else record.batch or 0
        if self.step:
            self._load(self._file(self.step))

    def __len__(self) -> int:
        return len(self.inner)

    def get_batch(self, index: int) -> Sequence[EnvGroupBuilder]:
        """The group builders of a step; VIP must have seen the step before. Raises ValueError where it cannot."""
        if get_rollout_executor() is not None:
            raise ValueError("a rollout executor keeps rewards away from VIP; run rl.train.main without one")
        if self._round is not None:
            if not self._round.started:
                raise ValueError("the next batch was asked for before the last was sampled; VIP needs one at a time")
            logger.warning("%d groups failed", len(self._round.counts) - len(self._round.values))
            self._close(self._round)
        if index != self.step % len(self):
            raise ValueError(f"batch {index} was asked for, but step {self.step} of {len(self)} batches was expected")
        builders = self.inner.get_batch(index)
        prompts = [self.prompt(builder) for builder in builders]
        counts = self.vip.allocate(prompts, sum(map(group_size, builders))).counts.tolist()
        self._round = _Round(prompts, counts)
        sized = [resized(builder, count) for builder, count in zip(builders, counts, strict=True)]
        return [VIPGroupBuilder(builder, self, self._round, q) for q, builder in enumerate(sized)]

    def rewarded(
        self, batch: _Round, q: int, trajectories: Sequence[Any], given: Sequence[tuple[float, dict[str, Any]]]
    ) -> list[tuple[float, dict[str, Any]]]:
        """Note the outcomes of group q, whose rewards are `given`; return rewards from which the advantages follow."""
        steps = np.array([sum(step.reward for step in one.transitions) for one in trajectories], dtype=float)
        if np.isnan(steps).any():
            raise ValueError("a step's reward is NaN, which no group reward can mend; give such rollouts a number")
        total = steps + np.array([final for final, _ in given], dtype=float)
        shaped = total_rewards(total, batch.counts, self.vip.estimator.name) - steps
        metrics = [{**own, "vip/rollouts": batch.counts[q]} for _, own in given]
        for reward, own in zip(total.tolist(), metrics, strict=True):
            own |= {} if np.isnan(reward) else {"vip/reward": reward}
        batch.values[q] = [self._value(*rollout) for rollout in zip(trajectories, given, total.tolist(), strict=True)]
        batch.surprise[q] = [_surprise(trajectory) for trajectory in trajectories]
        if batch is self._round and len(batch.values) == len(batch.counts):
            self._close(batch)
            metrics[0] |= {f"vip/{name}": value for name, value in self.vip.metrics().items()}
        return list(zip(shaped.tolist(), metrics, strict=True))

    def _value(self, trajectory: Any, given: tuple[float, dict[str, Any]], total: float) -> float | None:
        if self.column is None:
            return total
        found = [
            own[self.column] for own in (*(s.metrics for s in trajectory.transitions), given[1]) if self.column in own
        ]
        return found[-1] if found else None

    def _close(self, batch: _Round) -> None:
        """Tell VIP what the batch has brought, and save it before tinker-cookbook can write this step's checkpoint."""
        self._round, first, self._first = None, self._first, False
        values = batch.lists(batch.values)
        observation = self.vip.observe(batch.prompts, values, surprise=batch.lists(batch.surprise))
        if first and batch.values and observation.rollouts.sum() == 0:
            raise ValueError(
                f"no reward of the first batch could be read (the first is {values[min(batch.values)][0]}); set "
                "success= to a metric of the environment, such as 'correct', or a threshold on the total reward"
            )
        self.step += 1
        self._file(self.step).parent.mkdir(parents=True, exist_ok=True)
        self.vip.save(self._file(self.step))
        keep = {record.batch for record in load_checkpoints_file(self.log_path)} | {self.step, self.step - 1}
        for path in self._file(0).parent.glob("*.safetensors"):
            if path.stem.isdigit() and int(path.stem) not in keep:
                path.unlink()

    def _file(self, step: int) -> Path:
        return Path(self.log_path) / STATE_FOLDER / f"{step:06d}.safetensors"

    def _load(self, path: Path) -> None:
        if path.exists():
            self.vip.load(path)
        else:
            logger.warning("%s does not exist (a stock checkpoint?); success prediction starts afresh", path)


class VIPGroupBuilder(EnvGroupBuilder):
    """A group of the planned size that reports its rewards to the dataset it came from."""

    def __init__(self, inner: EnvGroupBuilder, dataset: VIPDataset, batch: _Round, q: int) -> None:
        self.inner, self._dataset, self._batch, self._q = inner, dataset, batch, q

    def __reduce__(self) -> Any:
        raise TypeError("a rollout executor would keep rewards away from VIP; run rl.train.main without one")

    async def make_envs(self) -> Sequence[Any]:
        self._batch.started = True
        envs, planned = await self.inner.make_envs(), self._batch.counts[self._q]
        if len(envs) != planned:
            raise ValueError(f"{type(self.inner).__name__} made {len(envs)} environments where {planned} were planned")
        return envs

    async def compute_group_rewards(self, trajectory_group: list[Any], env_group: Sequence[Any]) -> list[Any]:
        given = await self.inner.compute_group_rewards(trajectory_group, env_group)
        return self._dataset.rewarded(self._batch, self._q, trajectory_group, given)

    async def cleanup(self) -> None:
        await self.inner.cleanup()

    def logging_tags(self) -> list[str]:
        return self.inner.logging_tags()


def total_rewards(rewards: FloatArray, counts: Sequence[int], estimator: str) -> FloatArray:
    """[m] totals of one group whose centring yields its prompt-equal advantages, from its rewards [m] and the counts of
    the batch [Q]. "rloo" is scaled by 1 - Q/C, so that equal groups give tinker-cookbook's own advantages."""
    average, size = float(np.mean(counts)), len(rewards)
    if estimator == "rloo":
        advantages = group_advantages(rewards, [size]) * (1 - 1 / average)
    else:
        advantages = group_advantages(rewards, [size], "mean")
    scorable = rewards[~np.isnan(rewards)]
    return (scorable.mean() if len(scorable) else 0.0) + advantages * average / size


def _surprise(trajectory: Any) -> float | None:
    """-log probability of what the policy sampled in a trajectory, where the sampler told."""
    logprobs = [step.ac.maybe_logprobs for step in trajectory.transitions]
    return None if any(one is None for one in logprobs) else -float(sum(map(sum, logprobs)))
