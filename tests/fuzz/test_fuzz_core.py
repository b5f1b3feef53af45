"""The functions of the core with arguments of any kind: results are finite and exact, or the error is a ViprlError."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from fuzzing import anything, fuzz, json_leaves, mostly, numbers, objects, or_refused, some_of
from hypothesis import strategies as st

import viprl
from viprl.advantages import RewardPrior

SIZE = 6
small = st.integers(2, 9)
each = st.integers(0, SIZE).flatmap(lambda q: st.lists(st.integers(2, 9), min_size=q, max_size=q))
shares = st.lists(mostly(st.floats(0, 1), numbers | objects, 30), max_size=SIZE)
weights = st.lists(mostly(st.floats(0, 1) | st.floats(0, 1e300), numbers | objects, 30), max_size=SIZE)
positive = st.lists(mostly(st.floats(0.1, 10) | st.floats(0, 1e300), numbers, 30), max_size=SIZE)
options = some_of(
    match_uniform=mostly(st.integers(0, 99) | st.integers(0, 2**41)),
    variance_target=mostly(st.floats(0.1, 3)),
    costs=mostly(positive),
    min_rollouts=mostly(small | each),
    max_rollouts=mostly(st.integers(4, 90) | each | st.just(np.inf)),
    estimator=mostly(st.sampled_from(["rloo", "dr_grpo", "grpo"])),
) | some_of(min_rollouts=mostly(small), max_rollouts=mostly(st.integers(9, 90)))
budgets = mostly(st.integers(0, 99) | st.integers(0, 2**41) | st.floats(0, 1e6))


def check_allocation(plan: viprl.Allocation, budget: Any, given: dict[str, Any]) -> None:
    n = plan.counts
    assert n.dtype == np.int64
    assert (n >= 2).all()
    for name, fits in (("min_rollouts", np.less_equal), ("max_rollouts", np.greater_equal)):
        if name in given and given[name] is not None:
            assert fits(np.asarray(given[name], dtype=float), n).all()
    for value in (plan.expected_variance, plan.uniform_variance, plan.cost, plan.uniform_cost, plan.gap):
        assert np.isfinite(value)
        assert value >= 0
    if budget is None:
        assert n.sum() <= given["match_uniform"]
    elif given.get("costs") is None:
        assert n.sum() == budget
    else:
        assert np.asarray(given["costs"], dtype=float) @ n <= float(budget) * (1 + 1e-9)
    assert repr(plan)


@pytest.mark.parametrize(("allocate", "values"), [(viprl.allocate, shares), (viprl.allocate_weights, weights)])
@fuzz(data=st.data(), given=options)
def test_allocate(allocate: Any, values: Any, data: Any, given: dict[str, Any]) -> None:
    values = data.draw(mostly(values, among=20))
    budget = data.draw(st.none() | budgets if "match_uniform" in given else budgets)
    with or_refused() as refused:
        plan = allocate(values, budget=budget, **given)
    if not refused:
        check_allocation(plan, budget, given)


@fuzz(
    groups=st.lists(st.lists(mostly(st.sampled_from([0, 1, 0.5]) | numbers, anything), max_size=4), max_size=4),
    baseline=mostly(st.sampled_from(["leave_one_out", "mean"])),
    prior=st.booleans(),
)
def test_rewards_of_any_kind_have_finite_advantages(groups: list[list[Any]], baseline: Any, prior: bool) -> None:
    q = len(groups)
    shrunk = RewardPrior(np.linspace(-1, 1, q), np.arange(q, dtype=float)) if prior else None
    with or_refused() as refused:
        found = viprl.group_advantages(list(itertools.chain(*groups)), list(map(len, groups)), baseline, prior=shrunk)
    known = isinstance(baseline, str) and baseline in ("leave_one_out", "mean")
    assert bool(refused) == (not known or (prior and baseline == "mean"))
    if not refused:
        assert found.shape == (sum(map(len, groups)),)
        assert np.isfinite(found.astype(np.float32)).all()


@fuzz(rewards=anything, counts=mostly(anything | st.lists(st.integers(-1, 3), max_size=4)), prior=anything)
def test_advantages_of_any_arguments(rewards: Any, counts: Any, prior: Any) -> None:
    with or_refused() as refused:
        found = viprl.group_advantages(rewards, counts, prior=prior)
    if not refused:
        assert np.isfinite(found).all()
    with or_refused():
        viprl.pooled_advantages(rewards, counts)


@fuzz(
    counts=mostly(
        st.lists(mostly(st.integers(1, 9), st.integers(-9, 1000) | st.floats(-9, 9), 20), max_size=5), objects
    ),
    weighting=mostly(st.sampled_from(["prompt", "rollout"])),
    given=some_of(
        prompt_weights=mostly(st.lists(mostly(st.floats(0, 9), json_leaves, 20), max_size=5)),
        rows=mostly(st.none() | st.integers(1, 99)),
    ),
)
def test_rollout_weights(counts: Any, weighting: Any, given: dict[str, Any]) -> None:
    with or_refused() as refused:
        found = viprl.rollout_weights(counts, weighting, **given)
    if not refused:
        assert np.isfinite(found).all()
        if not given and len(found):
            np.testing.assert_allclose(found.mean(), 1)
