"""Learned weights: what a group measures, what is learned from it, and that nothing changes without surprisal."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from viprl import VIP
from viprl.errors import InputError
from viprl.predictors.base import Prediction
from viprl.reward_groups import GroupOutcomes
from viprl.weights.learned_weights import COLUMNS, LearnedWeights
from viprl.weights.surprisal import Surprisal, SurprisalUnit, measured_weight

NOTHING = np.array([np.nan])
of_counts = GroupOutcomes.of_counts


def believed(p, text=None):
    p = np.asarray(p, dtype=float)
    return Prediction(p, p * (1 - p), text)


def by_hand(outcomes, surprises):
    """(n-1)/n mean (r_i - mean of the others)^2 s_i, rollout by rollout."""
    n = len(outcomes)
    squares = [
        (outcomes[i] - np.mean([o for j, o in enumerate(outcomes) if j != i])) ** 2 * surprises[i] for i in range(n)
    ]
    return (n - 1) / n * np.mean(squares)


def test_measured_weight_is_the_definition():
    rng = np.random.default_rng(0)
    for n in range(2, 12):
        outcomes = (rng.random(n) < 0.6).astype(float)
        surprises = rng.exponential(2.0, n)
        surprise = Surprisal.of([outcomes], [-surprises])
        got = measured_weight(of_counts(np.array([outcomes.sum()]), np.array([float(n)])), surprise)
        assert got == pytest.approx(by_hand(outcomes, surprises), abs=1e-12)


def test_equal_surprises_give_the_sample_variance():
    k, n = np.array([0.0, 1, 3, 8]), np.array([4.0, 5, 6, 8])
    surprise = Surprisal(np.where(k > 0, 2.5, np.nan), np.where(n > k, 2.5, np.nan))
    assert measured_weight(of_counts(k, n), surprise) == pytest.approx(2.5 * of_counts(k, n).variance)
    assert measured_weight(of_counts(k, n), None) == pytest.approx(of_counts(k, n).variance)


def test_unmeasured_groups_are_nan():
    one = measured_weight(of_counts(np.array([1.0]), np.array([1.0])), Surprisal(np.ones(1), NOTHING))
    half = measured_weight(of_counts(np.array([1.0]), np.array([2.0])), Surprisal(NOTHING, np.ones(1)))
    assert np.isnan(one).all() and np.isnan(half).all()


def test_surprisal_is_a_mean_over_known_log_probabilities():
    surprise = Surprisal.of(
        [np.array([1.0, 1.0, 0.0, np.nan]), np.array([0.0])], [[-0.5, None, -3.0, -9.0], [float("-inf")]]
    )
    assert surprise.right.tolist()[0] == 0.5 and np.isnan(surprise.right[1])
    assert surprise.wrong.tolist()[0] == 3.0 and np.isnan(surprise.wrong[1])


def test_the_start_is_the_reward_variance():
    p = np.array([0.02, 0.5, 0.9])
    assert LearnedWeights().weigh(("a", "b", "c"), believed(p)) == pytest.approx(p * (1 - p))


def test_one_step_is_the_mode_of_the_quasi_posterior():
    rng = np.random.default_rng(1)
    keys = tuple(f"p{i}" for i in range(40))
    prediction = believed(rng.uniform(0.05, 0.95, 40), rng.normal(size=40))
    n = rng.integers(2, 9, 40).astype(float)
    k = rng.binomial(n.astype(int), prediction.success_probability).astype(float)
    surprise = Surprisal(np.where(k > 0, 0.7, 1.0), np.where(n > k, 3.0, 1.0))
    weights = LearnedWeights(forgetting_factor=0.9, prior_variance=(0.1, 0.5))
    weights._start(surprised=True)
    x = weights._design(keys, prediction)
    weights.observe(keys, prediction, of_counts(k, n), surprise)
    y, repeats, start = measured_weight(of_counts(k, n), surprise), n / n.mean(), np.zeros(COLUMNS)

    def loss(b):
        z = np.log(prediction.reward_variance) + x @ b
        return repeats @ (np.exp(z) - y * z) + 0.5 * np.sum((b - start) ** 2) / 0.5

    best = minimize(loss, start, method="BFGS", options={"gtol": 1e-8})
    assert weights._mean == pytest.approx(best.x, abs=2e-3)
    assert loss(weights._mean) <= best.fun + 1e-6


def test_it_learns_that_rare_failures_weigh_more():
    """Failures are ten times as surprising as successes: then the weight of p = .95 against p = .5 is larger than
    p(1-p) says, by E[(r-p)^2 s] = p(1-p)(p s0 + (1-p) s1)."""
    rng = np.random.default_rng(2)
    weights, n = LearnedWeights(), np.full(100, 8.0)
    keys, p = tuple(f"p{i}" for i in range(100)), np.repeat([0.05, 0.2, 0.5, 0.8, 0.95], 20)
    for _ in range(300):
        k = rng.binomial(8, p).astype(float)
        surprise = Surprisal(np.where(k > 0, 0.2, 1.0), np.where(k < n, 2.0, 1.0))
        weights.observe(keys, believed(p), of_counts(k, n), surprise)
    got = weights.weigh(keys, believed(p)).reshape(5, 20).mean(axis=1)
    p = p[::20]
    assert got[1:] == pytest.approx((p * (1 - p) * (2.0 * p + 0.2 * (1 - p)))[1:], rel=0.35)
    assert got[4] / got[2] > 1.3 * (0.95 * 0.05) / 0.25


def test_it_learns_from_the_surprisal_of_the_last_visit():
    """Two kinds of prompts, both always right when visited first; the surprised ones fail later."""
    rng = np.random.default_rng(3)
    weights, n = LearnedWeights(), np.full(20, 8.0)
    shaky = np.arange(20) < 10
    for step in range(60):
        keys = tuple(f"{step}-{i}" for i in range(20))
        surprise = Surprisal(np.where(shaky, 0.5, 0.01), np.ones(20))
        weights.observe(keys, believed(np.full(20, 0.9)), of_counts(n, n), surprise)
        later = np.where(shaky, rng.binomial(8, 0.6, 20), 8).astype(float)
        second = Surprisal(np.where(later > 0, 0.5, 1.0), np.where(later < 8, 0.5, 1.0))
        weights.observe(keys, believed(np.full(20, 0.9)), of_counts(later, n), second)
    fresh = ("x", "y")
    weights.observe(fresh, believed([0.9, 0.9]), of_counts(n[:2], n[:2]), Surprisal(np.array([0.5, 0.01]), np.ones(2)))
    got = weights.weigh(fresh, believed([0.9, 0.9]))
    assert got[0] > 4 * got[1]


def test_a_loaded_state_continues_identically():
    rng = np.random.default_rng(4)

    def step(weights, keys):
        p, n = rng.uniform(0.1, 0.9, 6), np.full(6, 4.0)
        k = rng.binomial(4, p).astype(float)
        return (keys, believed(p), of_counts(k, n), Surprisal(np.ones(6), np.where(k < 4, 2.0, 1.0)))

    first, second = LearnedWeights(), LearnedWeights()
    first.observe(*step(first, tuple("abcdef")))
    second.load_state_dict(first.state_dict())
    more = step(first, tuple("defghi"))
    first.observe(*more)
    second.observe(*more)
    question = (tuple("aeiz"), believed([0.1, 0.5, 0.9, 0.5]))
    assert (first.weigh(*question) == second.weigh(*question)).all()


def run(vip, steps, surprise):
    rng = np.random.default_rng(5)
    prompts = [f"prompt {i}" for i in range(12)]
    p = expit(np.linspace(-3, 3, 12))
    for _ in range(steps):
        plan = vip.allocate(prompts, 96)
        rewards = [(rng.random(c) < q).astype(float) for c, q in zip(plan.counts, p, strict=True)]
        given = [np.where(r == 1, -0.1, -3.0) for r in rewards] if surprise else None
        vip.observe(prompts, rewards, logprobs=given)
    return vip, prompts


def test_without_surprisal_only_settled_prompts_are_corrected():
    """All right once and always right from then on: their weight falls. Mixed and new prompts keep theirs."""
    rng, weights = np.random.default_rng(6), LearnedWeights()
    keys, n = tuple(f"p{i}" for i in range(20)), np.full(20, 8.0)
    p = np.where(np.arange(20) < 10, 0.95, 0.5)
    weights.observe(keys, believed(p), of_counts(np.where(p > 0.9, 8.0, 4.0), n))
    for _ in range(40):
        mixed = np.clip(rng.binomial(8, 0.5, 20), 1, 7)
        weights.observe(keys, believed(p), of_counts(np.where(p > 0.9, 8.0, mixed), n))
    got = weights.weigh((*keys, "new"), believed([*p, 0.95]))
    assert (got[:10] < 0.35 * 0.95 * 0.05).all()
    assert got[10:20] == pytest.approx(0.25, rel=0.25)
    assert got[20] == pytest.approx(0.95 * 0.05, rel=0.5)


def test_the_first_surprisal_starts_afresh():
    keys, n = ("a", "b"), np.full(2, 8.0)
    weights, fresh = LearnedWeights(), LearnedWeights()
    weights.observe(keys, believed([0.9, 0.5]), of_counts(np.array([8.0, 4.0]), n))
    surprise = Surprisal(np.array([0.1, 0.2]), np.array([1.0, 2.0]))
    for one in (weights, fresh):
        one._last = np.zeros((64, 3), dtype=np.float32)
        one._index = type(one._index)()
        one.observe(keys, believed([0.9, 0.5]), of_counts(np.array([8.0, 4.0]), n), surprise)
    assert (weights._mean == fresh._mean).all()


def test_batches_without_surprisal_are_learned_from_too():
    """Always mixed, then always all wrong, without log probabilities by then."""
    keys, n, weights = ("a", "b"), np.full(2, 8.0), LearnedWeights()
    for _ in range(5):
        weights.observe(keys, believed([0.5, 0.5]), of_counts(np.full(2, 4.0), n), Surprisal(np.ones(2), np.ones(2)))
    before = weights.weigh(keys, believed([0.5, 0.5]))
    for _ in range(20):
        weights.observe(keys, believed([0.5, 0.5]), of_counts(np.zeros(2), n))
    assert (weights.weigh(keys, believed([0.5, 0.5])) < 0.2 * before).all()


def counts_with(logprobs, steps=12):
    """Counts after some steps on the same draws; `logprobs` is a function of the true log probabilities."""
    rng, vip = np.random.default_rng(7), VIP(features="none", cache=None, min_rollouts=2)
    prompts, p = [f"prompt {i}" for i in range(24)], expit(np.linspace(-4, 4, 24))
    draws = rng.random((steps, 24, 200)), np.exp(rng.normal(size=(steps, 24, 200)))
    for chance, nats in zip(*draws, strict=True):
        plan = vip.allocate(prompts, 192)
        rewards = [(u[:c] < q).astype(float) for u, c, q in zip(chance, plan.counts, p, strict=True)]
        given = None if logprobs is None else [logprobs(-s[:c]) for s, c in zip(nats, plan.counts, strict=True)]
        vip.observe(prompts, rewards, logprobs=given)
    return vip.allocate(prompts, 192).counts.tolist()


def test_new_prompts_do_not_change_the_slope_of_prompts_seen_before():
    """In the first epoch doubt hardly differs between prompts; a slope on it would be wrong for the later ones."""
    rng, weights, n = np.random.default_rng(8), LearnedWeights(), np.full(20, 8.0)
    for step in range(30):
        p = rng.uniform(0.4, 0.6, 20)
        k = rng.binomial(8, np.where(p > 0.5, 0.5, 0.02)).astype(float)
        weights.observe(
            tuple(f"{step}-{i}" for i in range(20)), believed(p), of_counts(k, n), Surprisal(np.ones(20), np.ones(20))
        )
    seen = tuple(f"0-{i}" for i in range(20))
    rate, p = weights._last[:20, 0], np.linspace(0.05, 0.9, 20)
    mixed = (rate > 0) & (rate < 1)
    ratio = weights.weigh(seen, believed(p))[mixed] / (p * (1 - p))[mixed]
    assert ratio == pytest.approx(1, abs=0.01)


def test_the_length_of_the_texts_does_not_matter():
    assert counts_with(lambda nats: 300 * nats) == counts_with(lambda nats: nats) != counts_with(None)


def test_unknown_log_probabilities_change_nothing():
    assert counts_with(lambda nats: [None] * len(nats)) == counts_with(None)
    assert counts_with(lambda nats: np.full(len(nats), np.nan)) == counts_with(None)


def test_the_unit_is_the_mean_surprisal_of_what_varies_the_reward():
    unit, k, n = SurprisalUnit(forgetting_factor=0.5), np.array([4.0, 8.0, 2.0]), np.array([8.0, 8.0, 4.0])
    settled = Surprisal(np.array([3.0, 5.0]), np.array([1.0, np.nan]))
    assert SurprisalUnit().observe(of_counts(np.zeros(2), np.full(2, 4.0)), settled) == pytest.approx(3.0)
    first = Surprisal(np.array([2.0, 50.0, 1.0]), np.array([4.0, np.nan, 7.0]))
    # halves of eight and of four: (r - mean of the others)^2 is the same for all rollouts of a group
    sums = [3 * 2 / 7 + 4 / 3, 2 / 7 + 1 / 3]
    assert unit.observe(of_counts(k, n), first) == pytest.approx(sums[0] / sums[1])
    unknown = Surprisal(np.array([2.0, 50.0, 1.0]), np.array([10.0, np.nan, np.nan]))  # the last group counts nowhere
    assert unit.observe(of_counts(k, n), unknown) == pytest.approx((sums[0] / 2 + 6 * 2 / 7) / (sums[1] / 2 + 2 / 7))


def test_unknown_surprisal_is_one_unit():
    surprise = Surprisal(np.array([4.0, np.nan]), np.array([np.nan, 1.0])).in_units(2.0)
    assert surprise.right.tolist() == [2.0, 1.0] and surprise.wrong.tolist() == [1.0, 0.5]


def test_log_probabilities_move_rollouts_to_improbable_failures():
    plain, prompts = run(VIP(features="none", cache=None), 12, surprise=False)
    vip, _ = run(VIP(features="none", cache=None), 12, surprise=True)
    solved, failed = vip.allocate(prompts, 96).counts[9:].sum(), vip.allocate(prompts, 96).counts[:3].sum()
    before = plain.allocate(prompts, 96).counts
    assert solved / failed > 1.3 * before[9:].sum() / before[:3].sum()
    resumed = VIP(features="none", cache=None)
    resumed.load_state_dict(vip.state_dict())
    for one in (vip, resumed):  # another unit would show after the next batch
        counts = one.allocate(prompts, 96).counts
        rewards, logprobs = [[1.0] + [0.0] * (c - 1) for c in counts], [[-9.0] + [-5.0] * (c - 1) for c in counts]
        one.observe(prompts, rewards, logprobs=logprobs)
    assert (resumed.allocate(prompts, 96).counts == vip.allocate(prompts, 96).counts).all()


def test_repeated_prompts_are_merged_with_their_log_probabilities():
    once, twice = VIP(features="none", cache=None), VIP(features="none", cache=None)
    once.observe(["a", "b"], [[1, 0, 1, 1], [0, 0]], logprobs=[[-0.1, -2.0, -0.2, -0.3], [-1.0, -1.0]])
    twice.observe(["a", "b", "a"], [[1, 0], [0, 0], [1, 1]], logprobs=[[-0.1, -2.0], [-1.0, -1.0], [-0.2, -0.3]])
    assert (once.allocate(["a", "b"], 20).counts == twice.allocate(["a", "b"], 20).counts).all()
    a, b = (vip.strategies["default"].weights for vip in (once, twice))
    assert a._mean == pytest.approx(b._mean, abs=1e-12)


def test_log_probabilities_of_another_shape_are_refused_and_nothing_is_learned():
    vip = VIP(features="none", cache=None)
    with pytest.raises(InputError, match="logprobs"):
        vip.observe(["a", "b"], [[1, 0], [0, 0]], logprobs=[[-0.1, -2.0], [-1.0]])
    assert len(vip.strategies["default"].weights._index) == 0
