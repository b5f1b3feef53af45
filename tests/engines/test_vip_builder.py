"""Settings of an engine with the values that are used."""

import pytest

from viprl.engines.vip_builder import resolve
from viprl.settings import EngineSettings


@pytest.mark.parametrize(
    ("spend", "rollouts", "least", "warns"),
    [("match", 64, None, True), ("match", 128, 4, True), ("match", 128, None, False), ("budget", 64, None, False)],
)
def test_a_run_that_can_save_nothing_is_told_so(caplog, spend, rollouts, least, warns):
    settings = EngineSettings(spend=spend, min_rollouts=least)
    resolve(settings, estimator="rloo", prompts=32, rollouts=rollouts, where="num_generations=2", prefix="vip_")
    assert (len(caplog.records) == 1) == warns
