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
from viprl.lab.runlog import RunLog, only_writer, write_text, write_trajectories
from viprl.lab.runs import TRAJECTORIES_FILE
from viprl.prompts import identity
from viprl.state import StateError
from viprl.train.config import FINISHED_FILE, ConfigError, RunConfig
from viprl.train.prepare import Prepared, prepare, trusted
from viprl.train.summary import summary

logger = logging.getLogger(__name__)

SETTINGS_FILE = "config.yaml"
FREE_TO_CHANGE = (
    "max_steps",
    "num_train_epochs",
    "logging_steps",
    "save_steps",
    "disable_tqdm",
    "vip_strategy",
    "output_dir",
)
"""Trainer options that may differ between a run and its continuation."""


def train(config: RunConfig) -> Path:
    """Run or resume the training that `config` describes; returns the run folder."""
    folder = Path(config.output_dir)
    resume_point(folder, config)  # another run's folder is refused before the data is read
    run = prepare(config)
    for note in run.notes:
        logger.warning("%s", note)
    with only_writer(folder) if os.environ.get("RANK", "0") == "0" else nullcontext():
        checkpoint = resume_point(folder, config)
        if checkpoint is not None and 0 < run.args.max_steps <= int(checkpoint.name.rpartition("-")[2]):
            logger.warning("%s is finished (%d steps); raise max_steps to go on", folder, run.args.max_steps)
            return folder
        return _train(config, run, folder, checkpoint)


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
        write_text(folder / FINISHED_FILE, json.dumps({"step": trainer.state.global_step}) + "\n")
    return folder


def dry_run(config: RunConfig) -> list[tuple[str, str]]:
    """All checks of a run, and what it would do in (name, words); no weights, no accelerator, nothing written."""
    checkpoint = resume_point(Path(config.output_dir), config)
    facts = summary(config, prepare(config, dry_run=True))
    return [*facts, ("folder", f"{config.output_dir}{f', resumed from {checkpoint.name}' if checkpoint else ''}")]


class LogToFolder(TrainerCallback):
    """Writes what the trainer logs, and the outcomes of every generation batch, to a `RunLog`."""

    def __init__(self, trainer: Any, log: RunLog) -> None:
        self.trainer, self.log = trainer, log
        trainer.vip_listeners.append(self.record)

    def record(self, groups: Groups) -> None:
        """One generation batch; it belongs to the step that is being computed."""
        if groups.observation is not None:
            seen = groups.observation
            self.log.outcomes(
                self.trainer.state.global_step + 1, seen.keys, groups.counts, seen.successes, seen.rollouts
            )

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.log.rewind(state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trajectories()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trajectories()

    def _trajectories(self) -> None:
        """The outcomes so far by prompt, for `viprl replay`; prompts of a stream have ids alone."""
        data = self.trainer.train_dataset
        rows = data if hasattr(data, "__len__") else ()
        prompts = {identity(self.trainer._vip_prompt(row)): row.get("prompt", "") for row in rows}
        folder = self.log.folder
        if (folder / "outcomes.jsonl").exists():
            write_trajectories(folder / TRAJECTORIES_FILE, [folder / "outcomes.jsonl"], prompts)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        values = dict(logs or {})
        if "train_runtime" not in values:  # the closing summary is no step
            self.log.metrics(state.global_step, values)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end: the trainer's state is the last file of one."""
    found = [path for path in folder.glob("checkpoint-*") if _complete(path)]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _complete(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def resume_point(folder: Path, config: RunConfig) -> Path | None:
    """The newest checkpoint of the same run in its folder, None for a run that has none yet.

    Raises `ConfigError` where the folder holds another run.
    """
    file = folder / SETTINGS_FILE
    if not file.exists():
        return None
    changed = _differences(yaml.safe_load(file.read_text(encoding="utf-8")), asdict(config))
    if changed:
        raise ConfigError(
            f"{folder} holds a run with other settings ({', '.join(changed)}); choose another output_dir, or delete "
            "that folder to start again"
        )
    return last_checkpoint(folder)


def _differences(earlier: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Keys whose change would make a resumed run another run."""
    flat = [{**settings, **settings["trainer"]} for settings in (earlier, now)]
    keys = dict.fromkeys([*flat[0], *flat[1]])
    return [k for k in keys if k not in ("trainer", *FREE_TO_CHANGE) and flat[0].get(k) != flat[1].get(k)]
