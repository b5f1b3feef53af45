"""The estimators against brute force and hand-computed values; intervals over problems."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from viprl.errors import InputError
from viprl.evaluate import pass_at_k as estimators
from viprl.evaluate.pass_at_k import maj_at_k, over_problems, pass_at_k


def voted(labels: tuple, k: int) -> float:
    """Mean over all subsets of the vote for label 0, the right answer; None does not vote."""
    total = Fraction(0)
    for subset in itertools.combinations(labels, k):
        votes = {label: subset.count(label) for label in subset if label is not None}
        winners = [label for label in votes if votes[label] == max(votes.values())]
        total += Fraction(int(0 in winners), max(1, len(winners)))
    return float(total / math.comb(len(labels), k))


LABELS = st.lists(st.sampled_from([0, 0, 1, 2, 3, None]), min_size=1, max_size=9).map(tuple)


@given(LABELS, st.data())
@settings(max_examples=150, deadline=None)
def test_each_estimator_against_all_subsets(labels, data):
    n = len(labels)
    k = data.draw(st.integers(1, n))
    subsets = list(itertools.combinations(labels, k))
    right = labels.count(0)
    wrong = [labels.count(x) for x in (1, 2, 3) if x in labels]
    assert pass_at_k(n, right, k) == pytest.approx(np.mean([0 in s for s in subsets]), abs=1e-12)
    assert maj_at_k(right, wrong, labels.count(None), k) == pytest.approx(voted(labels, k), abs=1e-12)


@pytest.mark.parametrize(
    ("n", "c", "k", "value"),
    [(10, 3, 2, 1 - 21 / 45), (10, 3, 7, 119 / 120), (10, 3, 8, 1.0), (5, 0, 5, 0.0), (4, 4, 1, 1.0),
     (32, 2, 16, 1 - 120 / 496), (100_000, 1, 1, 1e-5), (4000, 1, 2000, 0.5), (4000, 1, 1, 1 / 4000)],
)  # fmt: skip
def test_pass_at_k_by_hand(n, c, k, value):
    """C(4000, 2000) has 1,203 digits."""
    assert pass_at_k(n, c, k) == value


@pytest.mark.parametrize(
    ("right", "wrong", "unreadable", "k", "value"),
    [
        (2, [1], 0, 2, 1 / 3 + 2 / 3 / 2), (1, [1, 1], 0, 3, 1 / 3), (1, [2], 0, 3, 0.0), (2, [2], 0, 4, 0.5),
        (1, [], 3, 4, 1.0), (1, [], 3, 1, 0.25), (0, [3], 1, 2, 0.0), (3, [3, 2], 0, 8, 0.5), (2, [], 2, 2, 5 / 6),
    ],
)  # fmt: skip
def test_maj_at_k_by_hand(right, wrong, unreadable, k, value):
    assert maj_at_k(right, wrong, unreadable, k) == pytest.approx(value, abs=1e-12)


def test_drawn_votes_agree_with_counted_votes_and_depend_on_the_generator(monkeypatch):
    case = {"right": 12, "wrong": [9, 4, 3, 1, 1], "unreadable": 2, "k": 16}
    counted = maj_at_k(**case, rng=np.random.default_rng(0))
    monkeypatch.setattr(estimators, "EXACT_WORK", 0.0)
    drawn = [maj_at_k(**case, rng=np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] != counted and drawn[0] == pytest.approx(counted, abs=0.02)


def test_votes_of_many_completions_are_drawn():
    assert 0.9 < maj_at_k(1000, [500] * 2, 48, 32, np.random.default_rng(0)) <= 1.0


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 0), (4, 2, 5)])
def test_impossible_numbers(n, c, k):
    with pytest.raises(InputError):
        pass_at_k(n, c, k)


def test_intervals_cover_the_mean_and_depend_on_the_generator():
    """In 400 samples of 30 problems, the 95 % interval contains the true mean in about 95 %."""
    rng = np.random.default_rng(0)
    estimates = over_problems(rng.random((30, 400)), np.random.default_rng(0))
    assert all(e.low <= e.mean <= e.high and e.n == 30 for e in estimates)
    assert 360 <= sum(e.low <= 0.5 <= e.high for e in estimates) <= 395
    values = rng.random((20, 2))
    found = [over_problems(values, np.random.default_rng(seed)) for seed in (3, 3, 4)]
    assert found[0] == found[1] != found[2]
    assert [e.mean for e in found[0]] == pytest.approx(values.mean(axis=0))
    (point,) = over_problems(np.array([[0.25]]), np.random.default_rng(0))
    assert (point.low, point.mean, point.high, point.sd) == (0.25, 0.25, 0.25, None)
