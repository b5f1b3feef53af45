"""Expected gradients of estimators, which are known in closed form; a wrong weight is seen."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from analysis.bandits import Bandits, systematic
from viprl.advantages import group_advantages, rollout_weights
from viprl.analysis.estimator_bias import gradient_scale, prompt_scales
from viprl.errors import InputError


@pytest.mark.parametrize("p", [0.05, 0.5, 0.8])
@pytest.mark.parametrize("n", [2, 5, 8])
def test_the_baselines(p, n):
    """RLOO is unbiased; the mean of the group shrinks the gradient by (n - 1)/n."""
    assert gradient_scale(lambda r: group_advantages(r, [n]) / n, p, n).mean == pytest.approx(1)
    shrunk = gradient_scale(lambda r: group_advantages(r, [n], "mean") / n, p, n)
    assert shrunk.mean == pytest.approx((n - 1) / n) and shrunk.low == shrunk.high


def test_division_by_the_standard_deviation_prefers_extreme_prompts():
    """s = E[std]/(p(1-p)), over binomial numbers of successes."""

    def coefficients(r):
        return group_advantages(r, [8], "mean") / (8 * max(r.std(), 1e-9))

    k, scales = np.arange(9), {p: gradient_scale(coefficients, p, 8).mean for p in (0.5, 0.1)}
    for p, scale in scales.items():
        expected = (binom.pmf(k, 8, p) * np.sqrt(k * (8 - k)) / 8).sum() / (p * (1 - p))
        assert scale == pytest.approx(expected)
    assert scales[0.1] > scales[0.5] + 0.4


@pytest.mark.parametrize(("w", "m", "p"), [(4, 8, 0.05), (2, 6, 0.3), (3, 5, 0.5)])
def test_a_second_wave_after_mixed_groups_only(w, m, p):
    """The pooled estimator is biased by the kappa of method.md."""
    n = w + m

    def pooled(r):
        if 0 < r[:w].sum() < w:
            return group_advantages(r, [n]) / n
        return np.zeros(n)

    factor = p**w + (1 - p) ** w + w / (n - 1) * (p * (1 - p) ** (w - 1) + (1 - p) * p ** (w - 1))
    assert gradient_scale(pooled, p, n).mean == pytest.approx(1 - m / n * factor)


def test_the_scale_is_that_of_the_gradient():
    """Against a simulated policy with explicit scores."""
    pool, rng, n = Bandits.make(seed=2, prompts=2, settled=0), np.random.default_rng(0), 3
    expected = gradient_scale(lambda r: group_advantages(r, [n], "mean") / n, float(pool.p[0]), n).mean
    total = np.zeros(6)
    for _ in range(20_000):
        rewards, scores = pool.rollouts(0, n, rng)
        total += group_advantages(rewards, [n], "mean") @ scores / n / 20_000
    g = pool.gradients[0]
    assert total @ g / (g @ g) == pytest.approx(expected, abs=0.05)


def test_large_groups_are_drawn():
    found = gradient_scale(lambda r: group_advantages(r, [32]) / 32, 0.3, 32, np.random.default_rng(0))
    assert found.low < 1 < found.high and found.high - found.low < 0.1


PI, COUNTS, P = np.array([0.3, 0.5, 0.7, 0.5]), [2, 5, 3, 4], [0.2, 0.5, 0.7, 0.9]


def step(rng, weight):
    """Systematic sampling of two of four prompts, unequal counts, RLOO."""

    def play(sample):
        for q in systematic(PI, rng):
            rewards = sample(q, COUNTS[q])
            yield q, rewards, group_advantages(rewards, [COUNTS[q]]) / COUNTS[q] * weight(q)

    return play


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (lambda q: 1 / PI[q] / 4, [1, 1, 1, 1]),
        (lambda q: 1 / 2, (PI * 2).tolist()),  # without 1/pi
    ],
)
def test_selection_with_and_without_weights(weight, expected):
    found = prompt_scales(step(np.random.default_rng(0), weight), P, np.random.default_rng(1), 8000)
    for one, true in zip(found, expected, strict=True):
        assert one.mean == pytest.approx(true, abs=2.2 * (one.high - one.low) / 2)
    assert (abs(np.array([one.mean for one in found]) - 1).max() > 0.2) == (expected[0] != 1)


@pytest.mark.parametrize("weighting", ["prompt", "rollout"])
def test_counts_with_and_without_weights(weighting):
    counts = [2, 6]

    def play(sample):
        rewards = [sample(q, n) for q, n in enumerate(counts)]
        factors = group_advantages(np.concatenate(rewards), counts) * rollout_weights(counts, weighting) / sum(counts)
        return zip(range(2), rewards, np.split(factors, [2]), strict=True)

    found = prompt_scales(play, [0.4, 0.6], np.random.default_rng(0), 4000)
    expected = [1, 1] if weighting == "prompt" else [0.5, 1.5]
    for one, true in zip(found, expected, strict=True):
        assert one.mean == pytest.approx(true, abs=2.2 * (one.high - one.low) / 2)


def test_unusable_arguments():
    with pytest.raises(InputError):
        gradient_scale(lambda r: r, 1.0, 4)
    with pytest.raises(InputError):
        gradient_scale(lambda r: r, 0.5, 0)
