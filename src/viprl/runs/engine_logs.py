"""Histories from the logs of other trainers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from viprl.outcomes import RewardReader, Success, tally
from viprl.prompts import Prompt, identity
from viprl.runs.history import HISTORY_FILE, PromptHistory, parquet_rows, read_history_file
from viprl.utils.json_lines import read_json_lines

Rewarded = tuple[Prompt, float | None]
"""A prompt and the reward of one rollout of it."""

_TRL_COLUMNS = ("step", "prompt", "completion", "advantage")
_VERL_OUTPUT = re.compile(r"(.+_\d+)_\d+", re.DOTALL)
"""SAMPLE_ROLLOUT_OUTPUT, of which the first two name a rollout."""
_VERL_PADDING = re.compile(r"pad[0-9a-f]{32}_\d+_\d+")
"""Rows that verl adds when a batch does not divide; it dumps them too, with an empty input and score 0."""

_EXPECTED = (
    "expected a file .jsonl, .jsonl.gz or .parquet, or a folder with trajectories.jsonl.gz (a viprl run), STEP.jsonl "
    "(verl's trainer.rollout_data_dir) or completions_STEP.parquet (TRL's log_completions)"
)


def read_history(path: str | Path, *, reward: str | None = None, success: Success = None) -> list[PromptHistory]:
    """Trajectories from a file in the format above, a viprl run folder, or a folder of verl or TRL logs.

    `reward` and `success` say what success is in logs of other trainers, see `from_verl` and `from_trl`.
    Raises ValueError that names file and row (counted from 1), FileNotFoundError, ImportError for parquet without
    pyarrow.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        if (path / HISTORY_FILE).is_file():
            return read_history_file(path / HISTORY_FILE)
        if _dumps(path, "*.jsonl"):
            return from_verl(path, reward=reward or "score", success=success)
        if _completions(path):
            return from_trl(path, reward=reward, success=success)
        raise ValueError(f"{path} holds no trajectories; {_EXPECTED}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {_EXPECTED}")
    if path.suffix not in (".jsonl", ".json", ".gz", ".parquet"):
        raise ValueError(f"{path} is of an unknown kind; {_EXPECTED}")
    return read_history_file(path)


def from_verl(folder: str | Path, *, reward: str = "score", success: Success = None) -> list[PromptHistory]:
    """Trajectories from what verl 0.9 writes with `trainer.rollout_data_dir=FOLDER`.

    One file STEP.jsonl a training step, one line a rollout: `input` (the prompt as decoded text, chat template
    included), `output`, `gts`, `score` (the summed reward), `step`, and what else the reward function returned.
    The prompt's identity is its `input`; its rollouts within one step are one visit. Where `uid` is
    SAMPLE_ROLLOUT_OUTPUT (agent loops with several outputs a rollout) a rollout counts once: its first input, its last
    score. Rows with which verl padded the batch do not count.

    Args:
        reward: the field that says how good a rollout was, such as `score` or `acc`.
        success: None where that is 0/1 or -1/+1, otherwise a threshold or a function (see `viprl.rewards.Success`).

    Raises: ValueError that names file and row; FileNotFoundError without such files.
    """
    files = _dumps(Path(folder), "*.jsonl")
    if not files:
        raise FileNotFoundError(f"{folder} holds no STEP.jsonl, such as 1.jsonl; set trainer.rollout_data_dir in verl")
    return _gather((_verl_step(file, reward) for _, file in sorted(files)), success, str(folder))


def from_trl(folder: str | Path, *, reward: str | None = None, success: Success = None) -> list[PromptHistory]:
    """Trajectories from what TRL's GRPOTrainer writes with `log_completions=True`.

    Files OUTPUT_DIR/completions/completions_STEP.parquet, one row a completion: `step`, `prompt` (text or messages),
    `completion`, one column for each reward function, columns that those log themselves, `advantage`. Each file holds
    the last generation batch, so only `logging_steps=1` logs every visit; a batch that is written again (several
    optimisation steps on one generation) counts once. A prompt's completions in one file are one visit.

    Args:
        folder: OUTPUT_DIR or its folder completions.
        reward: the reward column that decides; needed where there are several.
        success: as in `from_verl`.

    Raises: ValueError that names the file and its columns; FileNotFoundError without such files.
    """
    files = _completions(Path(folder))
    if not files:
        raise FileNotFoundError(f"{folder} holds no completions_STEP.parquet; set log_completions=True in TRL")
    return _gather(_trl_steps([file for _, file in sorted(files)], reward), success, str(folder))


