"""The file of completions: JSON lines with `id`, `answer` and `completions`, a list of n texts.

`viprl evaluate` scores any such file, and appends to one while it samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from viprl.data.answer import read_answer
from viprl.data.values import exact_float
from viprl.errors import DataError, FileError
from viprl.utils.json_lines import append_json_line, read_json_lines, remove_cut_line
from viprl.utils.missing import is_missing, names_missing


@dataclass(frozen=True)
class Generations:
    """The completions of one problem."""

    id: str
    answer: str
    completions: tuple[str, ...]
    truncated: int = 0
    """Completions that reached the maximum length, if known."""


def read_generations(path: str | Path) -> list[Generations]:
    """All problems of a file (.jsonl or .jsonl.gz).

    Raises FileError if the file is missing. Raises DataError, with the row counted from 1, for rows that are not
    generations and for duplicate ids; also for an empty file, different numbers of completions, and if all completions
    are empty.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise FileError(f"{path} {what}; expected a file of JSON lines with id, answer and completions")
    rows: dict[str, tuple[int, Generations]] = {}
    for number, row in read_json_lines(path, parse_float=exact_float):
        problem = parse_row(row, f"{path}, row {number}")
        if problem.id in rows:
            raise DataError(f"{path}: rows {rows[problem.id][0]} and {number} have the same id {problem.id!r}")
        rows[problem.id] = number, problem
    if not rows:
        raise DataError(f"{path} has no rows")
    problems = [problem for _, problem in rows.values()]
    _check_equal_numbers(problems, path)
    if not any(text.strip() for problem in problems for text in problem.completions):
        raise DataError(f"{path}: all completions are empty")
    return problems


def parse_row(row: Mapping[str, Any], where: str) -> Generations:
    """A checked row. Raises DataError, with `where`, if it is not usable."""
    missing = [key for key in ("id", "answer", "completions") if key not in row]
    if missing:
        raise DataError(f"{where} has no {' and no '.join(missing)}; its keys are {', '.join(row) or '-'}")
    name, answer, texts = row["id"], row["answer"], row["completions"]
    try:
        name = problem_id(name)
        answer = read_answer(answer)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    if not isinstance(texts, list) or not texts:
        given = "an empty list" if texts == [] else f"of type {type(texts).__name__}"
        raise DataError(f"{where}: completions is {given}; expected a list of texts")
    for place, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise DataError(f"{where}: completion {place} is of type {type(text).__name__}; expected a text")
    truncated = row.get("truncated") or 0
    if not isinstance(truncated, int) or not 0 <= truncated <= len(texts):
        raise DataError(f"{where}: truncated is {truncated!r}; expected a number of completions")
    return Generations(name, answer, tuple(texts), int(truncated))


def problem_id(value: Any) -> str:
    """The id of a problem as text; a whole number is written as 5, not 5.0. Raises DataError for other values."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    missing = is_missing(value) or (isinstance(value, str) and (not value.strip() or names_missing(value)))
    if missing or isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"id is {value!r}; expected a text or a whole number")
    return str(value)


def check_same_problems(problems: Sequence[Generations], answers: Mapping[str, str], where: str, dataset: str) -> None:
    """Raise DataError unless the problems of a file are those of a data set.

    Args:
        problems: of the file.
        answers: id -> answer of the data set.
        where: the file, for errors.
        dataset: name of the data set, for errors.
    """
    foreign = [problem.id for problem in problems if problem.id not in answers]
    if foreign:
        raise DataError(
            f"{where} and {dataset} differ: {len(foreign)} of {len(problems)} ids of the file are not in the data set "
            f"({_some(foreign)})"
        )
    for problem in problems:
        if problem.answer.strip() != answers[problem.id].strip():
            raise DataError(
                f"{where} and {dataset} differ: the answer of problem {problem.id!r} is {problem.answer!r} in the file "
                f"and {answers[problem.id]!r} in the data set"
            )
    known = {problem.id for problem in problems}
    absent = [name for name in answers if name not in known]
    if absent:
        raise DataError(
            f"{where} has only {len(problems)} of the {len(answers)} problems of {dataset} (not {_some(absent)}); "
            "set --limit to evaluate only the first problems of the data set"
        )


class Store:
    """The file to which sampling appends. If the process is killed, only the problem that is being written is lost.

    Raises DataError for a row that is not usable.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, Generations] = {}
        """id -> problem in the file."""
        if path.exists():
            remove_cut_line(path)
            for number, row in read_json_lines(path, parse_float=exact_float):
                problem = parse_row(row, f"{path}, row {number}")
                self.found[problem.id] = problem

    def append(self, problem: Generations) -> None:
        """Add one problem and wait until it is on the disk."""
        append_json_line(self.path, asdict(problem), durable=True)
        self.found[problem.id] = problem


def seed_of(seed: int, name: str) -> int:
    """A seed of 48 bits for a problem, from the seed of the run and the id of the problem alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{name}".encode("utf-8", "surrogatepass")).digest()[:6])


def _check_equal_numbers(problems: Sequence[Generations], path: Path) -> None:
    first = problems[0]
    for problem in problems:
        if len(problem.completions) != len(first.completions):
            raise DataError(
                f"{path}: problem {problem.id!r} has {len(problem.completions)} completions and problem {first.id!r} "
                f"has {len(first.completions)}; expected the same number"
            )


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
