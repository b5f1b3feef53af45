"""Options of engines as configuration files give them, and whole steps as engines make them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fuzzing import anything, fuzz, mostly, or_refused, some_of
from hypothesis import strategies as st

import viprl
from viprl.engines.planned_batch import batch_metrics, both_waves, plan_batch
from viprl.engines.success import SuccessCriterion
from viprl.engines.verl.namespace import read_namespace
from viprl.engines.vip_builder import build_vip
from viprl.settings import EngineSettings
from viprl.vip import VIP

options = some_of(
    min_rollouts=mostly(st.integers(1, 9), anything, 4),
    max_rollouts=mostly(st.integers(2, 99) | st.just(float("inf")), anything, 4),
    strategy=mostly(st.sampled_from(sorted(viprl.STRATEGIES)), anything, 4),
    shadow=mostly(st.sampled_from(["paper", ["uniform"], None]), anything, 4),
    success=mostly(st.sampled_from([0.5, "acc", "acc>=0.5", "a:b", None]), anything, 4),
    features=mostly(st.sampled_from(["none", "length"]), anything, 20),
    spend=mostly(st.sampled_from(["budget", "match"]), anything, 4),
    variance_target=mostly(st.floats(0.1, 3), anything, 4),
    cost=mostly(st.sampled_from(["rollouts", "tokens"]), anything, 4),
    baseline=mostly(st.sampled_from(["group", "expected"]), anything, 4),
    score_signal=mostly(st.floats(0, 9), anything, 4),
    seed=mostly(st.integers(0, 9), anything, 4),
    prompt_weighting=mostly(st.sampled_from(["prompt", "rollout"]), anything, 4),
    candidates=mostly(st.integers(1, 4), anything, 4),
    unbiased=mostly(st.booleans(), anything, 4),
    waves=mostly(st.sampled_from([1, 2]), anything, 4),
    other=anything,
)


@fuzz(
    given=options | options.filter(lambda given: "other" not in given),
    estimator=mostly(st.sampled_from(["vip_rloo", "vip_dr_grpo"]), anything),
    prompts=st.integers(1, 9),
    rollouts=st.integers(1, 9),
)
def test_options_of_verl(given: dict[str, Any], estimator: Any, prompts: int, rollouts: int) -> None:
    given = {"cache": None, "features": "none", **given}
    with or_refused() as refused:
        settings = read_namespace(given, adv_estimator=estimator, prompts=prompts, rollout_n=rollouts)
    if refused:
        return
    assert isinstance(settings, EngineSettings)
    with or_refused() as refused:
        vip = build_vip(settings, SuccessCriterion(settings.success, complete=False))
    if not refused:
        plan = vip.allocate([str(i) for i in range(prompts)], prompts * rollouts)
        assert plan.counts.sum() <= prompts * rollouts
        assert (plan.counts >= settings.min_rollouts).all()


@fuzz(
    0.3,
    data=st.data(),
    given=some_of(
        strategy=st.sampled_from(["default", "paper", "uniform"]),
        spend=st.sampled_from(["budget", "match"]),
        cost=st.sampled_from(["rollouts", "tokens"]),
        baseline=st.sampled_from(["group", "expected"]),
    ),
    offered=st.integers(2, 8),
    waves=st.sampled_from([1, 2]),
    multiple=st.sampled_from([1, 1, 4]),
    unbiased=st.booleans(),
)
def test_steps(data: Any, given: dict[str, Any], offered: int, waves: int, multiple: int, unbiased: bool) -> None:
    """Three steps: counts, weights and advantages fit together, and the second wave keeps the budget."""
    vip = VIP(features="length", cache=None, max_rollouts=40, **given)
    reward = mostly(st.sampled_from([0.0, 1.0]), st.sampled_from([None, 0.5, -1.0]), 10)
    for step in range(3):
        size = data.draw(st.integers(1, offered))
        budget = -(-size * data.draw(st.integers(2, 6)) // multiple) * multiple
        prompts = [f"{step % 2} {i}" for i in range(offered)]
        how = {"unbiased": unbiased, "multiple": multiple, "waves": waves}
        positions, batch = plan_batch(vip, prompts, budget, size, **how)
        assert sorted(set(positions)) == positions
        assert batch.prompts == [prompts[i] for i in positions]
        rewards = data.draw(st.lists(reward, min_size=int(batch.counts.sum()), max_size=int(batch.counts.sum())))
        if batch.waves is not None:
            first = batch.split(rewards)
            batch = both_waves(vip, batch, np.array(rewards, dtype=float))
            missing = [n - len(group) for n, group in zip(batch.counts.tolist(), first, strict=True)]
            more = [data.draw(st.lists(reward, min_size=n, max_size=n)) for n in missing]
            rewards = [r for g, m in zip(first, more, strict=True) for r in [*g, *m]]
        assert batch.counts.sum() == budget if vip.spends_all else batch.counts.sum() <= budget
        assert (batch.counts >= 2).all()
        assert (batch.weights == 1).all() if not unbiased else (batch.weights > 0).all()
        groups = batch.split(rewards)
        assert [len(group) for group in groups] == batch.counts.tolist()
        advantages = batch.advantages(np.array(rewards, dtype=float))
        assert np.isfinite(advantages).all()
        unscorable = np.array([r is None for r in rewards])
        assert (advantages[unscorable] == 0).all()
        if batch.waves is None and batch.prior is None:
            np.testing.assert_allclose(advantages, leave_one_out(groups), atol=1e-12)
        vip.observe(batch.prompts, groups, lengths=[[5.0] * len(group) for group in groups])
        assert not any(np.isinf(value) for value in batch_metrics(vip, advantages).values())


def leave_one_out(groups: list[list[float | None]]) -> list[float]:
    """Each reward minus the mean of the others of its group, as written in a textbook."""
    found = []
    for group in groups:
        for i, r in enumerate(group):
            others = [other for j, other in enumerate(group) if j != i and other is not None]
            found.append(0.0 if r is None or not others else r - sum(others) / len(others))
    return found


@pytest.mark.parametrize("names", [["reward"], ["a", "b"], []])
@fuzz(0.5, success=mostly(st.sampled_from([None, "a", "a>=0.5", "reward", ">0", 1.0, "none"]), anything))
def test_names_of_rewards(names: list[str], success: Any) -> None:
    with or_refused():
        criterion = SuccessCriterion(success, complete=False)
        criterion.bind(names)
        if names:
            values = criterion.values(np.ones((3, len(names))), np.ones(3))
            assert values.shape == (3,)