def _gather(steps: Iterable[Sequence[Rewarded]], success: Success, where: str) -> list[PromptHistory]:
    """Rewarded rollouts, step by step, as trajectories; rollouts without a readable reward do not count."""
    read = RewardReader(success)
    prompts: dict[str, Prompt] = {}
    visits: dict[str, list[tuple[float, float]]] = {}
    example: float | None = None
    for step in steps:
        groups: dict[str, list[float | None]] = {}
        for prompt, reward in step:
            key, example = identity(prompt), reward
            prompts.setdefault(key, prompt)
            groups.setdefault(key, []).append(reward)
        successes, rollouts = tally([read(rewards) for rewards in groups.values()])
        for key, k, n in zip(groups, successes, rollouts, strict=True):
            if n > 0:
                visits.setdefault(key, []).append((n, k))
    if not visits:
        raise ValueError(
            f"{where}: no reward could be read as success or failure (the last one is {example!r}); expected 0/1 or "
            "-1/+1, or a threshold as `success`"
        )
    tables = {key: np.array(pairs, dtype=float) for key, pairs in visits.items()}
    return [PromptHistory(key, prompts[key], pairs[:, 0], pairs[:, 1]) for key, pairs in tables.items()]


def _verl_step(file: Path, reward: str) -> list[Rewarded]:
    """The rollouts of one step; outputs of one rollout stand next to each other, the last one is its end."""
    rows = [(number, row) for number, row in read_json_lines(file) if not _VERL_PADDING.fullmatch(str(row.get("uid")))]
    for number, row in rows:
        missing = [field for field in ("input", reward) if field not in row]
        if missing:
            raise ValueError(f"{file}, row {number} has the fields {', '.join(row)}, but no {missing[0]!r}")
    names = [_VERL_OUTPUT.fullmatch(str(row.get("uid"))) for _, row in rows]
    if not all(names) or len({name.string for name in names if name}) < len(rows):
        return [(row["input"], row[reward]) for _, row in rows]  # no or other uids: every row is a rollout
    rollouts: dict[str, Rewarded] = {}
    for name, (_, row) in zip(names, rows, strict=True):
        rollout = name[1] if name else ""
        rollouts[rollout] = rollouts.get(rollout, (row["input"], None))[0], row[reward]
    return list(rollouts.values())


def _trl_steps(files: Iterable[Path], reward: str | None) -> Iterator[list[Rewarded]]:
    before: list[tuple[Any, ...]] = []
    for file in files:
        table = [row for _, row in parquet_rows(file)]
        columns = [name for name in next(iter(table), {}) if name not in _TRL_COLUMNS]
        column = reward or (columns[0] if len(columns) == 1 else None)
        if not table:
            continue
        if column is None or column not in table[0] or "prompt" not in table[0]:
            raise ValueError(
                f"{file} has the columns {', '.join(table[0])}; expected `prompt` and one that says what success is"
                + (f", not {reward!r}" if reward else f": name it as `reward`, one of {', '.join(columns)}")
            )
        rows = [(row["prompt"], row.get("completion"), row[column]) for row in table]
        if rows != before:
            yield [(prompt, value) for prompt, _, value in rows]
        before = rows


def _dumps(folder: Path, pattern: str, number: Callable[[str], str] = str) -> list[tuple[int, Path]]:
    """(step, file) of the files of `pattern` whose name holds a step."""
    found = [(number(file.stem), file) for file in folder.glob(pattern)]
    return [(int(step), file) for step, file in found if step.isdecimal()]


def _completions(folder: Path) -> list[tuple[int, Path]]:
    pattern = "completions_*.parquet"
    places = (folder, folder / "completions")
    return next((found for at in places if (found := _dumps(at, pattern, lambda s: s.rpartition("_")[2]))), [])
