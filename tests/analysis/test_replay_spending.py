"""Replays that spend less than the budget: scores by hand, safety, and lengths."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from viprl.allocation.budget import Budget
from viprl.analysis.lengths import Lengths
from viprl.analysis.pool import Pool
from viprl.analysis.protocol import Protocol
from viprl.analysis.replay import play, replay
from viprl.analysis.spending_scores import PER_TOKEN, ROLLOUTS, TOKENS, TRUE_RATIO, spending_scores
from viprl.errors import InputError
from viprl.predictors.base import Prediction
from viprl.predictors.oracle import Oracle
from viprl.reward_groups import RewardScale
from viprl.runs.history import PromptHistory
from viprl.strategies import Strategy, build_strategy

MATCH = Protocol(batch_size=16, min_rollouts=2, max_rollouts=32, visits=14, seeds=1, spend="match")


def log(prompts=32, visits=14, seed=0, long_failures=3.0, lengths=True):
    """Prompts of constant success probability, most of them settled; rollouts of those that mostly fail are longer."""
    rng = np.random.default_rng(seed)
    found = []
    for i, p in enumerate(rng.beta(0.3, 0.3, prompts)):
        k = rng.binomial(8, p, visits).astype(float)
        mean = 100.0 * (long_failures if p < 0.1 else 1.0)
        of_visits = tuple(rng.lognormal(np.log(mean), 0.3, 8) for _ in range(visits))
        found.append(PromptHistory(str(i), f"p {i}", np.full(visits, 8.0), k, lengths=of_visits if lengths else None))
    return found


def scores(results, name, score):
    return [phase.scores[score].mean for phase in results[name]]


def test_scores_by_hand():
    budget = Budget.of(3, 12, 2, 8, "rloo")  # e = 4 each, f(n) = 1/(n - 1)
    found = spending_scores(np.array([5, 3, 2]), np.array([0.24, 0.12, 0.0]), np.array([1.0, 2.0, 3.0]), budget)
    assert found[ROLLOUTS] == pytest.approx(10 / 12)
    assert found[TRUE_RATIO] == pytest.approx((0.06 + 0.06) / 0.12)
    assert found[TOKENS] == pytest.approx((5 + 6 + 6) / 24)
    assert found[PER_TOKEN] == pytest.approx(17 / 24)
    assert set(spending_scores(np.array([4, 4, 4]), np.zeros(3), None, budget)) == {ROLLOUTS, TRUE_RATIO}


@pytest.mark.parametrize("closed", [False, True])
def test_match_spends_less_at_the_variance_of_uniform(closed):
    results = replay(log(), ["default", "oracle", "uniform"], replace(MATCH, closed=closed), features="none")
    assert scores(results, "uniform", ROLLOUTS) == [1] * 6 == scores(results, "uniform", TRUE_RATIO)
    assert scores(results, "default", ROLLOUTS)[0] == 1  # nothing is known of any prompt
    assert max(scores(results, "oracle", TRUE_RATIO)) <= 1.001 and max(scores(results, "oracle", ROLLOUTS)) < 0.8
    assert scores(results, "default", ROLLOUTS)[-1] < 0.85 and scores(results, "default", TRUE_RATIO)[-1] < 1.03


def test_the_variance_target_is_that_of_the_oracle():
    spent = [
        scores(replay(log(), ["oracle"], replace(MATCH, variance_target=t)), "oracle", ROLLOUTS)[-1] for t in (1.0, 2.0)
    ]
    assert spent[1] < 0.75 * spent[0]


class Contrary(Oracle):
    """Takes the live prompts for dead, and the dead ones for live."""

    def predict(self, batch):
        p = super().predict(batch).success_probability
        return Prediction.of_points(np.where(np.abs(p - 0.5) > 0.4, 0.5, 0.98))


def test_wrong_predictions_make_a_run_spend_everything():
    steps = list(play(Strategy(Contrary()), Pool.of(log(64), MATCH), None, MATCH, 0))
    spent = [step.scores[ROLLOUTS] for step in steps]
    assert spent[0] < 0.95 and spent[-1] == 1


def test_without_the_options_nothing_changes():
    plain = replace(MATCH, spend="budget")
    one, other = (replay(log(lengths=given), ["default"], plain, features="none") for given in (True, False))
    assert ROLLOUTS not in one["default"][0].scores
    for phase, same in zip(one["default"], other["default"], strict=True):
        assert [s for n, s in phase.scores.items() if n != "milliseconds"] == [
            s for n, s in same.scores.items() if n != "milliseconds"
        ]


@pytest.mark.parametrize("spend", ["budget", "match"])
def test_tokens_count(spend):
    protocol = replace(MATCH, spend=spend, cost="tokens")
    results = replay(log(), ["default", "oracle"], protocol, features="none")
    for name in results:
        assert max(scores(results, name, TOKENS)[1:]) < 1.02
        assert scores(results, name, PER_TOKEN)[-1] < 0.9
    if spend == "match":
        rollouts_alone = replay(log(), ["oracle"], MATCH)
        assert scores(results, "oracle", TOKENS)[-1] < scores(rollouts_alone, "oracle", TOKENS)[-1]
    with pytest.raises(InputError, match="cost"):
        replay(log(lengths=False), ["oracle"], protocol)


@pytest.mark.parametrize(("option", "value"), [("spend", "all"), ("cost", "time"), ("variance_target", 0.0)])
def test_bad_options(option, value):
    with pytest.raises(InputError, match=option):
        replace(MATCH, **{option: value})


# --- lengths ----------------------------------------------------------------------------------------------------------


def history(successes, lengths, **more):
    n = [float(len(group)) for group in lengths]
    visits = tuple(np.array(group, dtype=float) for group in lengths)
    return PromptHistory("a", "a", np.array(n), np.array(successes, dtype=float), lengths=visits, **more)


def test_true_lengths_are_means_of_nine_visits():
    nan = np.nan
    one = history([1] * 6, [[10, 20], [30, nan], [nan, nan], [50, 50], [1, 1], [1000, 1000]])
    bare = PromptHistory("b", "b", np.full(6, 2.0), np.ones(6))
    found = Lengths.of([one, bare], RewardScale(), 3)
    total = 10 + 20 + 30 + 50 + 50 + 1 + 1
    assert found.mean[0] == pytest.approx([total / 7, (total + 2000) / 9, (total + 2000) / 9])
    assert found.mean[1] == pytest.approx([found.mean[0].mean()] * 3)
    assert Lengths.of([bare], RewardScale(), 3) is None


def test_shown_and_drawn_lengths_go_with_their_outcomes():
    found = Lengths.of([history([1, 2], [[10, 20, 21], [11, 12, 22]])], RewardScale(), 2)
    lengths, halves = found.shown(np.array([0]), 1)
    assert lengths[0].tolist() == [11, 12, 22] and halves[0].tolist() == [1, 1, 0]
    draws = np.array([[0.1, 0.49, 0.51, 0.99, 0.3]])
    lengths, halves = found.drawn(np.array([0]), 0, draws, np.array([4]), np.array([0.5]))
    assert halves[0].tolist() == [1, 1, 0, 0] and lengths[0].tolist() == [10, 12, 20, 22]
    lengths, _ = found.drawn(np.array([0]), 0, draws, np.array([5]), None)
    assert lengths[0].tolist() == [10, 21, 11, 22, 20]


def test_in_the_closed_loop_default_learns_the_lengths():
    protocol = replace(MATCH, cost="tokens", closed=True)
    pool = Pool.of(log(long_failures=5.0), protocol)
    tokens = [step.scores[TOKENS] for step in play(build_strategy("default"), pool, None, protocol, 0)]
    assert np.mean(tokens[-8:]) < 0.8
