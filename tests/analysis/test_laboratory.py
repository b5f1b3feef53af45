"""What a measurement says about designs; beliefs about reward variances."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import beta

from analysis.bandits import Bandits
from viprl.analysis import designs, laboratory
from viprl.analysis.designs import Design, best_counts, expected_terms, expected_tokens
from viprl.analysis.gradient_variance import VarianceLaw
from viprl.analysis.laboratory import Measurement, Step, VarianceBelief, compare, usual_designs
from viprl.analysis.second_moment import second_moment
from viprl.errors import DataError

POOL = Bandits.make(prompts=24, settled=8)
V = (POOL.p * (1 - POOL.p)).clip(0)
KNOWN = Measurement(POOL.laws, POOL.cross, 24, VarianceBelief(V, V**2))


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(laboratory, "RESAMPLES", 25)
    monkeypatch.setattr(designs, "BATCHES", 32)


STEP = Step(prompts=8, budget=32, candidates=16, max_rollouts=16)


def test_r_follows_from_rho_and_the_parts():
    """R = (S + V_b + rho V_w)/(S + V_b + V_w) for counts; selection is lower still."""
    uniform, counts, selection = compare(KNOWN, usual_designs(KNOWN, STEP), np.random.default_rng(0))
    S, V_b, V_w = (uniform.parts[part].mean for part in ("signal", "prompts", "rollouts"))
    rho = counts.rollouts_ratio.mean
    assert counts.ratio.mean == pytest.approx((S + V_b + rho * V_w) / (S + V_b + V_w))
    assert 1 == uniform.ratio.mean > counts.ratio.mean > selection.ratio.mean > 0
    assert selection.parts["selection"].mean > 0 == counts.parts["selection"].mean
    for outcome in (counts, selection):
        assert outcome.ratio.low <= outcome.ratio.mean <= outcome.ratio.high
        assert sum(outcome.shares[part].mean for part in outcome.shares if part != "total") == pytest.approx(
            outcome.ratio.mean
        )


def test_rho_of_a_strategy_is_that_of_its_counts():
    """Always the same batch: rho without any averaging."""
    step = Step(prompts=24, budget=96, candidates=24)
    uniform, *_ = usual_designs(KNOWN, step)
    design = best_counts("counts", V, 24, 96, 2, 48)
    _, found = compare(KNOWN, [uniform, design], np.random.default_rng(0))
    counts = design.choose(np.arange(24))[1]
    law = POOL.laws
    assert counts.sum() == 96 and len(set(counts)) > 2
    assert found.rollouts_ratio.mean == pytest.approx(law.variance(counts).sum() / law.variance(4).sum())


def test_intervals_hold_the_truth_of_the_pool():
    """R of 40 prompts of a large pool, 12 times: about 95 % of the intervals hold that of the pool."""
    pool = Bandits.make(seed=1, prompts=150, settled=50)
    v = (pool.p * (1 - pool.p)).clip(0)
    step, hits, all_laws, products = Step(prompts=6, budget=24, candidates=6), [], pool.laws, pool.cross

    def ratio(rows, rng):
        laws, cross = all_laws.at(rows), products[np.ix_(rows, rows)]
        own = Measurement(laws, cross, 150, VarianceBelief(v[rows], v[rows] ** 2))
        return compare(own, usual_designs(own, step)[:2], rng)[1].ratio

    rng = np.random.default_rng(0)
    truth = ratio(np.arange(150), rng).mean
    for _ in range(12):
        found = ratio(rng.choice(150, 40, replace=False), rng)
        hits.append(found.low <= truth <= found.high)
    assert np.mean(hits) > 0.6


def test_gradients_that_are_zero_are_refused():
    zero = np.zeros(4)
    nothing = Measurement(VarianceLaw(zero, zero, zero), np.zeros((4, 4)), 9, VarianceBelief(zero, zero))
    with pytest.raises(DataError):
        compare(nothing, usual_designs(nothing, Step(2, 8, 4)), np.random.default_rng(0))


def test_beliefs_of_two_rewards_are_those_of_the_beta_posterior():
    found = VarianceBelief.of([np.array([1.0] * 3 + [-1.0] * 5), np.full(6, -1.0)])
    for i, (k, n) in enumerate([(3, 8), (0, 6)]):
        posterior = beta(k + 0.5, n - k + 0.5)
        assert found.mean[i] == pytest.approx(4 * posterior.expect(lambda p: p * (1 - p)))
        assert found.square[i] == pytest.approx(16 * posterior.expect(lambda p: (p * (1 - p)) ** 2))


def test_beliefs_of_other_rewards():
    rng = np.random.default_rng(0)
    found = VarianceBelief.of([rng.normal(5, 2, 4000).clip(0, 10), np.array([0.0, 0, 0, 0]), np.full(4, 10.0)])
    assert found.mean[0] == pytest.approx(4, rel=0.1) and found.square[0] == pytest.approx(found.mean[0] ** 2)
    assert found.mean[1] == pytest.approx(found.mean[2]) and 0 < found.mean[1] < 100 / 4
    settled = VarianceBelief.of([np.zeros(3), np.zeros(5)])
    assert not settled.mean.any()


def test_the_expected_terms_are_those_of_all_batches():
    """Six prompts, batches of three: against all 20 batches."""
    from itertools import combinations

    rows = np.arange(8, 14)
    laws, cross = POOL.laws.at(rows), POOL.cross[np.ix_(rows, rows)]
    design = best_counts("counts", V[rows], 3, 12, 2, 12)
    each = []
    for batch in combinations(range(6), 3):
        counts = design.choose(np.array(batch))[1]
        each.append(laws.at(np.array(batch)).variance(counts).mean() / 3)
    terms = expected_terms(design, laws, np.random.default_rng(0), batches=600)
    assert second_moment(cross, terms).rollouts == pytest.approx(np.mean(each), rel=0.04)


def test_tokens_of_each_design() -> None:
    """Lengths that grow with the reward variance: the cheapest counts cost fewer tokens at uniform's variance."""
    step = Step(prompts=6, budget=48, candidates=12, min_rollouts=2, max_rollouts=40)
    lengths = np.linspace(10, 100, len(V))
    measured = replace(KNOWN, lengths=lengths)
    found = {one.name: one for one in compare(measured, usual_designs(measured, step), np.random.default_rng(0))}
    assert list(found) == ["uniform", "counts", "match", "selection"]
    assert found["uniform"].tokens == 1 and found["match"].tokens < min(1, found["counts"].tokens)
    plain = compare(KNOWN, usual_designs(KNOWN, step), np.random.default_rng(0))
    assert [one.tokens for one in plain] == [None] * 3
    even = Design("even", 6, lambda rows: (np.ones(6), np.full(6, 8.0)))
    total = expected_tokens(even, lengths, np.random.default_rng(0))
    assert total == pytest.approx(6 * 8 * lengths.mean(), rel=0.02)
