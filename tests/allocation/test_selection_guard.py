"""The guard of selection: useful sizes are trusted, useless and harmful ones are not."""

from __future__ import annotations

import numpy as np
import pytest

from viprl import VIP, Prediction, Predictor, Strategy
from viprl.allocation.guard import SHARES
from viprl.allocation.selection_guard import SelectionGuard

CANDIDATES, SAMPLED = 64, 16


def play(size, weight, steps=300, seed=0):
    """A guard after steps in which groups of 4 rollouts show the variance weights [M]."""
    guard, rng = SelectionGuard(), np.random.default_rng(seed)
    p = (1 - np.sqrt(1 - 4 * weight)) / 2
    for _ in range(steps):
        draw = guard.draw(size, SAMPLED, rng)
        k = rng.binomial(4, p[draw.positions])
        guard.observe(draw, k * (4 - k) / 12)
    return guard


WEIGHT = np.repeat([0.25, 0.2, 0.01, 0.001], CANDIDATES // 4)


def test_mixtures_go_from_the_prediction_to_equal_probabilities():
    alternatives = SelectionGuard().probabilities(WEIGHT, SAMPLED)
    assert alternatives.shape == (len(SHARES), CANDIDATES)
    np.testing.assert_allclose(alternatives.sum(axis=1), SAMPLED)
    np.testing.assert_allclose(alternatives[-1], SAMPLED / CANDIDATES)
    assert alternatives[0].max() > alternatives[1].max() > alternatives[-1].max()


@pytest.mark.parametrize("seed", range(3))
def test_useful_sizes_are_used(seed):
    assert play(np.sqrt(WEIGHT), WEIGHT, seed=seed).trust == 1


@pytest.mark.parametrize("seed", range(3))
def test_harmful_sizes_are_given_up(seed):
    assert play(WEIGHT[::-1], WEIGHT, seed=seed).trust == 0


def test_no_evidence_from_equal_sizes_and_groups_without_a_weight():
    guard = SelectionGuard()
    guard.observe(guard.draw(np.ones(8), 4, np.random.default_rng(0)), np.array([0.3, 0.1, 0.0, np.nan]))
    assert guard.trust == 1


def test_a_sample_counts_by_the_probabilities_that_it_was_drawn_with():
    """Several plans may wait for their rewards while the choice changes."""
    guard, same = SelectionGuard(), SelectionGuard()
    draw = guard.draw(WEIGHT[::-1], SAMPLED, np.random.default_rng(0))
    harmful = play(WEIGHT[::-1], WEIGHT, steps=100)
    assert harmful.choice != guard.choice
    before = harmful.state_dict()["difference"]
    harmful.observe(draw, WEIGHT[draw.positions])
    same.observe(draw, WEIGHT[draw.positions])
    added = harmful.state_dict()["difference"] - 0.98 * before
    np.testing.assert_allclose(added, same.state_dict()["difference"], atol=1e-12)


def test_a_state_continues():
    guard, again = play(WEIGHT[::-1], WEIGHT, steps=40), SelectionGuard()
    again.load_state_dict(guard.state_dict())
    assert (
        again.choice == guard.choice
        and again.state_dict()["squares"].tolist() == guard.state_dict()["squares"].tolist()
    )


class Opposite(Predictor):
    """Believes that live prompts are settled and settled ones live."""

    def predict(self, batch):
        return Prediction.of_points(np.where(["live" in key for key in batch.keys], 0.01, 0.5))

    def observe(self, batch, successes, rollouts):
        pass

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def test_vip_falls_back_to_equal_probabilities():
    vip, rng = VIP(strategy=Strategy(Opposite()), features=None, min_rollouts=2), np.random.default_rng(0)
    prompts = [{"prompt": "", "id": f"{kind} {i}"} for kind in ("live", "dead") for i in range(16)]
    for _ in range(150):
        selection = vip.select(prompts, 64, 16)
        sampled = [prompts[i] for i in selection.positions]
        p = [0.5 if "live" in prompt["id"] else 0.0 for prompt in sampled]
        vip.observe(
            sampled, [(rng.random(n) < q).astype(float) for q, n in zip(p, selection.allocation.counts, strict=True)]
        )
    assert vip.metrics()["selection/trust"] == 0
    np.testing.assert_allclose(vip.select(prompts, 64, 16).inclusion, 0.5)


def test_losses_by_hand():
    """sum y / (pi pi_t), for each mixture minus that of the prediction."""
    guard, size, measured = SelectionGuard(), np.array([3.0, 1.0, 1.0, 2.0, 2.0, 3.0]), np.array([0.25, np.nan, 0.1])
    draw = guard.draw(size, 3, np.random.default_rng(0))
    taken = guard.probabilities(size, 3)[:, draw.positions]
    guard.observe(draw, measured)
    losses = [(np.array([0.25, 0.0, 0.1]) / (draw.inclusion[draw.positions] * pi)).sum() for pi in taken]
    np.testing.assert_allclose(guard.state_dict()["difference"], np.array(losses) - losses[0], atol=1e-12)
    assert np.ptp(losses) > 0.01 and draw.inclusion.max() < 1
