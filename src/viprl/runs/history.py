"""The history of prompts over a training run: the input of `viprl replay` and of a warm start.

A history file has one row for each prompt. It is JSON lines (.jsonl, .jsonl.gz) or parquet:

    id            optional: text or whole number, unique. Default: derived from prompt and ground truth
    prompt        text or chat messages
    ground_truth  optional: the reference answer as text
    rollouts      scorable rollouts of each visit: one whole number for all visits, or a list with one for each
    successes     list of whole numbers, in training order: how many rollouts of each visit succeeded
    rewards       for rewards other than 0/1 and -1/+1: one list of rewards for each visit, in training order. Then
                  rollouts and successes are optional, and successes may be null
    lengths       optional: one list for each visit with the length of each rollout, null where unknown: in the order of
                  the rewards; in rows without rewards those of the successes first. Tokens or characters: only their
                  ratios matter

Examples of rows:
    {"id": "7", "prompt": "What is 2 + 2?", "rollouts": 8, "successes": [3, 5, 8]}
    {"id": "8", "prompt": "Name a prime.", "rewards": [[0.1, 1.0, 0.0], [1.0, 1.0, 0.1]]}

The quickstart and `viprl train` write such a file. `viprl.runs.engine_logs` reads the logs of verl and TRL in the same
form.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from viprl.errors import DataError
from viprl.outcomes import LARGEST_REWARD, scorable
from viprl.prompts import Prompt, identity
from viprl.runs.files import HISTORY_FILE, OLD_HISTORY_FILE
from viprl.runs.parquet import parquet_rows
from viprl.runs.visits import Visit, of_one_kind, plain_lengths
from viprl.utils.arrays import FloatArray
from viprl.utils.json_lines import read_json_lines, write_json_lines
from viprl.utils.missing import is_missing, names_missing
from viprl.utils.sequences import short
from viprl.utils.words import first_line

MOST_ROLLOUTS = 10**6
"""Rollouts of a visit beyond this are taken for an error."""
_OUTCOMES = ("ids", "successes", "scorable")
"""Lists that every row of an outcome log has."""


@dataclass(frozen=True, eq=False)
class PromptHistory:
    """The outcomes of one prompt over a training run."""

    id: str
    prompt: Prompt
    """Text or chat messages; empty if the log has none."""
    rollouts: FloatArray
    """[T] scorable rollouts of each visit, at least 1."""
    successes: FloatArray
    """[T] how many of them succeeded; NaN where success is undefined, which needs rewards."""
    ground_truth: str | None = None
    """The reference answer, if the log has one. Equal texts with different answers are different prompts."""
    rewards: tuple[FloatArray, ...] | None = None
    """[T] the scorable rewards of each visit, [n]; None if the successes say them, because rewards are 0/1 or -1/+1."""
    lengths: tuple[FloatArray, ...] | None = None
    """[T] the length of each scorable rollout, [n], in the order of the rewards, or successes first where there are
    none; NaN where unknown. None: all unknown. The unit is that of the log, such as tokens or characters."""

    @classmethod
    def of(cls, id: str, prompt: Prompt, visits: Sequence[Visit], ground_truth: str | None = None) -> PromptHistory:
        """From visits that all have rewards, or all have none."""
        rollouts, successes = np.array([(visit.rollouts, visit.successes) for visit in visits], dtype=float).T
        rewards = tuple(visit.rewards for visit in visits if visit.rewards is not None)
        known = any(visit.lengths is not None for visit in visits)
        lengths = tuple(map(_lengths_of, visits)) if known else None
        return cls(id, prompt, rollouts, successes, ground_truth, rewards or None, lengths)

    @property
    def visits(self) -> list[Visit]:
        """[T]."""
        none = [None] * len(self.rollouts)
        rewards, lengths = self.rewards or none, self.lengths or none
        return list(map(Visit, self.rollouts.tolist(), self.successes.tolist(), rewards, lengths))


def _lengths_of(visit: Visit) -> FloatArray:
    return np.full(int(visit.rollouts), np.nan) if visit.lengths is None else visit.lengths


def all_of_one_kind(histories: Sequence[PromptHistory]) -> list[PromptHistory]:
    """The same histories, all with rewards or all without, see `viprl.runs.visits.of_one_kind`."""
    if all(history.rewards is None and history.lengths is None for history in histories):
        return list(histories)
    kinds = of_one_kind([history.visits for history in histories])
    return [
        PromptHistory.of(h.id, h.prompt, visits, h.ground_truth) for h, visits in zip(histories, kinds, strict=True)
    ]


def history_id(prompt: Prompt, ground_truth: str | None = None) -> str:
    """The id of a prompt that has none of its own: derived from its content and its ground truth, if there is one."""
    key = identity(prompt).removeprefix("id:")
    return key if ground_truth is None else f"{key}:{hashlib.sha256(ground_truth.encode()).hexdigest()[:16]}"


def history_file(folder: Path) -> Path | None:
    """The history file of a run folder, also under the name of earlier versions; None if there is none."""
    return next((folder / name for name in (HISTORY_FILE, OLD_HISTORY_FILE) if (folder / name).is_file()), None)


def read_history_file(path: Path) -> list[PromptHistory]:
    """Read a history file.

    Raises DataError for a row that cannot be used (named by file and row, counted from 1), repeated ids and empty
    files; FileNotFoundError; MissingPackageError for parquet without pyarrow.
    """
    rows = parquet_rows(path) if path.suffix == ".parquet" else read_json_lines(path)
    found: dict[str, tuple[int, PromptHistory]] = {}
    for number, row in rows:
        history = history_of_row(row, f"{path}, row {number}")
        if history.id in found:
            raise DataError(
                f"{path}, row {number} repeats the id {history.id!r} of row {found[history.id][0]}; "
                "put all visits of a prompt into one row"
            )
        found[history.id] = number, history
    if not found:
        raise DataError(f"{path} has no rows; expected one row for each prompt")
    return all_of_one_kind([history for _, history in found.values()])


def history_of_row(row: Mapping[str, Any], where: str) -> PromptHistory:
    """The history in a row of a history file. Raises DataError, which begins with `where`."""
    rewarded = not absent(row.get("rewards"))
    for field in ("prompt",) if rewarded else ("prompt", "rollouts", "successes"):
        if absent(row.get(field)):
            raise DataError(
                f"{where} has no {field!r}; expected prompt, and rollouts and successes, or rewards; got "
                f"{', '.join(row)}"
            )
    truth = ground_truth_text(row.get("ground_truth"))
    given = None if absent(row.get("id")) else row["id"]
    if isinstance(given, float) and given.is_integer():  # pandas, if other rows have no id
        given = int(given)
    try:
        key = identity({"prompt": row["prompt"], "id": given}).removeprefix("id:")
        key = history_id(row["prompt"], truth) if given is None else key
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{where}: {first_line(error)}") from error
    rewards = _rewards(row["rewards"], f"{where}: rewards") if rewarded else None
    successes = _successes(row.get("successes"), rewards, f"{where}: successes")
    rollouts = _rollouts(row.get("rollouts"), successes, rewards, where)
    if (successes > rollouts).any():
        visit = int(np.argmax(successes > rollouts))
        raise DataError(
            f"{where}: {successes[visit]:g} successes of {rollouts[visit]:g} rollouts at visit {visit + 1}; successes "
            "cannot exceed rollouts"
        )
    lengths = None if absent(row.get("lengths")) else _lengths(row, rollouts, f"{where}: lengths")
    return PromptHistory(key, row["prompt"], rollouts, successes, truth, rewards, lengths)


def save_history(path: str | Path, histories: Iterable[PromptHistory]) -> None:
    """Write a history file as JSON lines, compressed if the name ends in .gz."""
    write_json_lines(path, map(_row, histories))


def history_of_outcomes(outcomes: Iterable[str | Path], prompts: Mapping[str, Prompt]) -> list[PromptHistory]:
    """The history in the outcome logs of one or more runs (`viprl.runs.run_log`).

    Visits without a scorable rollout are left out.

    Args:
        outcomes: the log files, in training order.
        prompts: text or chat by identity; a prompt that is missing gets an empty text.
    """
    visited: dict[str, list[Visit]] = {}
    for log in outcomes:
        for number, row in read_json_lines(log, bad=lambda *_: None):  # a killed run cuts lines short
            try:
                found = [(str(key), visit) for key, visit in zip(row["ids"], _visits(row), strict=True)]
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise DataError(
                    f"{log}, row {number} has no equally long lists {', '.join(_OUTCOMES)} of possible outcomes; fix "
                    "or delete the row"
                ) from error
            for key, visit in found:
                if visit.rollouts > 0:
                    visited.setdefault(key, []).append(visit)
    kinds = zip(visited, of_one_kind(list(visited.values())), strict=True)
    return [PromptHistory.of(key.removeprefix("id:"), prompts.get(key, ""), found) for key, found in kinds]


def _visits(row: Mapping[str, Any]) -> list[Visit]:
    """The visits in a row of an outcome log. Raises KeyError, TypeError or ValueError for another form."""
    none = [None] * len(row["scorable"])
    rewards, lengths = (
        none if row.get(name) is None else [np.array(group, dtype=float) for group in row[name]]
        for name in ("rewards", "lengths")
    )
    for groups in (rewards, lengths):
        if any(group is not None and len(group) != n for group, n in zip(groups, row["scorable"], strict=True)):
            raise ValueError("rewards or lengths and scorable differ")
    found = [
        Visit(int(n), int(k) if group is None else math.nan if k is None else int(k), group, length)
        for k, n, group, length in zip(row["successes"], row["scorable"], rewards, lengths, strict=True)
    ]
    if not all(map(_is_possible, found)):
        raise ValueError("negative or huge numbers")
    return [visit._replace(successes=min(visit.successes, visit.rollouts)) for visit in found]  # NaN stays


def _is_possible(visit: Visit) -> bool:
    k = visit.successes  # NaN where undefined; more than the scorable rollouts if unscorable ones succeeded
    counts = 0 <= visit.rollouts <= MOST_ROLLOUTS and not (k < 0 or k > MOST_ROLLOUTS)
    rewards = visit.rewards is None or bool(scorable(visit.rewards).all())
    return counts and rewards and (visit.lengths is None or all(map(_is_length, visit.lengths.tolist())))


def visits(histories: Sequence[PromptHistory], size: int = 512) -> Iterator[tuple[list[PromptHistory], int]]:
    """The visits in training order: the first visits of all prompts, then the second ones, and so on.

    Yields: batches of at most `size` histories, with the number of the visit, counted from 0.
    """
    for visit in range(max((len(history.rollouts) for history in histories), default=0)):
        visited = [history for history in histories if len(history.rollouts) > visit]
        for start in range(0, len(visited), size):
            yield visited[start : start + size], visit


def ground_truth_text(value: Any) -> str | None:
    """A reference answer as text: text stays as it is, numbers and structures become JSON, missing values None. What
    JSON lacks, such as the times of a parquet file, becomes text in it."""
    if is_missing(value):
        return None
    if isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def absent(value: Any) -> bool:
    """Whether a value is missing, or a text that names a missing value."""
    return names_missing(value) if isinstance(value, str) else is_missing(value)


def _row(history: PromptHistory) -> dict[str, Any]:
    truth = {} if history.ground_truth is None else {"ground_truth": history.ground_truth}
    row = {"id": history.id, "prompt": history.prompt, **truth, "rollouts": history.rollouts.astype(int).tolist()}
    known = ~np.isnan(history.successes)
    if known.any():
        row["successes"] = [int(k) if there else None for k, there in zip(history.successes, known, strict=True)]
    if history.rewards is not None:
        row["rewards"] = [visit.tolist() for visit in history.rewards]
    if history.lengths is not None:
        row["lengths"] = [plain_lengths(visit) for visit in history.lengths]
    return row


def _rewards(given: Any, what: str) -> tuple[FloatArray, ...]:
    """[T] the scorable rewards of each visit; null is unscorable."""
    if not isinstance(given, list) or not given:
        raise DataError(f"{what} is {given!r}; expected a list with one list of numbers for each visit")
    found = []
    for visit, group in enumerate(given, start=1):
        known = [reward for reward in group if not is_missing(reward)] if isinstance(group, list) else []
        if not known or not all(isinstance(reward, int | float) and scorable(reward) for reward in known):
            raise DataError(
                f"{what} has {short(group)} at position {visit}; expected a list of numbers of at most "
                f"{LARGEST_REWARD:g}, with at least one"
            )
        found.append(np.array(known, dtype=float))
    return tuple(found)


def _lengths(row: Mapping[str, Any], rollouts: FloatArray, what: str) -> tuple[FloatArray, ...]:
    """[T] the length of each scorable rollout; where a reward is null, its length does not count."""
    given = row["lengths"]
    if not isinstance(given, list) or len(given) != len(rollouts):
        raise DataError(f"{what} is {short(given)}; expected one list for each of {len(rollouts)} visits")
    rewards = [None] * len(rollouts) if absent(row.get("rewards")) else row["rewards"]
    found = []
    for visit, (group, values, n) in enumerate(zip(given, rewards, rollouts, strict=True), start=1):
        size = int(n) if values is None else len(values)
        if not isinstance(group, list) or len(group) != size or not all(map(_is_length, group)):
            raise DataError(
                f"{what} has {short(group)} at position {visit}; expected {size} non-negative numbers, one for each "
                "rollout, null where unknown"
            )
        kept = group if values is None else [x for x, r in zip(group, values, strict=True) if not is_missing(r)]
        found.append(np.array([math.nan if is_missing(x) else x for x in kept], dtype=float))
    return tuple(found)


def _is_length(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LARGEST_REWARD
    return is_missing(value) or number


def _successes(given: Any, rewards: tuple[FloatArray, ...] | None, what: str) -> FloatArray:
    """[T]; with rewards they may be missing, altogether or at some visits."""
    if rewards is None:
        if not isinstance(given, list) or not given:
            raise DataError(f"{what} is {given!r}; expected a list with one number for each visit")
        return _whole_numbers(given, 0, what)
    if is_missing(given):
        return np.full(len(rewards), np.nan)
    if not isinstance(given, list) or len(given) != len(rewards):
        raise DataError(
            f"{what} is {short(given)}; expected one number for each of the {len(rewards)} visits in rewards"
        )
    missing = [is_missing(k) for k in given]
    return np.where(missing, np.nan, _whole_numbers([0 if is_missing(k) else k for k in given], 0, what))


def _rollouts(given: Any, successes: FloatArray, rewards: tuple[FloatArray, ...] | None, where: str) -> FloatArray:
    """[T]; with rewards they may be missing, and must fit them otherwise."""
    sizes = np.array([len(visit) for visit in rewards or ()], dtype=float)
    if rewards is not None and is_missing(given):
        return sizes
    rollouts = _whole_numbers(given if isinstance(given, list) else [given], 1, f"{where}: rollouts")
    if isinstance(given, list) and len(rollouts) != len(successes):
        raise DataError(
            f"{where}: rollouts has {len(rollouts)} numbers and successes has {len(successes)}; expected one of each "
            "for each visit"
        )
    rollouts = np.broadcast_to(rollouts, successes.shape)
    if rewards is not None and (rollouts != sizes).any():
        visit = int(np.argmax(rollouts != sizes))
        raise DataError(
            f"{where}: rollouts is {rollouts[visit]:g} at visit {visit + 1}, but rewards has {sizes[visit]:g} numbers "
            "there; expected the same number, or no rollouts"
        )
    return rollouts


def _whole_numbers(values: Sequence[Any], least: int, what: str) -> FloatArray:
    for visit, value in enumerate(values, start=1):
        whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
        if not whole or not least <= value <= MOST_ROLLOUTS:
            given = "a huge number" if isinstance(value, int) and abs(value) > MOST_ROLLOUTS else repr(value)
            raise DataError(
                f"{what} has {given} at position {visit}; expected whole numbers of at least {least} and at most "
                f"{MOST_ROLLOUTS}"
            )
    return np.array(values, dtype=float)
