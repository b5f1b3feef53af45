"""Groups of planned sizes: lost rollouts, unscorable rewards, success, other builders."""

import asyncio
import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import chz
import numpy as np
import pytest
import torch
from tinker_cookbook.rl import rollouts
from tinker_cookbook.rl.data_processing import compute_advantages
from tinker_cookbook.rl.problem_env import ProblemGroupBuilder
from tinker_cookbook.rl.rollout_strategy import RetryOnFailure
from tinker_cookbook.rl.types import RLDatasetBuilder
from tinker_runs import OPTIONS, Flaky, N, Q, Question, Questions, config_in, planned, rolled

from viprl.advantages import group_advantages, rollout_weights
from viprl.engines.tinker import with_vip
from viprl.engines.tinker.group_size import group_size, resized
from viprl.engines.tinker.shaped_rewards import shaped_totals
from viprl.errors import InputError
from viprl.metrics import UNSCORABLE


def test_a_failed_group_counts_as_unscorable_and_the_run_continues(tmp_path, caplog):
    dataset = planned(tmp_path)
    builders = dataset.get_batch(0)
    builders[2].inner = Flaky(int(dataset._batch.counts[2]))
    assert [rolled(builder, strategy=RetryOnFailure()) is None for builder in builders] == [q == 2 for q in range(Q)]
    assert dataset.step == 0
    dataset.get_batch(1)
    assert dataset.step == 1 and "1 groups failed" in caplog.text
    assert dataset.vip.metrics()[UNSCORABLE] > 0


def test_an_exception_of_a_group_names_its_builder_and_the_step(tmp_path):
    builder = planned(tmp_path).get_batch(0)[2]
    builder.inner = Flaky(2)
    with pytest.raises(RuntimeError, match="no grader") as error:
        asyncio.run(builder.compute_group_rewards([], []))
    assert "Flaky" in error.value.__notes__[0] and "step 1" in error.value.__notes__[0]


def test_a_group_that_lost_rollouts_has_the_weight_of_a_whole_one(tmp_path):
    dataset = planned(tmp_path)
    builder = max(dataset.get_batch(0), key=lambda builder: builder.inner.num_envs)
    group = rolled(ProblemGroupBuilder(partial(Question, 3), builder.inner.num_envs))
    left = group.trajectories_G[1:]
    asyncio.run(builder.make_envs())
    given = asyncio.run(builder.compute_group_rewards(left, []))
    totals = np.array([total for total, _ in given]) + [t.transitions[0].reward for t in left]
    rewards = [trajectory.transitions[0].reward for trajectory in left]
    expected = group_advantages(rewards, [len(left)]) * N / len(left) * (1 - 1 / N)
    np.testing.assert_allclose(totals - totals.mean(), expected, atol=1e-12)
    assert np.abs(expected).max() > 0
    dataset.get_batch(1)
    assert dataset.vip.metrics()[UNSCORABLE] == pytest.approx(1 - len(left) / (Q * N))


class Judge(ProblemGroupBuilder):
    """Continuous group rewards, one of them NaN."""

    async def compute_group_rewards(self, trajectory_group, env_group):
        return [(float("nan") if i == 1 else (i + 0.5) / 70, {"score": i}) for i in range(len(trajectory_group))]


def test_an_unscorable_rollout_has_no_advantage_and_does_not_affect_others(tmp_path):
    dataset = planned(tmp_path, estimator="dr_grpo")
    builder = dataset.get_batch(0)[3]
    builder.inner = Judge(builder.inner.env_thunk, builder.inner.num_envs)
    (advantages,) = compute_advantages([rolled(builder)])
    assert torch.isfinite(advantages).all() and advantages.abs().max() > 0.01
    assert advantages[1] == pytest.approx(0, abs=1e-6)


def test_an_infinite_group_reward_is_unscorable_and_one_of_a_step_is_refused(tmp_path):
    class Infinite(ProblemGroupBuilder):
        async def compute_group_rewards(self, trajectory_group, env_group):
            return [(float("inf") if i == 0 else i / 70, {}) for i in range(len(trajectory_group))]

    builder = planned(tmp_path).get_batch(0)[3]
    builder.inner = Infinite(builder.inner.env_thunk, builder.inner.num_envs)
    group = rolled(builder)
    (advantages,) = compute_advantages([group])
    assert torch.isfinite(advantages).all() and advantages[0] == pytest.approx(0, abs=1e-6)
    group.trajectories_G[0].transitions[0].reward = float("inf")
    with pytest.raises(InputError, match="inf"):
        asyncio.run(builder.compute_group_rewards(group.trajectories_G, []))


