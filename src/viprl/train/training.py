"""`viprl train`: the user's model and data through the VIP trainers of TRL, logged and resumable."""

from __future__ import annotations

import json
import logging
import os
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from transformers import AutoModelForCausalLM, TrainerCallback

from viprl.engines.trl import Groups, VIPGRPOTrainer, VIPRLOOTrainer
from viprl.runs.files import FINISHED_FILE, HISTORY_FILE, OUTCOMES_FILE, SETTINGS_FILE
from viprl.runs.history import history_of_outcomes, save_history
from viprl.runs.prompt_texts import PromptTexts
from viprl.runs.resume import at_end, copy_model, finished, resume_point, state_of
from viprl.runs.run_log import RunLog, only_writer
from viprl.train.config import ConfigError, RunConfig
from viprl.train.prepare import Prepared, prepare, trusted
from viprl.train.reader import Reader
from viprl.train.summary import summary
from viprl.utils.files import write_text
from viprl.utils.state_file import StateError

logger = logging.getLogger(__name__)


def train(config: RunConfig) -> Path:
    """Run or resume the training that `config` describes; returns the run folder."""
    folder = Path(config.output_dir)
    resume_point(folder, asdict(config))  # another run's folder is refused before the data is read
    if finished(folder, asdict(config)):
        logger.warning("%s is finished; raise max_steps to go on", folder)
        return folder
    run = prepare(config)
    for note in run.notes:
        logger.warning("%s", note)
    main = os.environ.get("RANK", "0") == "0"
    with only_writer(folder) if main else nullcontext():
        checkpoint = resume_point(folder, asdict(config))
        if checkpoint is None or not _at_end(folder, config, checkpoint, run.args):
            return _train(config, run, folder, checkpoint)
        if main:  # killed while it wrote its end; the trainer, resumed at its last step, would make another one
            state = state_of(checkpoint)
            best = state["best_model_checkpoint"] if run.args.load_best_model_at_end else None
            copy_model(folder / Path(best).name if best else checkpoint, folder / "final")
            _close(folder, state["global_step"])
    return folder


def _train(config: RunConfig, run: Prepared, folder: Path, checkpoint: Path | None) -> Path:
    args = run.args
    # 32 bits unless told otherwise, as TRL does: a learning rate of 1e-6 is lost in the weights' last bits of bfloat16
    model = AutoModelForCausalLM.from_pretrained(
        config.model, **{"dtype": "float32", "trust_remote_code": trusted(args), **(args.model_init_kwargs or {})}
    )
    kind = {"rloo": VIPRLOOTrainer, "grpo": VIPGRPOTrainer}[config.algorithm]
    args.model_init_kwargs = None  # spent; TRL warns where it meets them with a model that is loaded
    trainer = kind(
        model,
        config.rewards(),
        args,
        train_dataset=run.dataset,
        eval_dataset=run.held_out,
        processing_class=run.tokenizer,
    )
    if trainer.is_world_process_zero():
        (folder / FINISHED_FILE).unlink(missing_ok=True)
        write_text(folder / SETTINGS_FILE, yaml.safe_dump(asdict(config), sort_keys=False))
        trainer.add_callback(LogToFolder(trainer, RunLog(folder, strategy=args.vip_strategy, seed=args.seed)))
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except StateError as error:
        raise ConfigError(f"{error}; or delete {checkpoint} to go on from the checkpoint before it") from error
    trainer.save_model(str(folder / "final"))
    if trainer.is_world_process_zero():
        _close(folder, trainer.state.global_step)
    return folder


def _at_end(folder: Path, config: RunConfig, checkpoint: Path, args: Any) -> bool:
    """Whether the training is complete at the checkpoint; `args` is the trainer's config."""
    steps, epochs = args.max_steps, args.num_train_epochs
    return at_end(folder, asdict(config), checkpoint, max_steps=steps, num_train_epochs=epochs)


def _close(folder: Path, step: int) -> None:
    """What a run writes last."""
    _save_history(folder)
    write_text(folder / FINISHED_FILE, json.dumps({"step": step}) + "\n")


def _save_history(folder: Path) -> None:
    """The outcomes so far by prompt, for `viprl replay`."""
    if (folder / OUTCOMES_FILE).exists():
        save_history(folder / HISTORY_FILE, history_of_outcomes([folder / OUTCOMES_FILE], PromptTexts(folder).read()))


def dry_run(config: RunConfig, *, processes: int | None = None, reader: Reader | None = None) -> list[tuple[str, str]]:
    """All checks of a run, and what it would do in (name, words); no weights, no accelerator, nothing written.

    `processes` and `reader` as `prepare` takes them.
    """
    folder = Path(config.output_dir)
    resume_point(folder, asdict(config))  # another run's folder is refused before the data is read
    run = prepare(config, dry_run=True, processes=processes, reader=reader)
    return [*summary(config, run), ("folder", f"{folder}{check_folder(config, run.args)}")]


def check_folder(config: RunConfig, args: Any) -> str:
    """What the run finds in its folder, in words; `args` is the trainer's config. Raises `ConfigError` for a run with
    other settings."""
    folder = Path(config.output_dir)
    checkpoint = resume_point(folder, asdict(config))
    if finished(folder, asdict(config)):
        return ", finished: nothing is left to train (raise max_steps to go on)"
    if checkpoint is None:
        return ""
    done = _at_end(folder, config, checkpoint, args)
    return f", trained to its end at {checkpoint.name}" if done else f", resumed from {checkpoint.name}"


class LogToFolder(TrainerCallback):
    """Writes what the trainer logs, and the outcomes of every generation batch, to a `RunLog`."""

    def __init__(self, trainer: Any, log: RunLog) -> None:
        self.trainer, self.log, self.texts = trainer, log, PromptTexts(log.folder)
        trainer.vip_listeners.append(self.record)

    def record(self, groups: Groups) -> None:
        """One generation batch; it belongs to the step that is being computed."""
        if groups.observation is not None:
            seen, step = groups.observation, self.trainer.state.global_step + 1
            self.texts.add(step, seen.keys, groups.prompts)
            self.log.outcomes(step, seen.keys, groups.counts, seen.successes, seen.rollouts)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.log.rewind(state.global_step)
        self.texts.rewind(state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        _save_history(self.log.folder)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        values = dict(logs or {})
        if "train_runtime" not in values:  # the closing summary is no step
            self.log.metrics(state.global_step, values)
