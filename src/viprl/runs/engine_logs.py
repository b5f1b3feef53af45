"""Reads what a run logged about its prompts: history files, run folders, and the logs of verl and TRL."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from viprl.errors import DataError, FileError, InputError
from viprl.outcomes import Success
from viprl.runs.files import HISTORY_FILE, METRICS_FILE, OUTCOMES_FILE
from viprl.runs.history import PromptHistory, history_file, read_history_file
from viprl.runs.logged_rollouts import LoggedRun
from viprl.runs.run_folder import read_run_folder
from viprl.runs.trainer_state import trainer_state
from viprl.runs.trl_completions import read_trl, trl_files
from viprl.runs.verl_dumps import read_verl, verl_files
from viprl.utils.sequences import check_choice

_EXPECTED = (
    f"expected a file .jsonl, .jsonl.gz or .parquet, or a folder with {HISTORY_FILE} (a run of viprl), STEP.jsonl "
    "(trainer.rollout_data_dir of verl) or completions_STEP.parquet (log_completions of TRL)"
)


def read_history(path: str | Path, *, reward: str | None = None, success: Success = None) -> list[PromptHistory]:
    """Read the history of the prompts of a run.

    Args:
        path: a history file (`viprl.runs.history`), a run folder, or a folder with the logs of verl or TRL.
        reward: the reward field of such a log, see `from_verl` and `from_trl`; "NAME>=0.5" sets a threshold, too.
        success: which rewards are a success, see `viprl.runs.logged_rollouts.deciding_reward`.

    Raises DataError for content that cannot be used (with file and row, counted from 1), FileError if there is no such
    file, InputError if reward and success contradict each other, MissingPackageError for parquet without pyarrow.
    """
    return read_log(path, reward=reward, success=success).histories


def logged_prompts(path: str | Path, match: str, reward: str | None = None) -> list[PromptHistory]:
    """The histories of the prompts of a run, for a later run that recognises them by content or by id.

    Args:
        path, reward: as for `read_history`.
        match: "prompt" or "id".

    Raises InputError for another `match`, and if a log without prompts is to be matched by them.
    """
    check_choice("match", match, ("prompt", "id"))
    logged = read_history(path, reward=reward)
    if match == "id":
        return [replace(history, prompt={"prompt": history.prompt, "id": history.id}) for history in logged]
    logged = [history for history in logged if history.prompt]
    if not logged:
        raise InputError(f"{path} has ids but no prompts; set match='id' if the new run has the same ids")
    return logged


def read_log(path: str | Path, *, reward: str | None = None, success: Success = None) -> LoggedRun:
    """`read_history`, with what the log says about the run: prompts of a step and bounds."""
    path = Path(path).expanduser()
    if path.is_dir():
        return _read_folder(path, reward, success)
    if not path.is_file():
        raise FileError(f"{path} not found; {_EXPECTED}")
    if path.suffix not in (".jsonl", ".json", ".gz", ".parquet"):
        raise DataError(f"{path} has an unknown type; {_EXPECTED}")
    if any(path == file for _, file in verl_files(path.parent) + trl_files(path.parent)):
        raise DataError(f"{path} is one step of a log; give its folder, {path.parent}")
    return LoggedRun(read_history_file(path), stored=True)


def from_verl(folder: str | Path, *, reward: str | None = None, success: Success = None) -> list[PromptHistory]:
    """Read the rollouts that verl writes with `trainer.rollout_data_dir=FOLDER`.

    There is one file STEP.jsonl for each training step and one row for each rollout: `input` (the prompt as text,
    chat template included), `output`, `score` (the sum of the rewards), `step`, in most versions `gts` (the reference
    answer: text, JSON text or a number), and the further values that the reward function returned. The length of a
    rollout is `response_length` (tokens) where the dump has it, otherwise the characters of `output`.

    A prompt is identified by `input` and `gts`; its rollouts within one step are one visit. If `uid` is
    SAMPLE_ROLLOUT_OUTPUT (agent loops with several outputs for a rollout), a rollout counts once, with its first input
    and its last score. Rows that verl added as padding do not count. Files that verl's validation wrote into the same
    folder are left out with a warning.

    Args:
        folder: the value of `trainer.rollout_data_dir`.
        reward: the field with the reward, such as `acc` or `acc>=0.5`. Default: `score`.
        success: which rewards are a success, see `viprl.runs.logged_rollouts.deciding_reward`.

    Raises DataError for content that cannot be used, FileError if there is no STEP.jsonl, InputError if reward and
    success contradict each other.
    """
    return read_verl(Path(folder), reward=reward, success=success).histories


def from_trl(folder: str | Path, *, reward: str | None = None, success: Success = None) -> list[PromptHistory]:
    """Read the completions that TRL's trainers write with `log_completions=True`.

    There are files OUTPUT_DIR/completions/completions_STEP.parquet with one row for each completion: `step`, `prompt`
    (text or messages), `completion`, `advantage`, and one column for each reward function. The length of a rollout is
    that of `completion` in characters. A file has the last
    generation batch only, so every visit is in the log only with `logging_steps=1`. A batch that is logged repeatedly
    (several optimiser steps for one generation) counts once. The completions of a prompt in one file are one visit.

    TRL writes evaluations to the same files. They are left out with a warning if the trainer was one of this package
    (column `vip_rollouts`) or the folder or one of its checkpoints has trainer_state.json. Otherwise a warning says
    that they may be among the rows.

    Args:
        folder: OUTPUT_DIR or its folder completions.
        reward: the column with the reward, such as `accuracy` or `accuracy>=0.5`; required if there are several.
        success: which rewards are a success, see `viprl.runs.logged_rollouts.deciding_reward`.

    Raises DataError for content that cannot be used, FileError if there is no such file, InputError if reward and
    success contradict each other, MissingPackageError without pyarrow.
    """
    return read_trl(Path(folder), reward=reward, success=success).histories


def _read_folder(folder: Path, reward: str | None, success: Success) -> LoggedRun:
    if history_file(folder) is not None or (folder / OUTCOMES_FILE).is_file():
        return read_run_folder(folder)
    if verl_files(folder):
        return read_verl(folder, reward=reward, success=success)
    if trl_files(folder):
        return read_trl(folder, reward=reward, success=success)
    if trainer_state(folder) is not None or (folder / METRICS_FILE).is_file():
        raise DataError(
            f"{folder} has the metrics of a run, but not the outcomes of its prompts; train with log_completions=True "
            f"and logging_steps=1, or with `viprl train`. `viprl report {folder}` draws the metrics"
        )
    inside = [path for path in sorted(folder.iterdir()) if path.is_dir() and _has_log(path)]
    hint = f"; found logs in {', '.join(map(str, inside[:5]))}: give one of them" if inside else f"; {_EXPECTED}"
    raise DataError(f"{folder} has no history{hint}")


def _has_log(folder: Path) -> bool:
    outcomes = history_file(folder) is not None or (folder / OUTCOMES_FILE).is_file()
    return outcomes or bool(verl_files(folder) or trl_files(folder))
