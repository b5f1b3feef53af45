"""The settings of a run as its folder keeps them, and how they are compared when it continues."""

from __future__ import annotations

from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

import yaml

from viprl.runs.resume import RunFolder, in_words, over_all_processes
from viprl.runs.resume_options import MAY_CHANGE
from viprl.train.config import RunConfig
from viprl.train.trainer_options import DEFAULTS, config_class, read_options, world_size

HEADER = "# Written by `viprl train`. The same run continues with `viprl train --config` and this file.\n"
FIXED_RATE = ("constant", "constant_with_warmup", "inverse_sqrt", "reduce_lr_on_plateau")
"""Learning-rate schedules that do not depend on the number of steps."""


def run_folder(config: RunConfig, processes: int | None = None, *, known: bool = True) -> RunFolder:
    """The run folder of a configuration.

    Args:
        config: the run.
        processes: as for `trainer_config`.
        known: False if the run may have another number of processes.

    Raises ConfigError for values of the wrong type.
    """
    defaults = {f.name: _default(f) for f in (*fields(config_class(config.algorithm)), *fields(RunConfig))}
    number = processes or world_size() if known else None
    return RunFolder(Path(config.output_dir), _given(config), {**defaults, **DEFAULTS}, number)


def record(config: RunConfig) -> str:
    """The settings of a run as a configuration file.

    The batch sizes are those over all processes, so that a continuation on more or fewer of them trains the same.
    """
    own = {f.name: _default(f) for f in fields(RunConfig)}
    given = _given(config)
    parts = {name: given[name] for name in ("per_device_train_batch_size",) if name in given}
    settings = over_all_processes(given, world_size()) | parts
    settings = {name: value for name, value in settings.items() if name not in own or value != own[name]}
    return HEADER + yaml.safe_dump(settings, sort_keys=False)


def continuation_notes(folder: RunFolder, args: Any) -> list[str]:
    """What is different from now on in a run that continues. `args` is the trainer's config."""
    changed = {name: values for name, values in folder.changes().items() if name in MAY_CHANGE}
    if not changed:
        return []
    notes = [f"the run continues with other settings: {in_words(changed)}"]
    schedule = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
    if schedule not in FIXED_RATE and {"max_steps", "num_train_epochs"} & set(changed):
        notes.append(
            f"lr_scheduler_type is {schedule}, which spans all steps: the learning rate continues on the schedule of "
            "the new length, so the result is not that of a single run of that length"
        )
    return notes


def _given(config: RunConfig) -> dict[str, Any]:
    """All settings by name, with those of the trainer that were given."""
    return {name: value for name, value in asdict(config).items() if name != "trainer"} | read_options(config)


def _default(option: Any) -> Any:
    if option.default_factory is not MISSING:
        return option.default_factory()
    return None if option.default is MISSING else option.default
