"""A predictor whose numbers go bad in a run of TRL."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from trl_runs import build

import tiny
import viprl
from viprl.errors import InputError, PredictionError
from viprl.predictors.constant import SuccessRate


class GoesBad(SuccessRate):
    """In the second step."""

    steps = 0

    def predict(self, batch):
        prediction = super().predict(batch)
        return viprl.Prediction.of_points(prediction.success_probability * (np.nan if self.steps == 1 else 1.0))

    def observe(self, batch, successes, rollouts):
        super().observe(batch, successes, rollouts)
        self.steps += 1


def trainer(tmp_path, policy: str):
    strategy = viprl.Strategy(GoesBad(), guard=viprl.Guard(), name="mine")
    return build("rloo", tmp_path, vip_strategy=strategy, vip_on_bad_prediction=policy, data=tiny.dataset(64))


def test_the_run_goes_on_and_logs_it(tmp_path, caplog):
    run = trainer(tmp_path, "uniform")
    with caplog.at_level(logging.INFO, logger="viprl"):
        run.train()
    logged = [row["vip/bad_predictions"] for row in run.state.log_history if "vip/bad_predictions" in row]
    assert logged == [0.0, 1.0, 0.0]
    assert sum("GoesBad" in record.getMessage() for record in caplog.records if record.levelname == "WARNING") == 1
    assert "bad predictions: 1" in caplog.text


def test_the_run_stops_and_its_state_can_be_saved(tmp_path):
    run = trainer(tmp_path, "stop")
    with pytest.raises(PredictionError, match="GoesBad"):
        run.train()
    run.vip.save(tmp_path / "state")
    assert run.vip.strategies["mine"].predictor.steps == 1
    viprl.VIP(strategy=viprl.Strategy(GoesBad(), guard=viprl.Guard(), name="mine")).load(tmp_path / "state")


def test_other_values_are_refused_by_their_name(tmp_path):
    with pytest.raises(InputError, match="vip_on_bad_prediction"):
        trainer(tmp_path, "ignore")
