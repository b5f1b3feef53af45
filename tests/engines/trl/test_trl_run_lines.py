"""What the callback of the lines of a run changes in a training."""

from __future__ import annotations

from types import SimpleNamespace

from transformers import TrainerState

from viprl.engines.trl.run_report import RunReport


def test_a_resumed_training_logs_and_saves_as_its_arguments_say():
    """The intervals of a resumed training come from its checkpoint otherwise."""
    report = RunReport(SimpleNamespace(is_world_process_zero=lambda: False, vip=None))
    report.resumed = "checkpoint-10"
    state = TrainerState(max_steps=100, logging_steps=1, save_steps=5, eval_steps=7)
    args = SimpleNamespace(logging_steps=3, save_steps=0.25, eval_steps=None, vip_candidates=1)
    report.on_train_begin(args, state, None)
    assert (state.logging_steps, state.save_steps, state.eval_steps) == (3, 25, 7)
