"""Two waves through VIP: the expected gradient over all outcomes, and what must hold for every budget and reward."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations_with_replacement, product
from math import factorial, prod

import numpy as np
import pytest

import viprl
from viprl import VIP
from viprl import metrics as names
from viprl.allocation.budget import Budget
from viprl.allocation.waves.beliefs import Beliefs
from viprl.allocation.waves.estimator import FirstLook, wave_advantages
from viprl.allocation.waves.pooled import Waves
from viprl.allocation.waves.rule import plan_looks
from viprl.allocation.waves.second_wave import second_counts, uniform_variances
from viprl.errors import InputError

PROMPTS = [f"prompt {i}" for i in range(64)]
P = np.array([0.0, 0.05, 0.2, 0.5, 0.8, 1.0])
DEAD = np.array([0.75, 0.05, 0.05, 0.1, 0.05, 0.0])


def _taught(low: float = 0.0, high: float = 1.0, **options: object) -> VIP:
    """Knows that three of four prompts are dead, and the range of the rewards."""
    given = {"features": None, "min_rollouts": 2, "max_rollouts": 32, "seed": 0, **options}
    vip = VIP(**given)  # type: ignore[arg-type]
    vip.observe_counts([f"known {i}" for i in range(300)], np.where(np.arange(300) % 4 == 0, 8, 0), np.full(300, 16))
    known, lengths = [[low] * 4 + [high] * 2 * (i % 4 == 0) for i in range(40)], options.get("cost") == "tokens"
    if (low, high) != (0.0, 1.0) or options.get("baseline") == "expected":
        vip.observe([f"with rewards {i}" for i in range(40)], known, lengths=known if lengths else None)
    return vip


def _samples(n: int, chance: list[float]) -> Iterator[tuple[float, list[int]]]:
    """Probability of each multiset of n outcomes, and its outcomes."""
    for outcomes in combinations_with_replacement(range(len(chance)), n):
        sizes = np.bincount(outcomes, minlength=len(chance)).tolist()
        ways = factorial(n) // prod(map(factorial, sizes))
        yield ways * prod(p**k for p, k in zip(chance, sizes, strict=True)), list(outcomes)


def _expected_gradients(waves: Waves, chances: list[list[float]], values: np.ndarray) -> np.ndarray:
    """[Q, J] expected gradient with respect to the logits of J outcomes with these values."""
    first = waves.plan.first.tolist()
    found = np.zeros((len(first), len(values)))
    known: dict[tuple[int, tuple[int, ...], int], np.ndarray] = {}
    for drawn in product(*map(_samples, [int(w) for w in first], chances)):
        chance = prod(one[0] for one in drawn)
        after, counts = waves.after([values[one[1]] for one in drawn])
        for q, (_, shown) in enumerate(drawn):
            key = q, tuple(shown), int(counts[q])
            if key not in known:
                known[key] = _gradient(after, q, shown, counts, chances[q], values)
            found[q] += chance * known[key]
    return found


def _gradient(
    after: Waves, q: int, shown: list[int], counts: np.ndarray, chance: list[float], values: np.ndarray
) -> np.ndarray:
    """[J] expected over the second wave of prompt q; what other prompts show does not matter."""
    total = np.zeros(len(values))
    other = [values[0] if min(look.marked) == 0 else values[-1] for look in after.labels or ()]
    groups = [np.repeat(value, n) for value, n in zip(other, counts, strict=True)]
    for p, more in _samples(int(counts[q]) - len(shown), chance):
        outcomes = [*shown, *more]
        groups[q] = values[outcomes]
        scores = np.eye(len(values))[outcomes] - chance
        total += p * after.advantages(groups)[q] @ scores / len(outcomes)
    return total


@pytest.mark.parametrize("baseline", ["group", "expected"])
@pytest.mark.parametrize(
    ("low", "high", "values", "chances"),
    [
        (0.0, 1.0, [0.0, 1.0], [[0.9, 0.1], [0.4, 0.6]]),
        (1.0, 3.0, [1.0, 3.0], [[0.9, 0.1], [0.4, 0.6]]),
        (-1.0, 1.0, [-1.0, 0.3, 1.5], [[0.5, 0.3, 0.2], [0.9, 0.05, 0.05]]),
    ],
)
def test_the_expected_gradient_is_the_true_one(
    baseline: str, low: float, high: float, values: list[float], chances: list[list[float]]
) -> None:
    plan = _taught(low, high, baseline=baseline).allocate(PROMPTS[:2], 12, waves=2)
    assert plan.waves is not None
    assert plan.waves.plan.looks.all()
    assert (plan.waves.plan.share > 0).all() == (baseline == "expected")
    assert plan.waves.threshold == (low + high) / 2
    assert ((low < plan.waves.mean) & (plan.waves.mean < high)).all()
    reward = np.array(values)
    expected = [np.array(chance) * (reward - np.dot(chance, reward)) for chance in chances]
    np.testing.assert_allclose(_expected_gradients(plan.waves, chances, reward), expected, atol=1e-13)


def test_prompts_that_are_rounded_up_stay_unbiased() -> None:
    plan = _taught().allocate(PROMPTS[:3], 16, waves=2, multiple=4)
    assert plan.waves is not None
    assert plan.counts.sum() % 4 == 0
    assert plan.waves.plan.looks.any()
    assert not plan.waves.plan.looks.all()
    chances, reward = [[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]], np.array([0.0, 1.0])
    expected = [np.array(chance) * (reward - chance[1]) for chance in chances]
    np.testing.assert_allclose(_expected_gradients(plan.waves, chances, reward), expected, atol=1e-13)


def test_unscorable_rewards_without_a_look_are_left_out_as_with_one_wave() -> None:
    rewards = [1.0, 0.0, np.nan, 1.0, 0.0, np.nan]
    expected = viprl.group_advantages(rewards, [6])
    np.testing.assert_allclose(wave_advantages(rewards, FirstLook.of(4, range(5))), expected)


def test_heavier_prompts_get_more_of_the_second_wave() -> None:
    beliefs = Beliefs(P, np.array([DEAD] * 8), np.array([0.2] * 4 + [1.0] * 4))
    budget = Budget.of(8, 64, 2, 40, "rloo")
    plan = plan_looks(beliefs, budget, np.random.default_rng(0))
    rest = np.minimum(2, plan.first - 1)
    more = second_counts(plan, rest, budget, np.random.default_rng(0)) - plan.first
    assert plan.looks.all()
    assert more[4:].sum() > 1.5 * more[:4].sum()


def test_a_match_is_with_uniform_counts_and_baselines_of_the_group() -> None:
    budget = Budget.of(4, 32, 2, 40, "rloo").matching(1.0)
    groups = uniform_variances(Beliefs(P, np.array([DEAD] * 4), np.ones(4), signal=0.0), budget)
    np.testing.assert_allclose(groups, DEAD @ (P * (1 - P)) / 7)
    shrunk = Beliefs(P, np.array([DEAD] * 4), np.ones(4), trust=1.0, signal=0.0)
    np.testing.assert_allclose(uniform_variances(shrunk, budget), groups)
    factors = np.array([1.0, 2.0, 0.5, 1.0])
    np.testing.assert_allclose(uniform_variances(shrunk, replace(budget, reference_factors=factors)), factors * groups)


@pytest.mark.parametrize(("multiple", "average"), [(1, 3), (4, 3), (16, 4), (16, 8)])
@pytest.mark.parametrize("spend", ["budget", "match"])
def test_both_waves_keep_bounds_multiples_and_the_budget(multiple: int, average: int, spend: str) -> None:
    rng, vip = np.random.default_rng(0), _taught(spend=spend, max_rollouts=9)
    first = vip.allocate(PROMPTS[:32], 32 * average, waves=2, multiple=multiple)
    second = vip.next(first, [(rng.random(n) < 0.2).astype(float).tolist() for n in first.counts])
    total = first.counts + second.counts
    assert first.waves is not None
    assert first.counts.sum() % multiple == total.sum() % multiple == 0
    assert total.sum() == 32 * average if spend == "budget" else total.sum() <= 32 * average
    assert (second.counts >= 0).all()
    assert total.min() >= 2
    assert total.max() <= 9


@pytest.mark.parametrize(
    ("least", "most", "budget"),
    [([2] * 20, [3] * 10 + [32] * 10, 160), ([2] * 10, [2] * 9 + [190], 200)],
)
def test_bounds_of_single_prompts_are_kept(least: list[int], most: list[int], budget: int) -> None:
    vip, prompts = _taught(), PROMPTS[: len(most)]
    first = vip.allocate(prompts, budget, waves=2, min_rollouts=least, max_rollouts=most)
    total = first.counts + vip.next(first, [[0.0] * n for n in first.counts]).counts
    assert total.sum() == budget
    assert ((np.array(least) <= total) & (total <= most)).all()


def test_a_multiple_is_kept_before_lengths_are_known() -> None:
    first = _taught(cost="tokens").allocate(PROMPTS[:12], 128, waves=2, multiple=64)
    assert first.counts.sum() % 64 == 0


def test_a_second_wave_is_planned_once() -> None:
    vip = _taught()
    first = vip.allocate(PROMPTS, 512, waves=2)
    shown = [[0.0] * n for n in first.counts]
    second = vip.next(first, shown)
    with pytest.raises(InputError):
        vip.next(second, shown)


def test_a_group_that_is_lost_after_its_first_wave() -> None:
    vip = _taught()
    first = vip.allocate(PROMPTS, 512, waves=2)
    shown = [[1.0] * n if q == 0 else [0.0] * n for q, n in enumerate(first.counts)]
    second = vip.next(first, shown)
    rewards: list[list[float | None]] = [[*group, *[0.0] * n] for group, n in zip(shown, second.counts, strict=True)]
    rewards[0] = [None] * len(rewards[0])
    vip.observe(PROMPTS, rewards)
    assert (viprl.pooled_advantages(rewards, second)[: len(rewards[0])] == 0).all()


def test_groups_of_other_sizes_are_refused_as_such() -> None:
    vip = _taught()
    first = vip.allocate(PROMPTS, 512, waves=2)
    second = vip.next(first, [[0.0] * n for n in first.counts])
    with pytest.raises(InputError):
        viprl.pooled_advantages([[0.0] * 8] * 5, second)


def test_the_weights_of_selected_prompts_count_in_the_plan_and_in_its_guard() -> None:
    vip = _taught()
    known = [f"seen {i}" for i in range(32)]
    vip.observe_counts(known, np.arange(32) % 9, np.full(32, 8))
    selection = vip.select([*PROMPTS[:32], *known], 256, 32, waves=2)
    waves, squares = selection.allocation.waves, selection.weights**2
    assert waves is not None
    assert squares.max() > 1.5 * squares.min()
    np.testing.assert_allclose(waves.plan.beliefs.scale * squares.max(), squares)
    assert (waves.plan.beliefs.unseen == (selection.positions < 32)).all()
    (pending,) = vip._pending._plans.values()
    looks = vip._memory.looks
    looks.observe(pending, np.zeros(32), np.arange(32.0))
    assert looks._comparison.state_dict()["difference"][1] == pytest.approx(-squares @ np.arange(32.0))


def test_a_match_says_nothing_about_harm() -> None:
    vip = _taught(spend="match")
    assert vip.allocate(PROMPTS, 512, waves=2).waves is not None
    (pending,) = vip._pending._plans.values()
    vip._memory.looks.observe(pending, np.zeros(64), np.ones(64))
    assert not vip._memory.looks._comparison.state_dict()["difference"].any()


def test_costly_prompts_get_smaller_groups() -> None:
    beliefs, costs = Beliefs(P, np.array([DEAD] * 16), np.ones(16)), np.repeat([1.0, 6.0], 8)
    budget = Budget.of(16, 128, 2, 40, "rloo").limited(8 * costs.sum(), costs)
    plan = plan_looks(beliefs, budget, np.random.default_rng(0))
    assert plan.looks.any()
    assert plan.first[:8].sum() > plan.first[8:].sum()


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (1.0, 3.0)])
def test_the_realised_ratio_is_that_of_unbiased_variances(low: float, high: float) -> None:
    rng, vip = np.random.default_rng(3), _taught(low, high)
    first = vip.allocate(PROMPTS, 512, waves=2)
    p = np.where(np.arange(64) % 4 == 0, 0.4, 0.0)
    shown = [low + (high - low) * (rng.random(n) < chance) for n, chance in zip(first.counts, p, strict=True)]
    second = vip.next(first, shown)
    more = [low + (high - low) * (rng.random(n) < chance) for n, chance in zip(second.counts, p, strict=True)]
    rewards = [np.concatenate(both) for both in zip(shown, more, strict=True)]
    vip.observe(PROMPTS, [group.tolist() for group in rewards])
    assert second.waves is not None
    own = sum(float(a @ a) / len(a) ** 2 for a in second.waves.advantages(rewards))
    variances = np.array([group.var(ddof=1) for group in rewards]) * second.waves.variance_factors(rewards)
    assert vip.metrics()[names.REALISED_RATIO] == pytest.approx(own / (variances.sum() / 7))


def test_baselines_of_looks_say_nothing_about_those_of_one_wave() -> None:
    vip = _taught(baseline="expected")
    before = vip._memory.shrinkage.state_dict()
    first = vip.allocate(PROMPTS, 512, waves=2)
    assert first.waves is not None
    assert first.waves.plan.looks.all()
    shown = [[float(q % 4 == 0 and i % 2 == 0) for i in range(n)] for q, n in enumerate(first.counts)]
    second = vip.next(first, shown)
    vip.observe(PROMPTS, [group + [1.0] * n for group, n in zip(shown, second.counts, strict=True)])
    assert str(vip._memory.shrinkage.state_dict()) == str(before)


def test_nothing_is_expected_before_rewards_are_known() -> None:
    vip = VIP(features=None, min_rollouts=2, max_rollouts=32, baseline="expected")
    vip.observe_counts([f"known {i}" for i in range(300)], np.where(np.arange(300) % 4 == 0, 8, 0), np.full(300, 16))
    plan = vip.allocate(PROMPTS, 512, waves=2)
    assert plan.waves is not None
    assert (plan.waves.plan.share == 0).all()


def test_no_looks_with_a_larger_variance_where_all_is_spent() -> None:
    beliefs = Beliefs(P, np.array([[0.25, 0.1, 0.2, 0.1, 0.1, 0.25]] * 3), np.ones(3))
    plan = plan_looks(beliefs, Budget.of(3, 9, 2, 32, "rloo"), np.random.default_rng(0))
    assert not plan.looks.any() or plan.variance_ratio < 1


def test_large_groups_are_sampled_at_once(caplog: pytest.LogCaptureFixture) -> None:
    vip = _taught(max_rollouts=1000)
    assert vip.allocate(PROMPTS[:8], 8 * 65, waves=2).waves is None
    assert len(caplog.records) == 1
    plan = vip.allocate(PROMPTS[:8], 8 * 60, waves=2)
    assert plan.counts.max() <= 128


def test_many_rollouts_that_round_up_are_spread() -> None:
    plan = _taught().allocate(PROMPTS[:63], 512, multiple=64, waves=2)
    assert plan.waves is not None
    assert plan.counts.sum() % 64 == 0
    assert plan.counts.max() <= 9


def test_rewards_that_contradict_the_first_wave_change_nothing() -> None:
    vip = _taught()
    first = vip.allocate(PROMPTS[:20], 160, waves=2)
    second = vip.next(first, [[0.0] * n for n in first.counts])
    sizes = first.counts + second.counts
    assert (sizes < 2 * first.counts).any()  # then not all can be successes
    before = str(vip.state_dict()["scale"])
    with pytest.raises(InputError):
        vip.observe(PROMPTS[:20], [[1.0] * n for n in sizes])
    assert str(vip.state_dict()["scale"]) == before
    vip.observe(PROMPTS[:20], [[0.0] * n for n in sizes])
