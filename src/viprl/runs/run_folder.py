"""Reads what a run folder says about its prompts."""

from __future__ import annotations

from pathlib import Path
from statistics import mode
from typing import Any

from viprl.errors import DataError, FileError
from viprl.runs.files import OUTCOMES_FILE, PROMPTS_FILE, SETTINGS_FILE
from viprl.runs.history import history_file, history_of_outcomes, read_history_file
from viprl.runs.logged_rollouts import LoggedRun
from viprl.runs.prompt_texts import PromptTexts
from viprl.utils.json_lines import log_rows
from viprl.utils.numerics import number


def read_run_folder(folder: Path) -> LoggedRun:
    """The histories of a run folder, the prompts of its steps, and the bounds in its settings.

    Outcomes and prompts are read if both are there: they go up to the last step of a run that goes on or was killed,
    while the history is written at checkpoints.
    """
    file, outcomes = history_file(folder), folder / OUTCOMES_FILE
    if file is None or (outcomes.is_file() and (folder / PROMPTS_FILE).is_file()):
        histories = history_of_outcomes([outcomes], PromptTexts(folder).read())
    else:
        histories = read_history_file(file)
    if not histories:
        raise DataError(f"{outcomes} has no scorable rollouts yet; wait until the run has made a step")
    logged = [row.get("ids") for row in log_rows(outcomes)] if outcomes.is_file() else []
    sizes = [len(ids) for ids in logged if isinstance(ids, list)]
    settings = run_settings(folder)
    bounds = (_bound(settings, "vip_min_rollouts", "vip_low"), _bound(settings, "vip_max_rollouts", "vip_high"))
    return LoggedRun(histories, mode(sizes) if sizes else None, *bounds, own=True, stored=True)


def run_settings(folder: Path) -> dict[str, Any]:
    """The settings of a run folder by name, those of its trainer included; empty without any that can be read."""
    file = folder / SETTINGS_FILE
    if not file.is_file():
        return {}
    try:
        from viprl.utils.safe_yaml import read_yaml_mapping
    except ImportError:  # the core alone
        return {}
    try:
        settings = read_yaml_mapping(file)
    except (DataError, FileError):
        return {}
    trainer = settings.get("trainer")
    return settings | (trainer if isinstance(trainer, dict) else {})


def _bound(settings: dict[str, Any], name: str, old_name: str) -> int | None:
    """A bound under its name, or under that of earlier versions."""
    values = [number(settings.get(key)) for key in (name, old_name)]
    return next((int(value) for value in values if value == value), None)  # not NaN
