"""What the TRL trainers log, and the log probabilities that they pass to VIP."""

from __future__ import annotations

import numpy as np
import pytest
from trl_runs import C, N, build, independent_advantages, on_loss, recording, row_logprobs, watched

from viprl import VIP, Guard, Prediction, Predictor, Strategy, metrics
from viprl.metrics import PREFIX
from viprl.prompts import identity
from viprl.runs.engine_logs import read_history


def test_metrics_and_shadow(tmp_path):
    trainer = build("rloo", tmp_path, vip_strategy="uniform", vip_shadow=["default", "random"])
    batches, _ = watched(trainer)
    trainer.train()
    rows = [row for row in trainer.state.log_history if PREFIX + metrics.COUNTS_MEAN in row]
    for row, batch in zip(rows, batches, strict=True):
        settled = sum(len(group) for group in batch.rewards if len(set(group)) == 1) / C
        assert row[PREFIX + metrics.ZERO_ADVANTAGE] == pytest.approx(settled)
        assert row["frac_reward_zero_std"] == pytest.approx(settled)
        assert row[PREFIX + metrics.COUNTS_MEAN] == N and row[PREFIX + metrics.PREDICTED_RATIO] == 1
        expected = {metrics.BRIER, metrics.LOG_LOSS, metrics.OVERHEAD, metrics.shadow_ratio("default")}
        assert {PREFIX + name for name in expected} <= set(row)
        others = (metrics.SHRINKAGE, metrics.NEGLECTED, metrics.EFFECTIVE_PROMPTS, metrics.SQUARED_WEIGHTS)
        assert not {PREFIX + name for name in others} & set(row)


def test_completions_log_has_counts_and_advantages(tmp_path):
    import pandas as pd

    trainer = build("grpo", tmp_path, log_completions=True, max_steps=1)
    batches, _ = watched(trainer)
    trainer.train()
    table = pd.read_parquet(next((tmp_path / "completions").glob("*.parquet")))
    assert table["vip_rollouts"].tolist() == [n for n in batches[0].counts for _ in range(n)]
    expected = [a * (1 - 1 / N) for a in independent_advantages(batches[0].rewards, True, False)]
    assert table["advantage"].tolist() == pytest.approx(expected, abs=1e-6)
    histories = read_history(tmp_path)  # what the trainer logs can be replayed
    assert sum(history.rollouts.sum() for history in histories) == C


class Outside(Predictor):
    """A predictor that the package does not know: the last success rate."""

    def __init__(self):
        self.rates = {}

    def predict(self, batch):
        return Prediction.of_points(np.array([self.rates.get(key, 0.5) for key in batch.keys]))

    def observe(self, batch, successes, rollouts):
        self.rates |= {key: k / n for key, k, n in zip(batch.keys, successes, rollouts, strict=True) if n > 0}

    def state_dict(self):
        return {"rates": dict(self.rates)}

    def load_state_dict(self, state):
        self.rates = dict(state["rates"])


def test_a_predictor_from_outside_trains(tmp_path):
    vip = VIP(strategy=Strategy(Outside(), guard=Guard(), name="outside"), shadow=["uniform"])
    trainer = build("grpo", tmp_path, vip=vip, max_steps=4)
    batches, _ = watched(trainer)
    trainer.train()
    assert all(sum(batch.counts) == C for batch in batches)
    last = {
        identity(p): np.mean([r == 1 for r in g]) for b in batches for p, g in zip(b.prompts, b.rewards, strict=True)
    }
    assert vip.strategies["outside"].predictor.rates == pytest.approx(last)
    assert PREFIX + metrics.TRUST in trainer.state.log_history[0]


def test_vip_gets_the_log_probabilities_of_a_batch_for_several_steps(tmp_path):
    """One optimizer step uses half of the generation batch. For whole batches see test_trl_vllm.py."""
    more = {"gradient_accumulation_steps": 2, "steps_per_generation": 4, "per_device_train_batch_size": 4}
    trainer = build("grpo", tmp_path, vip=recording("grpo"), learning_rate=0.0, max_steps=1, **more)
    rows = []
    on_loss(trainer, lambda model, inputs: rows.extend(row_logprobs(model, inputs)))
    trainer.train()
    (heard,) = trainer.vip.heard
    names = {tuple(trainer.processing_class(text)["input_ids"]): text for text in heard}
    assert len(rows) == C // 2
    for prompt, value, _ in rows:
        assert np.abs(np.array(heard[names[prompt]]) - value).min() < 1e-4


@pytest.mark.parametrize(("kind", "more"), [("grpo", {}), ("rloo", {"vip_use_logprobs": False})])
def test_no_log_probabilities_if_they_are_not_computed_or_not_wanted(kind, more, tmp_path):
    trainer = build(kind, tmp_path, vip=recording(kind), max_steps=1, **more)
    trainer.train()
    assert trainer.vip.heard == [None]
