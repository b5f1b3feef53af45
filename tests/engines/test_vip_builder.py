"""Settings of an engine with the values that are used."""

import numpy as np
import pytest

from viprl.engines.vip_builder import check_strategies, resolve
from viprl.errors import InputError
from viprl.settings import EngineSettings


@pytest.mark.parametrize(
    ("spend", "rollouts", "least", "warns"),
    [("match", 64, None, True), ("match", 128, 4, True), ("match", 128, None, False), ("budget", 64, None, False)],
)
def test_a_run_that_can_save_nothing_is_told_so(caplog, spend, rollouts, least, warns):
    settings = EngineSettings(spend=spend, min_rollouts=least)
    resolve(settings, estimator="rloo", prompts=32, rollouts=rollouts, where="num_generations=2", prefix="vip_")
    assert (len(caplog.records) == 1) == warns


def test_a_shadow_of_another_type_is_refused():
    with pytest.raises(InputError, match="shadow"):
        check_strategies(EngineSettings(shadow=[np.zeros(0)]))