@pytest.mark.parametrize("estimator, baseline, factor", [("rloo", "leave_one_out", 1 - 3 / 16), ("dr_grpo", "mean", 1)])
def test_centred_totals_are_weighted_advantages_and_keep_the_mean(estimator, baseline, factor):
    rng, counts = np.random.default_rng(0), [2, 5, 9]
    rewards = np.split(rng.random(16), np.cumsum(counts)[:-1])
    totals = [shaped_totals(group, 16 / 3, estimator) for group in rewards]
    centred = np.concatenate([total - total.mean() for total in totals])
    expected = group_advantages(np.concatenate(rewards), counts, baseline) * rollout_weights(counts) * factor
    np.testing.assert_allclose(centred, expected, atol=1e-12)
    np.testing.assert_allclose([t.mean() for t in totals], [r.mean() for r in rewards])
    heavier = shaped_totals(rewards[1], 16 / 3, estimator, 2.5)
    np.testing.assert_allclose(heavier - heavier.mean(), 2.5 * centred[2:7], atol=1e-12)
    assert heavier.mean() == pytest.approx(rewards[1].mean())


def test_success_that_names_no_metric_stops_the_first_batch(tmp_path):
    dataset, named = planned(tmp_path, success="corect"), r"success.*'corect'.*score"
    builders = dataset.get_batch(0)
    for builder in builders:
        builder.inner = Judge(builder.inner.env_thunk, builder.inner.num_envs)
    with pytest.raises(InputError, match=named):
        for builder in builders:
            rolled(builder)


class Sloppy(Question):
    """Never well formed, so that its total rewards are -0.1 and 0.9."""

    check_format = staticmethod(lambda sample_str: False)


def test_a_metric_of_the_environment_decides_about_success(tmp_path):
    dataset = planned(tmp_path, success="correct")
    for q, builder in enumerate(dataset.get_batch(0)):
        builder.inner = ProblemGroupBuilder(partial(Sloppy, q), builder.inner.num_envs)
        rolled(builder)
    assert dataset.step == 1 and dataset.vip.metrics()[UNSCORABLE] == 0


def test_prefetching_and_rollout_executors_are_refused(tmp_path):
    dataset = planned(tmp_path)
    builders = dataset.get_batch(0)
    with pytest.raises(InputError, match="one at a time"):
        dataset.get_batch(1)
    with pytest.raises(TypeError, match="rollout executor"):
        pickle.dumps(builders[0])
    with ThreadPoolExecutor(1) as pool:
        rollouts.set_rollout_executor(pool)
        try:
            with pytest.raises(InputError, match="rollout executor"):
                planned(tmp_path).get_batch(0)
        finally:
            rollouts.set_rollout_executor(None)


def test_groups_of_another_size_than_planned_are_refused(tmp_path):
    builder = planned(tmp_path).get_batch(0)[0]
    builder.inner = resized(builder.inner, group_size(builder.inner) + 1)
    with pytest.raises(InputError, match="environments"):
        asyncio.run(builder.make_envs())


def test_builders_are_resized_by_the_name_of_their_own_field():
    flaky = Flaky(4)
    assert group_size(resized(flaky, 7)) == 7 and flaky.num_envs == 4
    assert group_size(resized(SimpleNamespace(group_size=4), 7)) == 7
    with pytest.raises(InputError, match=r"num_envs.*group_size"):
        resized(SimpleNamespace(size=4), 7)


def test_other_builders_need_a_function_from_builder_to_prompt(tmp_path):
    class Others(Questions):
        def get_batch(self, index):
            return [Flaky(N) for _ in range(Q)]

    @chz.chz
    class OthersBuilder(RLDatasetBuilder):
        async def __call__(self):
            return Others(), None

    config = chz.replace(config_in(tmp_path), dataset_builder=OthersBuilder())
    with pytest.raises(InputError, match=r"Flaky.*prompt="):
        asyncio.run(with_vip(config, **OPTIONS).dataset_builder())[0].get_batch(0)
    named = with_vip(config, prompt=lambda builder: f"{builder.num_envs} tries", **OPTIONS)
    assert len(asyncio.run(named.dataset_builder())[0].get_batch(0)) == Q
