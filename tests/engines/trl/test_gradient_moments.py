"""What is logged about the second moment of the batch gradient: against simulated steps, and in short trainings."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("trl", reason='needs pip install "viprl[trl]"')

import torch

from analysis.bandits import Bandits
from engines.trl.trl_runs import C, N, build, distance, weights
from viprl.advantages import group_advantages, rollout_weights
from viprl.analysis.second_moment import second_moment, terms
from viprl.engines.trl.gradient_moments import GradientMoments
from viprl.metrics import (
    GRADIENT_SECOND_MOMENT,
    GRADIENT_SIGNAL,
    GRADIENT_WITHOUT_ROLLOUTS,
    PREFIX,
    ROLLOUT_NOISE,
)

POOL = Bandits.make(prompts=8, settled=2)


def simulated(count, parts):
    moments, found = GradientMoments(split=True, fresh=True), []
    rng, parameter = np.random.default_rng(0), torch.zeros(6, requires_grad=True)
    counts = np.full(4, 4)
    for _ in range(count):
        groups = [POOL.rollouts(q, 4, rng) for q in rng.choice(8, 4, replace=False)]
        factors = group_advantages(np.concatenate([r for r, _ in groups]), counts) * rollout_weights(counts) / 16
        each = factors[:, None] * np.concatenate([scores for _, scores in groups])
        shuffled, parameter.grad = each[rng.permutation(16)], torch.zeros(6)
        for k, part in enumerate(np.split(shuffled, np.cumsum(parts)[:-1])):
            parameter.grad += torch.tensor(part.sum(axis=0))
            metrics = moments.add([parameter], len(part), last=k == len(parts) - 1)
            assert bool(metrics) == (k == len(parts) - 1)
        found.append(metrics)
    return found


@pytest.mark.parametrize("parts", [[8, 8], [4] * 4, [9, 6, 1, 0]])
def test_means_over_steps_are_the_parts_of_the_second_moment(parts):
    """Without rollouts: low by (n-2)/(n(n-1)) of mean |g|^2 / Q, here a sixth."""
    found = simulated(1000, parts)
    exact = second_moment(POOL.cross, terms(POOL.laws, 4, 4), pool=8)
    low = POOL.laws.squared_gradient.mean() / 4 / 6
    expected = {
        GRADIENT_SECOND_MOMENT: exact.total,
        GRADIENT_SIGNAL: exact.signal,
        GRADIENT_WITHOUT_ROLLOUTS: exact.signal + exact.prompts - low,
    }
    for name, value in expected.items():
        values = np.array([one[name] for one in found if name in one])
        assert values.mean() == pytest.approx(value, abs=4 * values.std() / np.sqrt(len(values)))
    shares = np.array([one[ROLLOUT_NOISE] for one in found[50:]])
    assert shares.mean() == pytest.approx(1 - expected[GRADIENT_WITHOUT_ROLLOUTS] / exact.total, abs=0.05)
    assert GRADIENT_SIGNAL not in found[0] and GRADIENT_SIGNAL in found[1]


def logs(trainer):
    trainer.train()
    return [row for row in trainer.state.log_history if PREFIX + "counts/mean" in row]


@pytest.mark.parametrize("kind", ["rloo", "grpo"])
def test_a_training_logs_them_and_learns_the_same(kind, tmp_path):
    split = {"per_device_train_batch_size": C // 4, "gradient_accumulation_steps": 4, "max_grad_norm": 0.01}
    plain = build(kind, tmp_path / "plain", **split)
    assert not any("gradient" in key for row in logs(plain) for key in row)
    measured = build(kind, tmp_path / "measured", vip_gradient_moments=True, **split)
    rows = logs(measured)
    assert distance(weights(plain), weights(measured)) == 0
    names = (GRADIENT_SECOND_MOMENT, GRADIENT_WITHOUT_ROLLOUTS, ROLLOUT_NOISE)
    assert all(PREFIX + name in row for row in rows for name in names)
    assert [PREFIX + GRADIENT_SIGNAL in row for row in rows] == [False, True, True]
    # TRL logs the norm before clipping
    for row in rows:
        assert row[PREFIX + GRADIENT_SECOND_MOMENT] == pytest.approx(row["grad_norm"] ** 2, rel=0.25)


def test_without_micro_batches_only_the_batch_gradients_are_known(tmp_path):
    rows = logs(build("rloo", tmp_path, vip_gradient_moments=True))
    assert all(PREFIX + GRADIENT_SECOND_MOMENT in row and PREFIX + ROLLOUT_NOISE not in row for row in rows)
    assert PREFIX + GRADIENT_SIGNAL in rows[-1]


def test_steps_that_share_their_rollouts_are_not_compared(tmp_path):
    more = {"per_device_train_batch_size": C // 2, "gradient_accumulation_steps": 1, "steps_per_generation": 2}
    rows = logs(build("rloo", tmp_path, vip_gradient_moments=True, max_steps=4, num_generations=N, **more))
    assert rows and all(PREFIX + GRADIENT_SECOND_MOMENT in row for row in rows)
    assert not any(PREFIX + name in row for row in rows for name in (GRADIENT_SIGNAL, GRADIENT_WITHOUT_ROLLOUTS))
