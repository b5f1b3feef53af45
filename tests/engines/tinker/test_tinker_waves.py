"""Two waves in a step of tinker-cookbook's own loop, through a rollout strategy."""

from __future__ import annotations

import asyncio
from functools import partial

import chz
import numpy as np
import pytest
import tinker_runs
from tinker_cookbook.rl.problem_env import ProblemGroupBuilder
from tinker_cookbook.rl.rollout_strategy import FailFast, RetryOnFailure
from tinker_cookbook.rl.types import RLDataset, RLDatasetBuilder
from tinker_runs import Question, Service, config_in, run, trained

from log_files import write_lines
from viprl.allocation.waves.estimator import wave_advantages
from viprl.engines.tinker import planned_dataset, with_vip
from viprl.engines.tinker.two_waves import FirstWaves, TwoWaves
from viprl.errors import InputError

Q, N, POOL = 16, 8, 160


class Group(ProblemGroupBuilder):
    """Counts what is graded and cleaned up; questions in `broken` fail in that wave."""

    graded: list[int] = []  # noqa: RUF012
    cleaned: list[int] = []  # noqa: RUF012
    broken: dict[int, int] = {}  # noqa: RUF012
    made: dict[int, int] = {}  # noqa: RUF012

    async def make_envs(self):
        question = self.env_thunk().number
        self.made[question] = self.made.get(question, 0) + 1
        if self.broken.get(question) == self.made[question]:
            raise ConnectionError("no sandbox")
        return await super().make_envs()

    async def compute_group_rewards(self, trajectory_group, env_group):
        self.graded.append(len(trajectory_group))
        assert len(trajectory_group) == len(env_group)
        return await super().compute_group_rewards(trajectory_group, env_group)

    async def cleanup(self):
        self.cleaned.append(self.env_thunk().number)


class Many(RLDataset):
    def get_batch(self, index):
        return [Group(partial(Question, index * Q + q), N) for q in range(Q)]

    def __len__(self):
        return POOL // Q


@chz.chz
class ManyBuilder(RLDatasetBuilder):
    async def __call__(self):
        return Many(), None


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """Starts a run of `Many`, most of whose questions are hopeless, that knows every second one of them; records the
    plans of the second waves."""
    for name in ("graded", "cleaned"):
        monkeypatch.setattr(Group, name, [])
    for name in ("broken", "made"):
        monkeypatch.setattr(Group, name, {})
    rng = np.random.default_rng(0)
    chance = [float((rng.random() > 0.75) * rng.random()) for _ in range(POOL)]
    monkeypatch.setattr(tinker_runs, "CHANCE", chance)
    monkeypatch.setattr(tinker_runs, "QuestionsBuilder", ManyBuilder)
    for log, p in (("hopeless", chance), ("alike", [0.5] * POOL)):
        earlier = [
            {"input": str(i), "score": float(rng.random() < p[i]), "uid": f"u{i}_{s}_0"}
            for i in range(1, POOL, 2)
            for s in range(8)
        ]
        write_lines(tmp_path / log / "1.jsonl", earlier)
    waves, both = [], planned_dataset.both_waves

    def recorded(vip, first, rewards):
        waves.append((first, first.split(rewards), both(vip, first, rewards)))
        return waves[-1][2]

    monkeypatch.setattr(planned_dataset, "both_waves", recorded)

    def start(name="run", end=3, log="hopeless", **options):
        options = {"waves": 2, "warm_start": str(tmp_path / log)} | options
        return run(tmp_path / name, end, **options), waves

    return start


@pytest.mark.parametrize("candidates", [1, 2])
def test_a_step_in_two_waves(runs, candidates):
    (dataset, service, log), waves = runs(candidates=candidates)
    assert len(waves) == 3 and dataset.step == 3
    for data, (first, rewards, whole) in zip(service.steps, waves, strict=True):
        groups = trained(data)
        assert whole.counts.sum() == len(data) == Q * N and 0 < first.counts.sum() < Q * N
        assert (whole.counts - first.counts).min() == 0
        for q, (outcomes, advantages) in enumerate(groups[int(prompt)] for prompt in whole.prompts):
            n, w, look = len(outcomes), int(first.counts[q]), whole.waves.waves.labels[q]
            assert n == whole.counts[q] and look.size == w
            assert outcomes[:w] == rewards[q] and sum(rewards[q]) in look.marked
            expected = wave_advantages(outcomes, look) * (1 - 1 / N) * N / n * whole.weights[q]
            np.testing.assert_allclose(advantages, expected, atol=1e-6)
        assert (np.ptp(whole.weights) > 0) == (candidates == 2)
    assert log.rows[-1]["env/all/vip/counts/mean"] == N
    second = sum((whole.counts > first.counts).sum() for first, _, whole in waves)
    assert sum(Group.graded) == 3 * Q * N and len(Group.graded) == 3 * Q + second, "each rollout is graded once"
    assert len(Group.cleaned) == 3 * Q + second


