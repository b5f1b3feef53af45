"""`viprl train`: train the model of a configuration with the TRL trainers of VIP; log to the run folder and resume."""

from __future__ import annotations

import json
import logging
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, TrainerCallback

from viprl.engines.trl import Groups, VIPGRPOTrainer, VIPRLOOTrainer
from viprl.errors import StateError
from viprl.runs.files import FINISHED_FILE, HISTORY_FILE, OUTCOMES_FILE, SETTINGS_FILE
from viprl.runs.history import history_of_outcomes, save_history
from viprl.runs.prompt_texts import PromptTexts
from viprl.runs.resume import OPTIMIZER_FILES, copy_model, state_of
from viprl.runs.run_log import RunLog, only_writer
from viprl.train.config import RunConfig
from viprl.train.dry_run import prepare_for_folder, training_complete
from viprl.train.prepare import Prepared, trusts_code
from viprl.train.record import continuation_notes, record, run_folder
from viprl.utils.files import write_text, writing

logger = logging.getLogger(__name__)


def train(config: RunConfig) -> Path:
    """Start or resume a training; returns the run folder.

    Raises a `viprl.errors.ViprlError` for mistakes in the configuration, the data and the run folder. Exceptions of the
    reward functions and of TRL are passed on.
    """
    found, folder = run_folder(config), Path(config.output_dir)
    if found.finished():
        logger.warning("%s is already finished; raise max_steps to train further", folder)
        return folder
    run = prepare_for_folder(config)
    for note in run.notes:
        logger.warning("%s", note)
    main = os.environ.get("RANK", "0") == "0"
    with only_writer(folder) if main else nullcontext():
        checkpoint = found.resume_point()
        if checkpoint is None or not training_complete(found, checkpoint, run.args):
            for note in continuation_notes(found, run.args) if main else ():
                logger.warning("%s", note)
            _train(config, run, folder, checkpoint)
        elif main:  # killed after the last step; a trainer that resumes there would make another step
            state = state_of(checkpoint)
            best = state["best_model_checkpoint"] if run.args.load_best_model_at_end else None
            copy_model(folder / Path(best).name if best else checkpoint, folder / "final")
            _close(folder, state["global_step"])
    return folder


def _train(config: RunConfig, run: Prepared, folder: Path, checkpoint: Path | None) -> None:
    args = run.args
    if checkpoint is not None and not any(any(checkpoint.glob(kind)) for kind in OPTIMIZER_FILES):
        raise StateError(
            f"{checkpoint} has no state of the optimizer (save_only_model: true?), so the run cannot continue; choose "
            "another output_dir, with the checkpoint as the model, or delete the folder to start again"
        )
    # 32 bits by default, as in TRL: in bfloat16 the steps of a learning rate of 1e-6 are lost in rounding
    options = {"dtype": "float32", "trust_remote_code": trusts_code(args), **(args.model_init_kwargs or {})}
    model = AutoModelForCausalLM.from_pretrained(config.model, **options)
    args.model_init_kwargs = None  # TRL warns about them if the model is already loaded
    kind = {"rloo": VIPRLOOTrainer, "grpo": VIPGRPOTrainer}[config.algorithm]
    data = {"train_dataset": run.dataset, "eval_dataset": run.held_out, "processing_class": run.tokenizer}
    if config.peft is not None:
        data["peft_config"] = config.lora()
    trainer = kind(model, config.rewards(), args, **data)
    if trainer.is_world_process_zero():
        with writing(folder / FINISHED_FILE):
            (folder / FINISHED_FILE).unlink(missing_ok=True)
        write_text(folder / SETTINGS_FILE, record(config))
        trainer.add_callback(LogToFolder(trainer, RunLog(folder, strategy=args.vip_strategy, seed=args.seed)))
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except StateError as error:
        raise StateError(f"{error}; or delete {checkpoint} to resume from the checkpoint before it") from error
    with writing(folder / "final"):
        trainer.save_model(str(folder / "final"))
    if trainer.is_world_process_zero():
        _close(folder, trainer.state.global_step)


def _close(folder: Path, step: int) -> None:
    """Write the last files of a run."""
    _save_history(folder)
    write_text(folder / FINISHED_FILE, json.dumps({"step": step}) + "\n")


def _save_history(folder: Path) -> None:
    """Write the outcomes so far by prompt, for `viprl replay`."""
    if (folder / OUTCOMES_FILE).exists():
        save_history(folder / HISTORY_FILE, history_of_outcomes([folder / OUTCOMES_FILE], PromptTexts(folder).read()))


class LogToFolder(TrainerCallback):
    """Writes what a trainer of `viprl.engines.trl` logs, and the outcomes of every batch, to the run folder."""

    def __init__(self, trainer: Any, log: RunLog) -> None:
        self.trainer, self.log, self.texts = trainer, log, PromptTexts(log.folder)
        trainer.vip_listeners.append(self.record)

    def record(self, groups: Groups) -> None:
        """Log one generation batch. It belongs to the step that is being computed."""
        if groups.observation is not None:
            seen, step = groups.observation, self.trainer.state.global_step + 1
            self.texts.add(step, seen.keys, groups.prompts)
            self.log.outcomes(step, seen.keys, groups.counts, seen.successes, seen.rollouts, seen.rewards, seen.lengths)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.log.rewind(state.global_step)
        self.texts.rewind(state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        _save_history(self.log.folder)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        values = dict(logs or {})
        if "train_runtime" not in values:  # the summary at the end is not a step
            self.log.metrics(state.global_step, values)
