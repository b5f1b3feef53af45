"""The names of the metrics in the trackers of TRL, and in the run folder of `viprl train`."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers.integrations.integration_utils import rewrite_logs
from trl_runs import build

from metric_names import KNOWN, unknown
from viprl.metrics import PREFIX

OPTIONS = {
    "all": {"vip_candidates": 2, "vip_baseline": "expected", "vip_spend": "match", "vip_gradient_moments": True},
    "waves and tokens": {"vip_waves": 2, "vip_cost": "tokens"},
}
DOCS = Path(__file__).parents[3] / "docs"


def logged(trainer) -> set[str]:
    trainer.train()
    return {name for row in trainer.state.log_history for name in row if name.startswith(PREFIX)}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_name_is_a_constant(tmp_path, options):
    more = {"gradient_accumulation_steps": 4, "per_device_train_batch_size": 4} if "vip_spend" in options else {}
    trainer = build("rloo", tmp_path, vip_strategy="default", vip_shadow=["random"], **options, **more)
    names = logged(trainer)
    assert len(names) > 20 and unknown(names) == set()


def test_trackers_of_transformers_add_a_prefix():
    """TensorBoard, trackio and Weights & Biases all call this function."""
    assert set(rewrite_logs({"vip/trust": 1.0, "vip/reward": 0.5, "eval_reward": 0.5})) == {
        "train/vip/trust", "train/vip/reward", "eval/reward",
    }  # fmt: skip


def test_tensorboard(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    names = logged(build("rloo", tmp_path, report_to=["tensorboard"], vip_strategy="default"))
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    tags = {tag for tag in events.Tags()["scalars"] if PREFIX in tag}
    assert tags == {f"train/{name}" for name in names}


def test_the_documentation_has_every_name():
    """Those below the prefix: the others are names of TRL, verl and tinker-cookbook."""
    source = (DOCS.parent / "src" / "viprl" / "metrics.py").read_text()
    ours = source.partition("# OTHER METRICS")[0]
    names = {name for name in KNOWN if f'"{name}"' in ours} - {PREFIX, "vip_rollouts", "vip_wave"}
    pages = "".join(page.read_text() for page in DOCS.glob("*.md"))
    assert len(names) > 30
    assert {name for name in names if name not in pages} == set()
