"""Two waves in a step of tinker-cookbook, through its rollout strategies.

A rollout strategy owns how the trajectories of a group are collected, and may make environments more than once. All
groups of a step are rolled out at the same time, each by a call of the strategy, so that the calls can wait for each
other: the second wave is planned when the first waves of all groups are graded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tinker_cookbook.rl.rollout_strategy import RolloutResult, RolloutStrategy

Plan = TypeVar("Plan")
Rewards = dict[int, list[float | None]]
"""Group -> reward of each rollout."""


class FirstWaves(Generic[Plan]):
    """The first waves of the groups of a step.

    Args:
        groups: their number.
        plan: from the rewards of all of them to the plan of both waves; is called once.
    """

    def __init__(self, groups: int, plan: Callable[[Rewards], Plan]) -> None:
        self._groups, self._plan = groups, plan
        self._rewards: Rewards = {}
        self._ended = asyncio.Event()
        self.whole: Plan | None = None
        """The plan of both waves; None before all first waves have ended."""

    def end(self, q: int, rewards: list[float | None]) -> None:
        """Group q has these rewards; none if it failed."""
        self._rewards[q] = rewards
        if len(self._rewards) == self._groups:
            try:
                self.whole = self._plan(self._rewards)
            finally:
                self._ended.set()  # whoever waits must not wait for ever

    async def all(self) -> None:
        """Wait until they have ended."""
        await self._ended.wait()


@dataclass(frozen=True)
class TwoWaves(RolloutStrategy):
    """Each wave of a group as `inner` collects it. Groups without a plan of two waves are left to `inner`.

    Args:
        inner: the strategy of the run.
        grader_timeout: seconds for the grading of a first wave; None for no limit.
    """

    inner: RolloutStrategy
    grader_timeout: float | None = None

    @property
    def catches_group_errors(self) -> bool:
        return self.inner.catches_group_errors

    async def execute(self, env_group_builder: Any, policy: Any) -> RolloutResult:
        waves: FirstWaves[Any] | None = getattr(env_group_builder, "first_waves", None)
        if waves is None:
            return await self.inner.execute(env_group_builder, policy)
        try:
            first = await self.inner.execute(env_group_builder, policy)
            async with asyncio.timeout(self.grader_timeout):
                rewards = await env_group_builder.grade_first_wave(first.trajectories, first.envs)
        except BaseException:
            waves.end(env_group_builder.q, [])
            raise
        waves.end(env_group_builder.q, rewards)
        await waves.all()
        again = env_group_builder.second_wave()
        if again is None:
            return first
        second = await self.inner.execute(again, policy)
        return RolloutResult(
            [*first.trajectories, *second.trajectories],
            [*first.envs, *second.envs],
            [*first.errors, *second.errors],
        )
