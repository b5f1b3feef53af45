"""`candidates=k`: a step takes the groups of k batches, and samples as many as one batch has."""

import asyncio

import chz
import numpy as np
import pytest
from tinker_cookbook.rl.types import RLDatasetBuilder
from tinker_runs import CHANCE, OPTIONS, Flaky, N, Q, Questions, Service, config_in, planned, rolled, run, trained

from viprl import VIP
from viprl.engines.tinker import with_vip
from viprl.errors import InputError
from viprl.metrics import UNSCORABLE

QUESTIONS = [str(q) for q in range(len(CHANCE))]


class Recorded(Questions):
    """Batches of the given sizes; remembers which were asked for."""

    def __init__(self, sizes):
        self.sizes, self.asked = sizes, []

    def get_batch(self, index):
        self.asked.append(index)
        return super().get_batch(index % 2)[: self.sizes[index]]

    def __len__(self):
        return len(self.sizes)


def selecting(folder, sizes, **options):
    @chz.chz
    class Builder(RLDatasetBuilder):
        async def __call__(self):
            return Recorded(sizes), None

    config = chz.replace(config_in(folder), dataset_builder=Builder())
    return asyncio.run(with_vip(config, **(OPTIONS | options)).dataset_builder())[0]


def loo(rewards):
    """Reward minus the mean of the others."""
    return [r - (sum(rewards) - r) / (len(rewards) - 1) for r in rewards]


@pytest.mark.parametrize("unbiased", [True, False])
def test_the_loop_trains_on_the_selected_groups_with_their_weights(tmp_path, unbiased):
    dataset, service, log = run(tmp_path, 6, candidates=2, unbiased=unbiased)
    by_hand, seen, heaviest = VIP(features="none", cache=None), set(), 0.0
    assert len(dataset) == 1 and dataset.step == len(service.steps) == 6
    for step, data in enumerate(service.steps):
        groups = trained(data)
        selection = by_hand.select(QUESTIONS, Q * N, Q, unbiased=unbiased)
        sampled = selection.positions.tolist()
        assert list(groups) == sampled and len(sampled) == Q
        counts = {q: len(groups[q][0]) for q in sampled}
        assert list(counts.values()) == selection.allocation.counts.tolist() and sum(counts.values()) == Q * N
        for q, (outcomes, advantages) in groups.items():
            weight = Q / len(CHANCE) / selection.inclusion[q] if unbiased else 1.0
            expected = weight * N / counts[q] * (1 - 1 / N) * np.array(loo(outcomes))
            np.testing.assert_allclose(advantages, expected, atol=1e-6)
            heaviest = max(heaviest, weight)
        logprobs = [[float(np.log(CHANCE[q] if right else 1 - CHANCE[q])) for right in groups[q][0]] for q in sampled]
        by_hand.observe([QUESTIONS[q] for q in sampled], [groups[q][0] for q in sampled], logprobs=logprobs)
        row, metrics = log.rows[step], by_hand.metrics()
        assert row["env/all/vip/reward"] == pytest.approx(metrics["reward"])
        assert row["env/all/vip/selection/effective_prompts"] == pytest.approx(
            metrics["selection/effective_prompts"], rel=1e-6
        )
        seen.update(sampled)
    assert seen == set(range(len(CHANCE)))
    assert heaviest > 1.2 if unbiased else heaviest == 1


def test_a_resumed_run_selects_as_one_that_went_through(tmp_path):
    _, through, _ = run(tmp_path / "a", 4, candidates=2)
    service = Service()
    run(tmp_path / "b", 2, service=service, candidates=2)
    resumed, _, _ = run(tmp_path / "b", 4, service=service, candidates=2)
    assert resumed.step == 4
    assert [trained(data) for data in service.steps] == [trained(data) for data in through.steps]


def test_one_candidate_is_the_run_without_selection(tmp_path):
    _, plain, _ = run(tmp_path / "a", 3)
    dataset, one, log = run(tmp_path / "b", 3, candidates=1, unbiased=False)
    assert [trained(data) for data in plain.steps] == [trained(data) for data in one.steps]
    assert len(dataset) == 2 and not any("selection" in name for name in log.rows[-1])


def steps(dataset, number):
    """The groups of each step; the number of batches that were asked for is checked by the caller."""
    found = []
    for _ in range(number):
        builders = dataset.get_batch(dataset.step % len(dataset))
        found.append([builder.inner.num_envs for builder in builders])
        for builder in builders:
            rolled(builder)
    return found


def test_batches_follow_each_other_and_none_is_left_out(tmp_path):
    dataset = selecting(tmp_path, [Q] * 5, candidates=2)
    assert len(dataset) == 2
    counts = steps(dataset, 5)
    assert dataset.inner.asked == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    assert all(len(groups) == Q and sum(groups) == Q * N for groups in counts)
    dataset = selecting(tmp_path / "three", [Q] * 3, candidates=3)
    steps(dataset, 2)
    assert len(dataset) == 1 and dataset.inner.asked == [0, 1, 2] * 2


def test_smaller_batches_keep_the_average_group(tmp_path):
    dataset = selecting(tmp_path, [6, 6, 4], candidates=2)
    groups = steps(dataset, 3)
    assert [(len(one), sum(one)) for one in groups] == [(6, 6 * N), (5, 5 * N), (5, 5 * N)]


def test_groups_keep_their_order_and_those_passed_over_are_left_out(tmp_path):
    dataset = planned(tmp_path, candidates=2)
    builders = dataset.get_batch(0)
    prompts = [int(builder.inner.env_thunk().get_question()) for builder in builders]
    assert prompts == sorted(prompts) and len(prompts) == Q
    assert [str(q) for q in prompts] == dataset._batch.prompts
    assert all(builder.inner.num_envs >= 2 for builder in builders)


def test_the_step_and_not_the_index_decides_after_a_resume(tmp_path):
    run(tmp_path, 2, candidates=2)
    resumed = planned(tmp_path, candidates=2)
    assert resumed.step == 2
    with pytest.raises(InputError, match="batch 1"):
        resumed.get_batch(1)
    assert len(resumed.get_batch(0)) == Q


def test_a_selected_group_that_fails_counts_as_unscorable(tmp_path):
    dataset = planned(tmp_path, candidates=2)
    builders = dataset.get_batch(0)
    builders[1].inner = Flaky(int(dataset._batch.counts[1]))
    failed = dataset._batch.counts[1] / (Q * N)
    for q, builder in enumerate(builders):
        if q != 1:
            rolled(builder)
        else:
            with pytest.raises(RuntimeError):
                rolled(builder)
    dataset.get_batch(0)
    assert dataset.step == 1 and dataset.vip.metrics()[UNSCORABLE] == pytest.approx(failed)


def test_more_candidates_than_batches_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"candidates is 3.*2 batches"):
        planned(tmp_path, candidates=3)
