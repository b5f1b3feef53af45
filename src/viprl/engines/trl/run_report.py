"""The lines at the start and at the end of a training with TRL."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from viprl.engines.run_lines import RunSummary, announce, start_line
from viprl.metrics import SHRINKAGE
from viprl.runs.files import METRICS_FILE

logger = logging.getLogger(__name__)


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
        self._rewarded = 0  # batches with a reward

    def add(self, batch: Any, metrics: Mapping[str, float]) -> None:
        """Count a generation batch (`Groups`)."""
        args = self.trainer.args
        bounds = args.vip_min_rollouts, args.vip_max_rollouts
        self.summary.add(batch.counts, batch.observation, metrics, bounds)
        if args.vip_baseline == "expected" and self._rewarded == 1 and SHRINKAGE not in metrics:
            logger.warning(
                "vip_baseline='expected' has no effect: the strategy %s does not say how certain its predictions are; "
                "set vip_strategy='default' or vip_baseline='group'",
                next(iter(self.trainer.vip.strategies)),
            )
        self._rewarded += bool(batch.observation.rollouts.any())

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.summary = RunSummary(self.resumed is not None, args.vip_candidates > 1, self.trainer.vip)
        # transformers takes logging_steps, save_steps and eval_steps of a resumed run from the checkpoint
        state.compute_steps(args, state.max_steps)
        if self.trainer.is_world_process_zero():
            where = None if self.resumed is None else f"{self.resumed} (step {state.global_step})"
            choices = {name: getattr(args, f"vip_{name}") for name in ("candidates", "unbiased", "baseline", "waves")}
            sizes = {"prompts": args.vip_prompts, "rollouts": args.generation_batch_size}
            announce(start_line(self.trainer.vip, self.trainer._vip_success, **sizes, resumed=where, **choices))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.trainer.is_world_process_zero():
            announce(self.summary.line(next(iter(self.trainer.vip.strategies)), [self._advice(args)]))

    def _advice(self, args: Any) -> str:
        if (Path(args.output_dir) / METRICS_FILE).exists():
            return f"viprl report {args.output_dir}"
        if args.log_completions:
            return f"viprl replay {args.output_dir}"
        return "log_completions=True and logging_steps=1 keep a log that `viprl replay` compares strategies on"
