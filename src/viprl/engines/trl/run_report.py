"""The lines at the start and at the end of a training with TRL."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from viprl.engines.run_lines import RunSummary, announce, start_line
from viprl.runs.files import METRICS_FILE


class RunReport(TrainerCallback):
    """Says on the main process what VIP does in a training, and afterwards what came of it.

    A resumed training logs, saves and evaluates as often as its arguments say.

    Args:
        trainer: a trainer of `viprl.engines.trl`.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.summary = RunSummary()
        self.resumed: str | None = None
        """The checkpoint from which the training was resumed."""

    def add(self, batch: Any, metrics: Mapping[str, float]) -> None:
        """Count a generation batch (`Groups`)."""
        args = self.trainer.args
        bounds = args.vip_min_rollouts, args.vip_max_rollouts
        self.summary.add(batch.counts, batch.observation, metrics, bounds)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.summary = RunSummary(resumed=self.resumed is not None)
        # transformers takes logging_steps, save_steps and eval_steps of a resumed run from the checkpoint
        state.compute_steps(args, state.max_steps)
        if self.trainer.is_world_process_zero():
            prompts, rollouts = args.generation_batch_size // args.num_generations, args.generation_batch_size
            where = None if self.resumed is None else f"{self.resumed} (step {state.global_step})"
            success = self.trainer._vip_success
            announce(start_line(self.trainer.vip, success, prompts=prompts, rollouts=rollouts, resumed=where))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.trainer.is_world_process_zero():
            announce(self.summary.line(next(iter(self.trainer.vip.strategies)), [self._advice(args)]))

    def _advice(self, args: Any) -> str:
        if (Path(args.output_dir) / METRICS_FILE).exists():
            return f"viprl report {args.output_dir}"
        if args.log_completions:
            return f"viprl replay {args.output_dir}"
        return "log_completions=True and logging_steps=1 keep a log that `viprl replay` compares strategies on"
