"""Ragged-group advantages against plain loops, and against the exact gradient of a policy small enough to have one.

Expectations and variances are not sampled where they can be had exactly: all |answers|^n outcomes of a group are
enumerated, each with its probability.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandits import Policy
from viprl.advantages import group_advantages, group_index, group_std, rollout_weights
from viprl.allocation.optimum import allocate
from viprl.errors import InputError


def loops(rewards, counts, baseline):
    out, start = [], 0
    for n in counts:
        group = list(rewards[start : start + n])
        start += n
        good = [r for r in group if not math.isnan(r)]
        for position, r in enumerate(group):
            if math.isnan(r) or len(good) < 2:
                out.append(0.0)
            elif baseline == "mean":
                out.append(r - sum(good) / len(good))
            else:
                others = [x for i, x in enumerate(group) if i != position and not math.isnan(x)]
                out.append(r - sum(others) / len(others))
    return out


def ragged(rng: np.random.Generator, missing: float):
    counts = rng.integers(1, 9, 12)
    rewards = rng.normal(size=counts.sum())
    return np.where(rng.random(len(rewards)) < missing, np.nan, rewards), counts


@pytest.mark.parametrize("baseline", ["leave_one_out", "mean"])
@pytest.mark.parametrize("missing", [0.0, 0.3, 0.9, 1.0])
def test_against_loops(baseline: str, missing: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        rewards, counts = ragged(rng, missing)
        got = group_advantages(rewards, counts, baseline)
        np.testing.assert_allclose(got, loops(rewards, counts, baseline), atol=1e-13)
        assert np.isfinite(got).all()


def test_by_hand() -> None:
    rewards = [1, 0, 0, 1, 1, math.nan, 0]
    counts = [3, 2, 2]
    np.testing.assert_allclose(group_advantages(rewards, counts), [1, -0.5, -0.5, 0, 0, 0, 0])
    np.testing.assert_allclose(group_advantages(rewards, counts, "mean"), [2 / 3, -1 / 3, -1 / 3, 0, 0, 0, 0])


def test_a_single_scorable_rollout_teaches_nothing() -> None:
    for baseline in ("leave_one_out", "mean"):
        np.testing.assert_array_equal(group_advantages([math.nan, 1, math.nan, 1], [3, 1], baseline), 0)


def test_groups_are_contiguous_and_in_order() -> None:
    np.testing.assert_array_equal(group_index([2, 0, 3, 1]), [0, 0, 2, 2, 2, 3])


def test_std_with_divisor_m_minus_one() -> None:
    rng = np.random.default_rng(1)
    rewards, counts = ragged(rng, 0.3)
    expected = []
    for group in np.split(rewards, np.cumsum(counts)[:-1]):
        good = group[~np.isnan(group)]
        expected.append(np.std(good, ddof=1) if len(good) > 1 else 0.0)
    np.testing.assert_allclose(group_std(rewards, counts), expected, atol=1e-13)


def test_rollout_weights_give_every_prompt_the_same_weight() -> None:
    counts = np.array([2, 6, 4])
    scale = rollout_weights(counts)
    np.testing.assert_allclose(scale, [2, 2, *[4 / 6] * 6, *[1] * 4])
    np.testing.assert_allclose(np.bincount(group_index(counts), scale) / counts.sum(), 1 / 3)
    np.testing.assert_array_equal(rollout_weights(counts, "rollout"), 1)
    np.testing.assert_allclose(rollout_weights([5, 5]), 1)


def test_weights_of_prompts_multiply_those_of_their_rollouts() -> None:
    counts, factors = np.array([2, 6, 4]), [0.5, 3, 0]
    found = rollout_weights(counts, prompt_weights=factors)
    np.testing.assert_allclose(found, rollout_weights(counts) * np.repeat(factors, counts))
    np.testing.assert_allclose(rollout_weights(counts, "rollout", prompt_weights=factors), np.repeat(factors, counts))
    for wrong in ([1, 1], [1, 1, 1, 1], "abc", 2.0):
        with pytest.raises(InputError, match="prompt_weights"):
            rollout_weights(counts, prompt_weights=wrong)


def test_counts_of_an_allocation_and_of_an_iterator() -> None:
    planned = allocate([0.5, 0.1], budget=8)
    rewards = [1.0, 0, 1, 0, 0, 1, 1, 0]
    counts = planned.counts.tolist()
    for function in (group_advantages, group_std):
        expected = function(rewards, counts)
        np.testing.assert_array_equal(function(rewards, planned), expected)
        np.testing.assert_array_equal(function(iter(rewards), iter(counts)), expected)
    np.testing.assert_array_equal(group_index(planned), group_index(counts))


def test_refusals() -> None:
    with pytest.raises(InputError, match="5"):
        group_advantages([1, 0, 1], [3, 2])
    with pytest.raises(InputError, match="'token'"):
        rollout_weights([2, 2], "token")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given",
    [{"weighting": np.zeros(0)}, {"rows": object()}, {"rows": 0}, {"prompt_weights": [1, math.nan]},
     {"prompt_weights": [1, 1e300]}],
)  # fmt: skip
def test_weights_that_would_not_be_finite_are_refused(given) -> None:
    with pytest.raises(InputError):
        rollout_weights([2, 2], **given)


def test_no_prompts_have_no_weights() -> None:
    assert rollout_weights([], rows=4).shape == (0,)


def test_unknown_baselines_are_refused() -> None:
    with pytest.raises(InputError, match="baseline"):
        group_advantages([1, 0], [2], "rloo")  # type: ignore[arg-type]


def test_equal_rewards_have_no_advantage_at_all() -> None:
    for baseline in ("leave_one_out", "mean"):
        np.testing.assert_array_equal(group_advantages([0.1] * 3 + [0.7] * 6, [3, 6], baseline), 0)


FLOATS = st.floats() | st.sampled_from([math.inf, -math.inf, math.nan, 1e39, -3.4e38, 1e30, -1e30, 1e300, 0.0, 1.0])


@given(
    st.lists(st.lists(FLOATS, min_size=1, max_size=4), min_size=1, max_size=4),
    st.sampled_from(["leave_one_out", "mean"]),
)
def test_advantages_are_finite_whatever_the_rewards(groups: list[list[float]], baseline) -> None:
    """Also in float32, after the weights. Infinite and huge rewards count as NaN does."""
    rewards, counts = [r for group in groups for r in group], [len(group) for group in groups]
    advantages = group_advantages(rewards, counts, baseline)
    weighted = (advantages * rollout_weights(counts)).astype(np.float32)
    assert np.isfinite(weighted).all()
    assert np.isfinite(group_std(rewards, counts)).all()
    known = [r if abs(r) <= 1e30 else math.nan for r in rewards]
    np.testing.assert_array_equal(advantages, group_advantages(known, counts, baseline))
    np.testing.assert_array_equal(group_std(rewards, counts), group_std(known, counts))


@pytest.mark.parametrize("bad", [math.inf, -math.inf, 1e39, -1e300, None, "1.0", b"1", [], object(), 10**400])
def test_an_unscorable_reward_leaves_the_others_alone(bad) -> None:
    np.testing.assert_array_equal(group_advantages([bad, 1.0, 0.0, 1, 1], [3, 2]), [0, 1, -1, 0, 0])
    np.testing.assert_array_equal(group_std([bad, 1.0, 0.0, 1, bad], [3, 2]), [math.sqrt(0.5), 0])


@pytest.mark.parametrize("bad", ["10", b"10", {0: 1.0, 1: 0.0}, {0.0, 1.0}, [[1, 0]], 1.0, None])
def test_what_is_no_list_of_rewards(bad) -> None:
    with pytest.raises(InputError, match="rewards"):
        group_advantages(bad, [2])


@pytest.mark.parametrize(
    "bad", [[1.5, 0.5], [3, -1], [math.nan, 2], [math.inf, 2], ["1", "1"], {1}, "2", 2, None, [2**62, 2]]
)
def test_what_are_no_counts(bad) -> None:
    for function in (rollout_weights, group_index, lambda counts: group_advantages([1.0, 0.0], counts)):
        with pytest.raises(InputError, match="counts"):
            function(bad)


def test_masked_rewards_are_unscorable() -> None:
    masked = np.ma.array([5.0, 1, 0], mask=[True, False, False])
    np.testing.assert_array_equal(group_advantages(masked, [3]), [0, 1, -1])


def test_columns_and_tensors() -> None:
    pandas, torch = pytest.importorskip("pandas"), pytest.importorskip("torch")
    rewards = [1.0, 0, 0, 1, 1]
    expected, weights = group_advantages(rewards, [3, 2]), rollout_weights([3, 2])
    for given_ in (
        pandas.Series(rewards, index=[4, 3, 2, 1, 0]),
        torch.tensor(rewards, requires_grad=True),
        iter(rewards),
    ):
        np.testing.assert_array_equal(group_advantages(given_, pandas.Series([3, 2], index=[1, 0])), expected)
    np.testing.assert_array_equal(rollout_weights(torch.tensor([3, 2])), weights)


def mean_and_variance(chance: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, float]:
    mean = chance @ values
    return mean, float(chance @ ((values - mean) ** 2).sum(1))


def test_the_exact_gradient_is_the_derivative() -> None:
    """The score-function gradient against finite differences of p(theta)."""
    policy, h = Policy(0, 3, 4, 5), 1e-6
    for d in range(5):
        moved = [policy.pi * np.exp(sign * h * policy.score[:, :, d]) for sign in (1, -1)]
        plus, minus = ((pi / pi.sum(1, keepdims=True) * policy.reward).sum(1) for pi in moved)
        np.testing.assert_allclose(policy.gradient()[:, d], (plus - minus) / (2 * h), atol=1e-8)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_rloo_is_unbiased_and_dr_grpo_shrinks(n: int) -> None:
    policy = Policy(1, 3, 4, 6)
    for q, gradient in enumerate(policy.gradient()):
        chance, values = policy.estimates(q, n, "leave_one_out")
        assert chance.sum() == pytest.approx(1)
        np.testing.assert_allclose(chance @ values, gradient, atol=1e-13)
        chance, values = policy.estimates(q, n, "mean")
        np.testing.assert_allclose(chance @ values, (n - 1) / n * gradient, atol=1e-13)


@pytest.mark.parametrize("n", [2, 3, 4, 6])
def test_variance_laws_are_exact_when_reward_and_score_are_independent(n: int) -> None:
    """Four outcomes: reward 0/1 with p, score -1/+1 evenly; Var = a f(n) with a = p(1-p) s^2, s = 1."""
    p = 0.3
    outcomes = np.array(list(itertools.product([0, 1, 2, 3], repeat=n)))
    reward, score = (outcomes // 2).astype(float), 2.0 * (outcomes % 2) - 1
    chance = np.where(reward == 1, p, 1 - p).prod(1) / 2**n
    for baseline, law in (("leave_one_out", 1 / (n - 1)), ("mean", (n - 1) / n**2)):
        advantages = group_advantages(reward.ravel(), [n] * len(reward), baseline).reshape(-1, n)
        mean, variance = mean_and_variance(chance, (advantages * score).mean(1)[:, None])
        assert mean == pytest.approx(0, abs=1e-14)
        assert variance == pytest.approx(p * (1 - p) * law, rel=1e-12)


def moments(policy: Policy, q: int) -> tuple[float, float, float]:
    """A and B of the exact law, and a = Var(r) E|Z|^2 of the published one."""
    pi, g = policy.pi[q], policy.gradient()[q]
    norm = (policy.score[q] ** 2).sum(1)
    spread = float(pi @ ((policy.reward[q] - policy.p[q]) ** 2 * norm))
    a = float(policy.p[q] * (1 - policy.p[q]) * (pi @ norm))
    return spread - float(g @ g), a + float(g @ g), a


@pytest.mark.parametrize("n", [2, 3, 5])
def test_exact_law_of_a_real_policy(n: int) -> None:
    policy = Policy(2, 4, 4, 6)
    for q in range(4):
        big_a, big_b, _ = moments(policy, q)
        law = big_a / n + big_b / (n * (n - 1))
        assert mean_and_variance(*policy.estimates(q, n, "leave_one_out"))[1] == pytest.approx(law, rel=1e-11)
        shrunk = ((n - 1) / n) ** 2 * law
        assert mean_and_variance(*policy.estimates(q, n, "mean"))[1] == pytest.approx(shrunk, rel=1e-11)


def test_size_of_the_published_law_s_error() -> None:
    """Ten softmax bandits at n = 8: a/(n-1) is wrong by factors between a fifth and one and a half, A/(n-1) by less
    than a fifth. (Where success is rare, the published law is far worse: rare successes have large scores.)"""
    n, published, better = 8, [], []
    for seed in range(10):
        bandit = Policy(seed, 1, 6, 6)
        logits = 1.5 * np.random.default_rng(seed).normal(size=6)
        bandit.pi = (np.exp(logits) / np.exp(logits).sum())[None]
        bandit.score = np.eye(6)[None] - bandit.pi[:, None, :]
        bandit.p = (bandit.pi * bandit.reward).sum(1)
        big_a, big_b, a = moments(bandit, 0)
        truth = big_a / n + big_b / (n * (n - 1))
        published.append(a / (n - 1) / truth)
        better.append(big_a / (n - 1) / truth)
    assert 0.2 < min(published) < 0.5
    assert 1.2 < max(published) < 1.6
    assert min(better) > 0.8
    assert max(better) < n / (n - 1)  # B > 0: A/(n-1) can never be more than n/(n-1) of the truth
    assert np.std(np.log(better)) < np.std(np.log(published)) / 3


def draw_batch(policy: Policy, counts: np.ndarray, draws: int, rng: np.random.Generator):
    """[draws, C] rewards and [draws, C, D] scores of whole batches."""
    group = group_index(counts)
    uniform = rng.random((draws, len(group)))
    answers = (uniform[:, :, None] > np.cumsum(policy.pi, 1)[group][None, :, :-1]).sum(2)
    return policy.reward[group, answers], policy.score[group, answers]


def batch_gradients(policy, counts, rewards, scores, baseline, weighting) -> np.ndarray:
    """[draws, D] what a trainer computes: the mean over all rollouts of scaled advantage times score."""
    draws = len(rewards)
    advantages = group_advantages(rewards.ravel(), np.tile(counts, draws), baseline).reshape(draws, -1)
    return np.einsum("bc,bcd->bd", advantages * rollout_weights(counts, weighting), scores) / counts.sum()


def assert_mean(values: np.ndarray, expected: np.ndarray) -> None:
    error = values.std(0) / np.sqrt(len(values))
    assert (np.abs(values.mean(0) - expected) < 5 * error).all()


def assert_not_mean(values: np.ndarray, other: np.ndarray) -> None:
    error = values.std(0) / np.sqrt(len(values))
    assert (np.abs(values.mean(0) - other) > 8 * error).any()


def test_batch_gradients_by_monte_carlo() -> None:
    """Prompt-equal RLOO estimates the mean of the prompts' gradients; rollout-equal another objective."""
    policy, counts, rng = Policy(3, 4, 3, 4), np.array([2, 3, 9, 18]), np.random.default_rng(0)
    rewards, scores = draw_batch(policy, counts, 40_000, rng)
    gradient = policy.gradient()
    target = gradient.mean(0)

    rloo = batch_gradients(policy, counts, rewards, scores, "leave_one_out", "prompt")
    assert_mean(rloo, target)

    by_rollouts = batch_gradients(policy, counts, rewards, scores, "leave_one_out", "rollout")
    assert_mean(by_rollouts, counts / counts.sum() @ gradient)
    assert_not_mean(by_rollouts, target)

    dr_grpo = batch_gradients(policy, counts, rewards, scores, "mean", "prompt")
    assert_mean(dr_grpo, ((counts - 1) / counts)[:, None].T @ gradient / 4)
    assert_not_mean(dr_grpo, target)

    exact = sum(moments(policy, q)[0] / n + moments(policy, q)[1] / (n * (n - 1)) for q, n in enumerate(counts)) / 16
    assert rloo.var(0).sum() == pytest.approx(exact, rel=0.05)