def test_a_resumed_run_has_the_same_waves(runs):
    (_, through, _), waves = runs("whole", 4)
    service = Service()
    runs("stopped", 2, service=service)
    (resumed, _, _), all_waves = runs("stopped", 4, service=service)
    assert resumed.step == 4 and len(all_waves) == 8
    assert [trained(data) for data in service.steps] == [trained(data) for data in through.steps]
    for one, other in zip(waves[:4], all_waves[4:], strict=True):
        np.testing.assert_array_equal(one[2].counts, other[2].counts)


def test_one_wave_where_the_plan_has_none_is_as_with_the_option_off(runs):
    found = []
    for waves in (1, 2):
        (_, service, _), planned = runs(f"waves {waves}", 1, log="alike", waves=waves)
        found.append(trained(service.steps[0]))
        assert not planned
    assert found[0] == found[1]


@pytest.mark.parametrize("wave", [1, 2])
def test_a_group_that_fails_counts_as_unscorable(runs, monkeypatch, wave):
    config = config_in
    monkeypatch.setattr(
        tinker_runs, "config_in", lambda folder, **more: config(folder, rollout_error_tolerance=True, **more)
    )
    Group.broken.update(dict.fromkeys(range(Q), wave) if wave == 2 else {5: wave})
    (dataset, service, _), waves = runs(end=2)
    first, _, whole = waves[0]
    lost = np.flatnonzero(whole.counts > first.counts) if wave == 2 else [5]
    assert trained(service.steps[0]).keys() == set(range(Q)) - set(map(int, lost))
    assert len(waves) == 2 and dataset.step == 2


def test_an_error_of_a_group_ends_a_run_without_tolerance(runs):
    Group.broken[3] = 1
    with pytest.raises(ConnectionError):
        runs()


def test_the_strategy_of_the_run_is_kept(tmp_path):
    config = with_vip(config_in(tmp_path, rollout_error_tolerance=True), waves=2)
    assert (
        config.rollout_error_tolerance == TwoWaves(RetryOnFailure()) and TwoWaves(RetryOnFailure()).catches_group_errors
    )
    assert not TwoWaves(FailFast()).catches_group_errors
    assert with_vip(config_in(tmp_path)).rollout_error_tolerance is None


def test_other_groups_are_left_to_it():
    builder = ProblemGroupBuilder(partial(Question, 1), 3)
    found = tinker_runs.rolled(builder, Service(), TwoWaves(FailFast()))
    assert len(found.trajectories_G) == 3


def test_whoever_waits_is_released_if_the_plan_fails():
    def fails(rewards):
        raise InputError("no plan")

    async def waits():
        waves = FirstWaves(2, fails)
        waiting = asyncio.create_task(waves.all())
        waves.end(0, [1.0])
        await asyncio.sleep(0)
        assert not waiting.done()
        with pytest.raises(InputError):
            waves.end(1, [])
        await asyncio.wait_for(waiting, 1)
        assert waves.whole is None

    asyncio.run(waits())


def test_what_does_not_go_with_two_waves(tmp_path, runs, monkeypatch):
    with pytest.raises(InputError, match=r"waves is 2.*'rloo'.*'dr_grpo'"):
        with_vip(config_in(tmp_path), waves=2, estimator="dr_grpo")
    with pytest.raises(InputError, match="waves is 3"):
        with_vip(config_in(tmp_path), waves=3)
    monkeypatch.setattr(TwoWaves, "execute", lambda self, builder, policy: self.inner.execute(builder, policy))
    with pytest.raises(InputError, match="rollout_error_tolerance"):
        runs()
